"""What the models share: initialisations, normalisation layers, dropout, names of normalisers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rankbias import ops

# He's normal initialisation: variance 2 / fan_in, which keeps the scale of activations through a
# ReLU; not truncated, so that the distribution of kernels is exactly the Gaussian of the theory.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# Half of He's variance, where no ReLU follows: 1 / fan_in keeps the scale.
LECUN = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

NORMS = ("none", "batch", "layer")


class BatchNorm(nn.Module):
  """Normalises every channel by its statistics over the batch, then scales and shifts it.

      y = scale (x - mean) / sqrt(var + 1e-5) + bias        running <- 0.9 running + 0.1 batch

  As flax's, with one difference that a float64 program inside `scan` needs: the running averages
  have the parameters' dtype (or float32 if wider) from the first step on. Statistics are computed
  in float32 or wider, the variance is the biased one, and evaluation uses the running averages.
  """

  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    shape, wide = x.shape[-1:], jnp.promote_types(self.param_dtype, jnp.float32)
    scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, wide)
    running_var = self.variable("batch_stats", "var", jnp.ones, shape, wide)
    x = x.astype(jnp.promote_types(x.dtype, wide))
    mean, var = running_mean.value, running_var.value
    if train:
      axes = tuple(range(x.ndim - 1))
      moments = x.mean(axes), jnp.square(x).mean(axes)
      if self.axis_name and not self.is_initializing():
        moments = jax.lax.pmean(moments, self.axis_name)
      mean, var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0)
      if not self.is_initializing():
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean.astype(wide)
        running_var.value = 0.9 * running_var.value + 0.1 * var.astype(wide)
    gain = jax.lax.rsqrt(var + 1e-5) * scale
    mean, gain, bias = (jnp.expand_dims(a, range(x.ndim - 1)) for a in (mean, gain, bias))
    return ((x - mean) * gain + bias).astype(self.dtype)


class Norm(nn.Module):
  """The normalisation layer that `kind` names, the identity for "none".

  "batch" is `BatchNorm`; "layer" normalises every position by its statistics over the channels.
  """

  kind: str
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    if self.kind == "batch":
      return BatchNorm(self.axis_name, **types, name="norm")(x, train)
    if self.kind == "layer":
      return nn.LayerNorm(epsilon=1e-5, **types, name="norm")(x)
    return x


def check_norm(kind: str) -> None:
  """Raises ValueError when `kind` names no normalisation layer."""
  if kind not in NORMS:
    raise ValueError(f"norm={kind!r} is unknown: choose one of {', '.join(NORMS)}.")


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
  """Sets every feature to zero with probability `rate` and divides the others by 1 - rate.

  The expectation is x. What is dropped from an image depends on its key and on the layer alone, so
  that the result does not depend on how a batch is cut into devices.

  Args:
    keys: one random key per image, [B]; None returns x, and so does a rate of 0.
    layer: tells the dropout layers of a model apart.

  Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from
  overfitting".
  """
  if keys is None or not rate:
    return x
  keep = np.float32(1 - rate)  # the same draws in a float64 program

  def kept(key):
    return jax.random.bernoulli(jax.random.fold_in(key, layer), keep, x.shape[1:])

  return jnp.where(jax.vmap(kept)(keys), x / (1 - rate), 0)


def check_dropout(rate: float) -> None:
  """Raises ValueError when `rate` is no probability with which features can be dropped."""
  if not 0 <= rate < 1:
    raise ValueError(
      f"dropout={rate} must lie in [0, 1): it is the probability that a feature is set to zero."
    )


def resolve(normalizer: Any) -> Callable[..., jax.Array]:
  """The function that a config's normaliser stands for; raises as `ops.normalizer` does."""
  if isinstance(normalizer, str | Mapping):
    own = {"name": normalizer} if isinstance(normalizer, str) else normalizer
    return ops.normalizer(**own)
  if not callable(normalizer):
    raise ValueError(
      f"normalizer={normalizer!r} must be a name, {{'name': ..., **arguments}} or a function."
    )
  return normalizer
