"""Linear output layers: plain, and with dropout on the last linear map."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias.models.heads.contract import Head, dense, dropped, output
from rankbias.models.layers import check_dropout


class LinearHead(Head):
  """Logits by a linear map, probabilities by a softmax with temperature.

      z = W h + b        p = softmax(z / T)        loss = -log p_y

  The kernel is drawn from N(0, 1 / fan_in), half of the variance of the ReLU layers; the bias is
  zero. Use as `head.apply(variables, features, labels, temperature=T, method="loss")`.
  """

  def setup(self):
    self.linear = dense(self, self.num_classes, None, self.use_bias)

  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    return self.linear(features)


class DropoutDecoupledHead(Head):
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
  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    check_dropout(self.dropout)
    check_dropout(self.weight_dropout)
    kernel, bias = output(self, features.shape[-1])
    features = dropped(self, features.astype(self.dtype), self.dropout)
    logits = jnp.matmul(features, dropped(self, kernel, self.weight_dropout))
    return logits if bias is None else logits + jnp.expand_dims(bias, range(logits.ndim - 1))
