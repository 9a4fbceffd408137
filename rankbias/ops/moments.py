"""The moments of a row of logits: all that an inverse temperature needs to know of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rankbias.ops.rows import Axis, row_maximum


class Moments(NamedTuple):
  """Four numbers a row of logits z, of one shape, float32 or wider; masked logits are -inf.

  For the derivative, maximum and count are constants, and

    dz = e^(z - m) (dS + (1 + z - m) dW).

  Attributes:
    maximum: m = max z, the lowest finite number for a row of -inf.
    total: S = sum e^(z - m), 0 for such a row.
    weighted: W = sum (z - m) e^(z - m).
    count: n, how many entries are not -inf, 0 for such a row.
  """

  maximum: Array
  total: Array
  weighted: Array
  count: Array


def empty_moments(shape: tuple[int, ...], dtype: DTypeLike) -> Moments:
  """Returns the moments of rows without entries, which change nothing when merged."""
  zeros = jnp.zeros(shape, dtype)
  return Moments(jnp.full(shape, jnp.finfo(dtype).min, dtype), zeros, zeros, zeros)


def row_moments(logits: Float[Array, "..."], axis: Axis = -1) -> Moments:
  """Computes the moments of every row of float32 or wider logits, with the axis kept."""
  maximum = row_maximum(logits, axis)
  shifted = below(logits, maximum)
  weights = jnp.exp(shifted)
  count = jnp.sum(logits != -jnp.inf, axis, keepdims=True, dtype=logits.dtype)
  total, weighted = (jnp.sum(x, axis, keepdims=True) for x in (weights, shifted * weights))
  return Moments(maximum, total, weighted, count)


def merge_moments(a: Moments, b: Moments) -> Moments:
  """Returns the moments of rows cut in two from those of the parts; associative up to rounding."""
  maximum = jnp.maximum(a.maximum, b.maximum)
  total, weighted = jnp.zeros_like(maximum), jnp.zeros_like(maximum)
  for part in (a, b):
    shift = below(part.maximum, maximum)
    weight = jnp.exp(shift)
    total += weight * part.total
    weighted += weight * part.weighted + (shift * weight) * part.total
  return Moments(maximum, total, weighted, a.count + b.count)


def moment_entropy(moments: Moments) -> Array:
  """Computes H = log S - W / S in nats, 0 for a row without entries and never below 0."""
  total = jnp.where(moments.total == 0, 1, moments.total)
  # Rounding leaves about -1e-9 where one entry has all the mass.
  return jnp.maximum(jnp.log(total) - moments.weighted / total, 0)


def moment_inverse_temperature(
  moments: Moments,
  inverse_temperature: Callable[[Array, Array], Array],
  stop_gradient: bool = False,
) -> Array:
  """Returns inverse_temperature(H, n) of moments whose rows keep their axis with size 1.

  A row without entries has entropy 0 and count 1.
  """
  beta = inverse_temperature(moment_entropy(moments), jnp.maximum(moments.count, 1))
  return jax.lax.stop_gradient(beta) if stop_gradient else beta


def below(logits, maximum):
  """Computes z - m, the lowest finite number at least: -inf times a weight of 0 would be NaN."""
  return jnp.maximum(logits - maximum, jnp.finfo(logits.dtype).min)
