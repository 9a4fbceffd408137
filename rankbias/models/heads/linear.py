"""Linear output layers: plain, and with dropout on the last linear map."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.heads.contract import (
  Head,
  are_integers,
  dense,
  dropped,
  dropped_weights,
  output,
)
from rankbias.models.layers import check_dropout


class LinearHead(Head):
  """Logits by a linear map, probabilities by a softmax with temperature.

      z = W h + b        p = softmax(z / T)        loss = -log p_y

  The kernel is drawn from N(0, 1 / fan_in), half of the variance of the ReLU layers; the bias is
  zero. Use as `head.apply(variables, features, labels, temperature=T, method="loss")`.

  With `chunked` the loss holds no array of all logits (`ops.linear_cross_entropy`), nor does its
  derivative. Labels are integers then, without label smoothing.
  """

  chunked: bool = False

  def setup(self):
    self.linear = dense(self, self.num_classes, None, self.use_bias)

  def logit_map(self) -> Callable[[jax.Array], jax.Array] | None:
    """The increasing map f of single logits before the softmax; None is the identity."""
    return None

  def __call__(self, features: jax.Array) -> jax.Array:
    """The logits f(z), before the division by the temperature."""
    logits, function = self.linear(features), self.logit_map()
    return logits if function is None else function(logits)

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
    layer = {k: v.astype(self.dtype) for k, v in self.linear.variables["params"].items()}
    own = {"bias": layer.get("bias"), "logit_map": self.logit_map(), "temperature": temperature}
    features = features.astype(self.dtype)
    losses, aux = ops.linear_cross_entropy(features, layer["kernel"], labels, **own)
    return losses, aux.correct


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
    logits = jnp.matmul(features, dropped_weights(self, kernel, self.weight_dropout))
    return logits if bias is None else logits + jnp.expand_dims(bias, range(logits.ndim - 1))
