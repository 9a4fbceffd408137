"""Softmax whose temperature is a function of the row it normalises."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.moments import moment_inverse_temperature, row_moments
from rankbias.ops.rows import (
  Axis,
  float_dtype,
  masked_logits,
  per_row,
  row_count,
  row_maximum,
)
from rankbias.ops.softmax import normalize

InverseTemperature = Callable[[Array, Array], Array]

# The published fit, highest power first (read in the other order it sharpens the wrong rows).
COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)
ENTROPY_FLOOR = 0.5


def entropy_polynomial(
  entropy: Real[ArrayLike, "*shape"], count: Real[ArrayLike, "*#shape"] | None = None
) -> Float[Array, "*shape"]:
  """Maps the entropy of a row to the inverse temperature that sharpens it.

  beta(H) = max(1, -0.037 H^4 + 0.481 H^3 - 2.3 H^2 + 4.917 H - 1.791) where H > 0.5, else 1.

  It exceeds 1 only for 0.849 < H < 5.945 nats and peaks at 2.421: a row as spread out as a uniform
  one over 382 entries or more is left as it is.

  Args:
    entropy: H in nats.
    count: ignored; present because every inverse temperature is called with (entropy, count).

  Example: entropy_polynomial(log 16) is 2.2265.
  Source: Velickovic et al. 2024, arXiv:2410.01104, section 5.
  """
  del count
  entropy = jnp.asarray(entropy)
  entropy = entropy.astype(float_dtype(entropy))
  sharpened = jnp.polyval(jnp.asarray(COEFFICIENTS, entropy.dtype), entropy)
  return jnp.where(entropy > ENTROPY_FLOOR, jnp.maximum(sharpened, 1), 1)


def adaptive_temperature_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  inverse_temperature: InverseTemperature = entropy_polynomial,
  stop_gradient: bool = False,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Normalises every row at an inverse temperature chosen from its own entropy.

  p = softmax(beta z),  beta = inverse_temperature(H(softmax(z)), n),  n unmasked entries.

  Args:
    inverse_temperature: any function (entropy, count) -> beta. Both arguments keep `axis` with
      size 1, in float32 or wider; beta broadcasts against logits. An empty row has entropy 0 and
      count 1.
    stop_gradient: treats beta as a constant of the derivative.
    axis, where: as in `softmax`; masked entries count neither in the entropy nor in n.

  Example: adaptive_temperature_softmax([1., 2., 3., 4.]) is [.0201, .0657, .2145, .6996].
  Source: Velickovic et al. 2024, arXiv:2410.01104, section 5.
  """
  return _adaptive(
    logits, where, inverse_temperature=inverse_temperature, stop_gradient=stop_gradient, axis=axis
  )


def scalable_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  scale: Real[ArrayLike, "*#shape"] = 0.43,
  bias: Real[ArrayLike, "*#shape"] = 0.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Sharpens a row with the logarithm of its length, so that long rows do not fade.

  p = softmax((s log n + b) z),  n unmasked entries.

  Args:
    scale, bias: s and b; numbers, traced scalars or arrays that broadcast against logits with size
      1 along `axis`, such as one per head. Both have derivatives. s = 0, b = 1 is softmax.
    axis, where: as in `softmax`; masked entries do not count in n, so a causal mask lets n grow
      along the sequence.

  Raises:
    ValueError: scale or bias differs along `axis`.

  Example: scalable_softmax([0., 1.], scale=2.) is [.2, .8]: (n^s)^z = 4^z.
  Source: Nakanishi 2025, arXiv:2501.19399.
  """
  return _scalable(logits, scale, bias, where, axis=axis)


def _adaptive(logits, where, *, inverse_temperature, stop_gradient, axis):
  masked = masked_logits(logits, None, where)
  moments = row_moments(masked, axis)
  beta = moment_inverse_temperature(moments, inverse_temperature, stop_gradient)
  return _sharpened(masked, beta, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _scalable(logits, scale, bias, where, *, axis):
  masked = masked_logits(logits, None, where)
  scale = per_row("scale", scale, masked, axis).astype(masked.dtype)
  bias = per_row("bias", bias, masked, axis).astype(masked.dtype)
  count = row_count(masked != -jnp.inf, axis, masked.dtype)
  return _sharpened(masked, scale * jnp.log(count) + bias, axis).astype(float_dtype(logits))


def _sharpened(masked, beta, axis):
  """Computes softmax(beta z), with -inf as a mask whatever beta is."""
  mass = masked != -jnp.inf
  # Shifted before it is scaled: exact, and large logits do not lose digits to beta.
  shifted = jnp.where(mass, masked - row_maximum(masked, axis), 0)
  scaled = jnp.where(mass, jnp.broadcast_to(beta, shifted.shape) * shifted, -jnp.inf)
  return normalize(scaled, axis)
