"""Output layers that end in one linear map: plain, and with dropout on it."""

from collections.abc import Callable

import jax
from flax import linen as nn

from rankbias import ops
from rankbias.models.heads.contract import (
  StreamedHead,
  dropped,
  dropped_weights,
  output,
)
from rankbias.models.layers import check_dropout
from rankbias.ops.affine import affine


class AffineHead(StreamedHead):
  """An output layer that ends in one linear map: logits f(x W + b) of inputs x of its own.

  A head of this kind says its `last` linear map. With `chunked` the loss is
  `ops.linear_cross_entropy`.
  """

  def last(self, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The inputs x [..., k], the kernel W [k, V] and the bias b [V], or None."""
    raise NotImplementedError(f"{type(self).__name__} does not say its last linear map.")

  def logit_map(self) -> Callable[[jax.Array], jax.Array] | None:
    """The increasing map f of single logits before the softmax; None is the identity."""
    return None

  def __call__(self, features: jax.Array) -> jax.Array:
    """The logits f(x W + b), before the division by the temperature."""
    logits, function = affine(*self.last(features)), self.logit_map()
    return logits if function is None else function(logits)

  def streamed(
    self, features: jax.Array, labels: jax.Array, temperature: jax.Array | float
  ) -> tuple[jax.Array, jax.Array]:
    """The losses, and whether the labels are the likeliest classes."""
    inputs, kernel, bias = self.last(features)
    own = {"bias": bias, "logit_map": self.logit_map(), "temperature": temperature}
    losses, aux = ops.linear_cross_entropy(inputs, kernel, labels, **own)
    return losses, aux.correct


class LinearHead(AffineHead):
  """Logits by a linear map, probabilities by a softmax with temperature.

      z = W h + b        p = softmax(z / T)        loss = -log p_y

  The kernel is drawn from N(0, 1 / fan_in), half of the variance of the ReLU layers; the bias is
  zero. Use as `head.apply(variables, features, labels, temperature=T, method="loss")`.
  """

  @nn.compact
  def last(self, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The features, the kernel and the bias."""
    return features.astype(self.dtype), *output(self, features.shape[-1])


class DropoutDecoupledHead(AffineHead):
  """A linear head with dropout on the features and the weights of the last linear map.

      z = drop(W) drop(h) + b

  Dropout and decoupling (arXiv:2110.05409) is dropout on the final linear layer, and an output
  matrix that is not the input embedding, which no head of this package shares. Where exactly the
  dropout acts was not found, so both places are options; the defaults are a choice made here.
  Dropout acts when `apply` is given `rngs={"dropout": key}`.
  """

  dropout: float = 0.2
  weight_dropout: float = 0.0

  @nn.compact
  def last(self, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The features and the kernel, of both of which some is dropped, and the bias."""
    check_dropout(self.dropout)
    check_dropout(self.weight_dropout)
    kernel, bias = output(self, features.shape[-1])
    features = dropped(self, features.astype(self.dtype), self.dropout)
    return features, dropped_weights(self, kernel, self.weight_dropout), bias
