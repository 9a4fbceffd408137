"""Output layers with several vectors for one context: partitioned and multi-facet softmax."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.heads.contract import MixtureHead, StreamedHead, dense, output

NOISE = 1e-4  # about the identity, as published


class PartitionedHead(StreamedHead):
  """Classes dealt out to P parts by index mod P; each part has a linear map of the features q.

      q = (h, gelu(A h + a))        z_v = <w_v, L_(v mod P) q> + b_v

  The rank of the logits is at most P d and at most the size of q, at the cost of one softmax:
  without the `hidden` features (0) it would stay d. None is as many as h has. The maps start at the
  identity on h with a little noise, where the head is the linear one. With `chunked` the loss is
  `ops.partitioned_cross_entropy`.
  """

  partitions: int = 4
  hidden: int | None = None

  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    return ops.partitioned_logits(*self.parts(features))

  def streamed(
    self, features: jax.Array, labels: jax.Array, temperature: jax.Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The losses, and whether the labels are the likeliest classes."""
    facets, kernel, bias = self.parts(features)
    own = {"bias": bias, "temperature": temperature}
    return ops.partitioned_cross_entropy(facets, kernel, labels, **own)

  @nn.compact
  def parts(self, features: jax.Array) -> tuple:
    """The facets of the parts [..., P, d], the kernel and the bias."""
    facets = _facets(self, _inputs(self, features), features.shape[-1], self.partitions)
    return facets, *output(self, features.shape[-1])


class MultiFacetHead(StreamedHead, MixtureHead):
  """One partitioned softmax mixed with K plain ones, each with a linear map of the features q.

  See `ops.multi_facet_log_probs`; q and the start are those of `PartitionedHead`. The published
  head makes q of lower layers and previous positions too; this one has the features of one layer
  and position. For the others, put `ops.shifted_windows` before it. With `chunked` the loss is
  `ops.multi_facet_cross_entropy`.
  """

  partitions: int = 4
  softmaxes: int = 2
  hidden: int | None = None

  def streamed(
    self, features: jax.Array, labels: jax.Array, temperature: jax.Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The losses, and whether the labels are the likeliest classes."""
    *facets, kernel, bias = self.parts(features)
    own = {"bias": bias, "temperature": temperature}
    return ops.multi_facet_cross_entropy(*facets, kernel, labels, **own)

  def log_probs(self, features: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The logarithms of the class probabilities, in nats."""
    return ops.multi_facet_log_probs(*self.parts(features), temperature=temperature)

  @nn.compact
  def parts(self, features: jax.Array) -> tuple:
    """The prior's logits, the facets of the parts and of the plain softmaxes, kernel and bias."""
    if self.softmaxes < 0:
      raise ValueError(f"softmaxes={self.softmaxes} must be at least 0: the plain ones.")
    q, width = _inputs(self, features), features.shape[-1]
    facets = _facets(self, q, width, self.partitions, self.softmaxes)
    prior_logits = dense(self, 1 + self.softmaxes, "prior")(q)
    return prior_logits, *jnp.split(facets, [self.partitions], -2), *output(self, width)


def _inputs(head, features):
  """Returns q = (h, gelu(A h + a))."""
  hidden = features.shape[-1] if head.hidden is None else head.hidden
  if hidden < 0:
    raise ValueError(f"hidden={hidden} must be at least 0, or None for the size of the features.")
  if not hidden:
    return features
  features = features.astype(head.dtype)
  return jnp.concatenate([features, nn.gelu(dense(head, hidden, "hidden")(features))], -1)


def _facets(head, q, width, partitions, more=0):
  """Returns linear maps of q, [..., partitions + more, width], near the identity on h at first."""
  if partitions < 1:
    raise ValueError(f"partitions={partitions} must be at least 1: 4 are published.")
  count = partitions + more

  def near_identity(key, shape, dtype):
    identity = jnp.tile(jnp.eye(shape[0], width, dtype=dtype), (1, count))
    return identity + NOISE * (jax.random.uniform(key, shape, dtype) - 0.5)

  maps = dense(head, count * width, "facets", use_bias=False, kernel_init=near_identity)
  return maps(q).reshape(*q.shape[:-1], count, width)
