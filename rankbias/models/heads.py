"""Output layers: from features to class probabilities and the loss, behind one contract."""

from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import LECUN
from rankbias.ops import cross_entropy, log_softmax


class LinearHead(nn.Module):
  """Logits by a linear map, probabilities by a softmax with temperature.

      z = W h + b        p = softmax(z / T)        loss = -log p_y

  The kernel is drawn from N(0, 1 / fan_in), half of the variance of the ReLU layers; the bias is
  zero. Use as `head.apply(variables, features, labels, temperature=T, method="loss")`.
  """

  num_classes: int
  use_bias: bool = True
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  def setup(self):
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    self.linear = nn.Dense(self.num_classes, self.use_bias, kernel_init=LECUN, **types)

  def __call__(self, features: jax.Array) -> jax.Array:
    """The raw logits z, before the division by the temperature."""
    return self.linear(features)

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
    return cross_entropy(
      self(features), labels, temperature=temperature, label_smoothing=label_smoothing
    )


HEADS = {"linear": LinearHead}
