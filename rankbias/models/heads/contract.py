"""What every output layer offers, on logits or on log-probabilities, and the parts they share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rankbias.models.layers import LECUN, dropout
from rankbias.ops import cross_entropy, log_softmax


class Head(nn.Module):
  """An output layer: features [..., d] to class log-probabilities [..., V] and the loss.

      p = softmax(z / T)        loss = -sum_v q_v log p_v

  A head of this kind has raw logits z, its `__call__`. Use as `head.apply(variables, features,
  labels, temperature=T, method="loss")`. Where a head has a dropout, it acts when `apply` is given
  `rngs={"dropout": key}`, and not otherwise; see `dropped`.
  """

  num_classes: int
  use_bias: bool = True
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    raise NotImplementedError(f"{type(self).__name__} has no logits.")

  def log_probs(self, features: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The logarithms of the class probabilities, in nats."""
    return log_softmax(self(features), temperature=temperature)

  def loss(
    self,
    features: jax.Array,
    labels: jax.Array,
    temperature: jax.Array | float = 1.0,
    label_smoothing: float = 0.0,
  ) -> jax.Array:
    """The cross-entropy of every example in nats; labels are integers or distributions."""
    return self.scored(features, labels, temperature, label_smoothing)[0]

  def scored(
    self,
    features: jax.Array,
    labels: jax.Array,
    temperature: jax.Array | float = 1.0,
    label_smoothing: float = 0.0,
  ) -> tuple[jax.Array, jax.Array]:
    """The loss of every example, and whether its label is the likeliest class, by one evaluation.

    The likeliest class is that at the temperature, the first of equals; the label of a distribution
    is its likeliest class.
    """
    logits, temperature = self.tempered(features, temperature)
    smoothed = {"temperature": temperature, "label_smoothing": label_smoothing}
    wanted = labels if are_integers(labels) else jnp.argmax(labels, -1)
    return cross_entropy(logits, labels, **smoothed), is_argmax(logits, wanted)

  def tempered(self, features: jax.Array, temperature: jax.Array | float) -> tuple:
    """What `loss` takes as logits, and the temperature that is left to divide them by."""
    return self(features), temperature


class MixtureHead(Head):
  """An output layer that mixes probabilities, and so has log-probabilities but no logits.

  The temperature acts inside every component, before the mixture; `__call__` returns the
  log-probabilities at T = 1, whose softmax is the mixture.
  """

  def __call__(self, features: jax.Array) -> jax.Array:
    """The log-probabilities at temperature 1."""
    return self.log_probs(features)

  def log_probs(self, features: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The logarithms of the class probabilities, in nats."""
    raise NotImplementedError(f"{type(self).__name__} does not say its log_probs.")

  def tempered(self, features: jax.Array, temperature: jax.Array | float) -> tuple:
    """The log-probabilities, which a log-softmax leaves as they are; no temperature is left."""
    return self.log_probs(features, temperature), 1.0


class StreamedHead(Head):
  """An output layer whose loss can do without the array of all classes.

  With `chunked` neither the loss nor its derivative holds that array; see the op that `streamed`
  calls. Labels are integers then, without label smoothing.
  """

  chunked: bool = False

  def streamed(
    self, features: jax.Array, labels: jax.Array, temperature: jax.Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The losses, and whether the labels are the likeliest classes."""
    raise NotImplementedError(f"{type(self).__name__} does not say its streamed loss.")

  def scored(
    self,
    features: jax.Array,
    labels: jax.Array,
    temperature: jax.Array | float = 1.0,
    label_smoothing: float = 0.0,
  ) -> tuple[jax.Array, jax.Array]:
    """The loss of every example, and whether its label is the likeliest class."""
    if not self.chunked:
      return super().scored(features, labels, temperature, label_smoothing)
    if label_smoothing or not are_integers(labels):
      raise ValueError(
        f"chunked=True takes integer labels without smoothing, not label_smoothing="
        f"{label_smoothing} and labels of dtype {jnp.result_type(labels)}. Set head.chunked=False, "
        "or label_smoothing=0."
      )
    return self.streamed(features, labels, temperature)


class Affine(nn.Module):
  """The kernel [d, V] and the bias [V], or None, of the last linear map, handed over to an op."""

  size: int
  use_bias: bool = True
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, width: int) -> tuple[jax.Array, jax.Array | None]:
    """The parameters for features of this width."""
    kernel = self.param("kernel", LECUN, (width, self.size), self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.size,), self.param_dtype)
      bias = bias.astype(self.dtype)
    return kernel.astype(self.dtype), bias


def is_argmax(logits: jax.Array, index: jax.Array) -> jax.Array:
  """Whether argmax(logits, -1) == index: nothing is larger, and nothing before it as large.

  On a CPU these comparisons take a seventh of the time of argmax. False where a logit is NaN.
  """
  index = index[..., None]
  own = jnp.take_along_axis(logits, index, -1)
  place = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  return jnp.all((logits < own) | ((logits == own) & (place >= index)), -1)


def output(head: Head, width: int) -> tuple[jax.Array, jax.Array | None]:
  """The last kernel and bias of a head, called "linear" as in the linear head."""
  types = {"dtype": head.dtype, "param_dtype": head.param_dtype}
  return Affine(head.num_classes, head.use_bias, **types, name="linear")(width)


def dense(head: Head, size: int, name: str, use_bias: bool = True, **options: Any) -> nn.Dense:
  """A linear layer of a head, with the head's dtypes and the initialisation of linear layers."""
  options = {"kernel_init": LECUN, **options}
  types = {"dtype": head.dtype, "param_dtype": head.param_dtype}
  return nn.Dense(size, use_bias, **options, **types, name=name)


def are_integers(labels: jax.Array) -> bool:
  """True for class indices, False for distributions."""
  return jnp.issubdtype(jnp.result_type(labels), jnp.integer)


def dropped(head: Head, x: jax.Array, rate: float) -> jax.Array:
  """Drops entries of x, [B, ..., d] for B examples, where `apply` was given a key for dropout.

  One mask [d] an example, drawn from the key and from the place of the example in the batch, and
  locked over what stands between, the positions of a sequence. The places are 0..B-1, or those of
  the collection {"batch": {"positions": int [B]}} that `apply` was given beside the parameters: so
  what is dropped from an example does not depend on how the batch is cut into devices.
  """
  if not rate or not head.has_rng("dropout"):
    return x
  examples = x.shape[:-1][:1]
  positions = head.get_variable("batch", "positions", jnp.arange(*examples or (1,)))
  keys = jax.vmap(jax.random.fold_in, (None, 0))(head.make_rng("dropout"), positions)
  kept = dropout(jnp.ones((len(keys), x.shape[-1]), x.dtype), rate, keys, 0)
  return x * kept.reshape(*examples, *[1] * (x.ndim - 2), x.shape[-1])


def dropped_weights(head: Head, x: jax.Array, rate: float) -> jax.Array:
  """Drops entries of x, which belongs to no example: one mask for the whole batch."""
  if not rate or not head.has_rng("dropout"):
    return x
  keep = np.float32(1 - rate)  # the same draws in a float64 program
  kept = jax.random.bernoulli(head.make_rng("dropout"), keep, x.shape)
  return jnp.where(kept, x / (1 - rate), 0)
