"""What every output layer offers, on logits or on log-probabilities, and the parts they share."""

from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import LECUN
from rankbias.ops import cross_entropy, log_softmax


class Head(nn.Module):
  """An output layer: features [..., d] to class log-probabilities [..., V] and the loss.

      p = softmax(z / T)        loss = -sum_v q_v log p_v

  A head of this kind has raw logits z, its `__call__`. Use as `head.apply(variables, features,
  labels, temperature=T, method="loss")`. Where a head has a dropout, it acts when `apply` is given
  `rngs={"dropout": key}`, and not otherwise.
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
    logits, temperature = self.tempered(features, temperature)
    return cross_entropy(logits, labels, temperature=temperature, label_smoothing=label_smoothing)

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


def output(head: Head, width: int) -> tuple[jax.Array, jax.Array | None]:
  """The last kernel and bias of a head, called "linear" as in the linear head."""
  types = {"dtype": head.dtype, "param_dtype": head.param_dtype}
  return Affine(head.num_classes, head.use_bias, **types, name="linear")(width)


def dense(head: Head, size: int, name: str, use_bias: bool = True, **options: Any) -> nn.Dense:
  """A linear layer of a head, with the head's dtypes and the initialisation of linear layers."""
  options = {"kernel_init": LECUN, **options}
  types = {"dtype": head.dtype, "param_dtype": head.param_dtype}
  return nn.Dense(size, use_bias, **options, **types, name=name)


def dropped(head: Head, x: jax.Array, rate: float) -> jax.Array:
  """Drops entries of x with probability `rate` where `apply` was given a key for dropout."""
  return nn.Dropout(rate, deterministic=not head.has_rng("dropout"))(x)
