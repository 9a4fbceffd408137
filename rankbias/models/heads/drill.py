"""DRILL: a linear output layer whose label vectors pass through a deep residual encoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.heads.contract import dropped, dropped_weights, output
from rankbias.models.heads.linear import AffineHead
from rankbias.models.layers import check_dropout

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh}
EACH = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))


class DrillHead(AffineHead):
  """Logits by encoded label vectors, z = <h, E_depth> + b (`ops.drill_encoder`, arXiv:1905.05513).

  The rank is that of the linear head. Published for language models: depth 4, a sigmoid or ReLU, a
  dropout of .6 before every layer, locked over a sequence. Here every number of the label vectors
  is dropped by itself, and the features as `dropped` says. `previous` adds the layer before, `dual`
  encodes the features as well.
  """

  depth: int = 4
  activation: str = "sigmoid"
  previous: bool = False
  dual: bool = False
  dropout: float = 0.0

  @nn.compact
  def last(self, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The features, encoded if `dual`, the encoded label vectors as a kernel, and the bias."""
    check_dropout(self.dropout)
    if self.activation not in ACTIVATIONS:
      raise ValueError(
        f"activation={self.activation!r} is unknown: choose one of {', '.join(ACTIVATIONS)}."
      )
    if self.depth < 0:
      raise ValueError(f"depth={self.depth} must be at least 0, where the head is linear.")
    features = features.astype(self.dtype)
    kernel, bias = output(self, features.shape[-1])
    labels = _encoded(self, kernel.T, "labels", dropped_weights)
    if self.dual:
      features = _encoded(self, features, "features", dropped)
    return features, labels.T, bias


class Layers(nn.Module):
  """The kernels [depth, d, d] and biases [depth, d] of an encoder."""

  depth: int
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
    """The parameters for vectors of this width."""
    kernel = self.param("kernel", EACH, (self.depth, width, width), self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.depth, width), self.param_dtype)
    return kernel.astype(self.dtype), bias.astype(self.dtype)


def _encoded(head, vectors, name, drop):
  layers = Layers(head.depth, head.dtype, head.param_dtype, name=name)(vectors.shape[-1])
  return ops.drill_encoder(
    vectors,
    *layers,
    activation=ACTIVATIONS[head.activation],
    previous=head.previous,
    between=lambda x, _: drop(head, x, head.dropout),
  )
