"""Output layers that mix: softmaxes, contexts, and contexts per word."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.heads.contract import (
  Affine,
  Head,
  MixtureHead,
  StreamedHead,
  dense,
  dropped,
  output,
)
from rankbias.models.heads.linear import AffineHead
from rankbias.models.layers import check_dropout


class MixtureOfSoftmaxesHead(StreamedHead, MixtureHead):
  """K softmaxes with one kernel and contexts of their own, mixed by a prior (arXiv:1711.03953).

      g_k = tanh(V_k h + c_k)    pi = softmax(U h)    p = sum_k pi_k softmax((W g_k + b) / T)

  The rank of log p is not bounded by the width. See `ops.mixture_log_probs` for what it costs.
  Published language models have K = 15 and a dropout of .29 on the contexts, one mask for a whole
  sequence, as here; `width` is the size of a context, None for that of the features. With `chunked`
  the loss is `ops.mixture_cross_entropy`.
  """

  components: int = 15
  width: int | None = None
  dropout: float = 0.0

  def streamed(
    self, features: jax.Array, labels: jax.Array, temperature: jax.Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The losses, and whether the labels are the likeliest classes."""
    prior_logits, contexts, kernel, bias = self.parts(features)
    own = {"bias": bias, "temperature": temperature}
    return ops.mixture_cross_entropy(prior_logits, contexts, kernel, labels, **own)

  def log_probs(self, features: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The logarithms of the class probabilities, in nats."""
    return ops.mixture_log_probs(*self.parts(features), temperature=temperature)

  @nn.compact
  def parts(self, features: jax.Array) -> tuple:
    """The prior's logits [..., K], the contexts [..., K, width], the kernel and the bias."""
    return _parts(self, features)


class MixtureOfContextsHead(AffineHead):
  """The control of the mixture of softmaxes: the same parameters, one softmax of a mixed context.

      z = W (sum_k pi_k g_k) + b

  The rank of log p stays at most width + 2. Options are those of `MixtureOfSoftmaxesHead`.
  """

  components: int = 15
  width: int | None = None
  dropout: float = 0.0

  @nn.compact
  def last(self, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The mixed context, the kernel and the bias."""
    prior_logits, contexts, kernel, bias = _parts(self, features)
    return ops.mixed_contexts(prior_logits, contexts), kernel, bias


class MixtapeHead(Head):
  """Four contexts mixed by every class with gates of its own, one softmax (`ops.mixtape_logits`).

  `frequent` is the share of the classes, the first ones, with gates of their own; below 1 it
  supposes that classes stand in the order of their frequency (a public implementation has .1).
  `width` and `gate_width` are the sizes of a context and of a gate's context, None for that of the
  features.
  """

  width: int | None = None
  gate_width: int | None = None
  frequent: float = 1.0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    if not 0 <= self.frequent <= 1:
      raise ValueError(
        f"frequent={self.frequent} must lie in [0, 1]: it is the share of the classes with gates "
        "of their own."
      )
    contexts = _contexts(self, features, 4, self.width, "latent")
    gate_contexts = _contexts(self, features, 3, self.gate_width, "gate_latent")
    count = math.ceil(self.frequent * self.num_classes)
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    gate_kernel, _ = Affine(count, False, **types, name="gates")(gate_contexts.shape[-1])
    gate_bias = self.param("gate_bias", nn.initializers.zeros, (3, count), self.param_dtype)
    gate_logits = dense(self, 3, "gate", use_bias=False)(features)
    kernel, bias = output(self, contexts.shape[-1])
    gates = gate_contexts, gate_logits, kernel, gate_kernel, bias, gate_bias.astype(self.dtype)
    return ops.mixtape_logits(contexts, *gates)


def _parts(head, features):
  if head.components < 1:
    raise ValueError(f"components={head.components} must be at least 1: 15 are published.")
  contexts = _contexts(head, features, head.components, head.width, "latent")
  prior_logits = dense(head, head.components, "prior", use_bias=False)(features)
  return prior_logits, contexts, *output(head, contexts.shape[-1])


def _contexts(head, features, count, width, name):
  """Returns tanh of `count` linear maps of the features, [..., count, width]."""
  check_dropout(head.dropout)
  width = features.shape[-1] if width is None else width
  if width < 1:
    raise ValueError(f"width={width} must be at least 1, or None for that of the features.")
  contexts = dropped(head, jnp.tanh(dense(head, count * width, name)(features)), head.dropout)
  return contexts.reshape(*features.shape[:-1], count, width)
