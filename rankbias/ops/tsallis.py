"""The Tsallis exponential and its normaliser: the core of sparsemax and entmax.

With a = alpha - 1 the weights of alpha-entmax are p_i = E(z_i - max z - s), where

    E(y) = [1 + a y]_+^(1/a)        E(y) = exp(y) for a = 0

and the shift s >= 0 solves S(s) = sum p = 1: it is log sum exp(z - max z) for a = 0 and its
relative otherwise. The unknown t is s itself for a < 1/4, where it keeps all digits as a -> 0, and
t = a s - 1 from there on, which is the usual threshold, (alpha - 1) (z - max z) = t at the border
of the support, and keeps the digits of small weights.

G = S^a - 1, over a for small a, is but for constants the norm || 1 + a y ||_(1/a): for a <= 1
convex in t and decreasing with a slope of at most -1, a straight line for a = 0. The secant method
on G needs one sum over the row a pass and hardly more passes than Newton's method, which needs two
sums. No sort, and no bisection, except where a chord leaves the bracket; for a > 1 G is not convex,
and every other step halves the bracket.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rankbias.ops.powers import power, root
from rankbias.ops.rows import axes_of, row_maximum
from rankbias.ops.softmax import normalize

SMALL = 0.25  # of a: below, the unknown is s
BLOCKS = 8
MAX_PASSES = 100  # about 6 are needed for a <= 1


def tsallis_normalize(logits, a, axis):
  """Returns the weights of (1 + a)-entmax of rows along `axis`; -inf has weight 0.

  Args:
    logits: float32 or wider.
    a: alpha - 1 >= 0; a Python float, compiled in, or an array that broadcasts against logits with
      size 1 along `axis`, in which the result is differentiable.
  """
  if isinstance(a, float):
    return normalize(logits, axis) if a == 0 else _normalize_fixed(logits, a, axis)
  return _normalize_array(logits, jnp.asarray(a, logits.dtype), axis)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _normalize_fixed(logits, a, axis):
  return _solve(logits, a, axis)


@_normalize_fixed.defjvp
def _normalize_fixed_jvp(a, axis, primals, tangents):
  weights = _normalize_fixed(*primals, a, axis)
  return weights, _along_simplex(tangents[0], 0, _slope(weights, a), axis)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _normalize_array(logits, a, axis):
  return _solve(logits, _nonzero(a), axis)


@_normalize_array.defjvp
def _normalize_array_jvp(axis, primals, tangents):
  weights = _normalize_array(*primals, axis)
  d_logits, d_a = tangents
  a = _nonzero(primals[1])
  return weights, _along_simplex(d_logits, _slope_in_a(weights, a) * d_a, _slope(weights, a), axis)


def _nonzero(a):
  """Returns a, or 1e-20 for 0, where log1p(a y) / a is y to the last digit."""
  return jnp.where(a == 0, 1e-20, a)


def _along_simplex(d_logits, direct, slope, axis):
  """Returns slope (d_logits - ds) + direct with the ds that keeps the sum of the row."""
  total = jnp.sum(slope, axis, keepdims=True)
  change = jnp.sum(slope * d_logits + direct, axis, keepdims=True)
  return slope * (d_logits - change / jnp.where(total == 0, 1, total)) + direct


def _solve(logits, a, axis):
  """Finds the unknown of every row and returns the weights."""
  maximum = row_maximum(logits, axis)
  axes = np.atleast_1d(axes_of(axis, logits.ndim))
  count = jnp.asarray(np.prod([logits.shape[i] for i in axes]), logits.dtype)
  zeros, small = jnp.zeros_like(maximum), a < SMALL
  low = zeros + jnp.where(small, 0, -1)
  high = zeros + jnp.where(small, -_power_minus_one(count, -a) / a, -(count**-a))
  # The steepest slope there is: the first step is short, and from then on chords are used.
  start = _State(0, zeros == 0, low, zeros - count**a, zeros / 0, zeros / 0, low, high)
  if isinstance(axis, int) and logits.shape[axis] >= 32 * BLOCKS:
    found = _search(_block_maxima(logits, axis), maximum, start, a, axis)
    start = start._replace(passes=1, unknown=found.unknown, slope=found.slope)
  unknown = _search(logits, maximum, start, a, axis).unknown
  if isinstance(a, float) and a == 1:
    return _sparsemax(logits - maximum, unknown, axis)
  weights = _exponential(logits - maximum, unknown, a)
  total = jnp.sum(weights, axis, keepdims=True)
  return weights / jnp.maximum(total, jnp.finfo(total.dtype).tiny)  # 0 only in an empty row


def _sparsemax(y, unknown, axis):
  """Ends in Newton's method, which rounds every weight once, where a quotient rounds it twice.

  From the right of the solution the first step can go too far, past entries that enter the support;
  from the left the second ends at it.
  """
  for _ in range(2):
    weights = _exponential(y, unknown, 1.0)
    support = jnp.sum(weights > 0, axis, keepdims=True, dtype=weights.dtype)
    excess = jnp.sum(weights, axis, keepdims=True) - 1
    unknown += excess / jnp.maximum(support, 1)  # no support: an empty row
  return _exponential(y, unknown, 1.0)


def _block_maxima(logits, axis):
  """Returns the maxima of BLOCKS interleaved parts of a row, a BLOCKS-th of its entries.

  Leaving entries out makes S smaller, so their solution lies below that of the row, and close to
  it: the large entries are what counts. It saves half of the passes over the whole row.
  """
  axis %= logits.ndim
  kept = logits.shape[axis] // BLOCKS
  logits = jax.lax.slice_in_dim(logits, 0, kept * BLOCKS, axis=axis)
  parts = (*logits.shape[:axis], BLOCKS, kept, *logits.shape[axis + 1 :])
  return jnp.max(logits.reshape(parts), axis)


class _State(NamedTuple):
  passes: Array  # of 0, `slope` is a bound and not a chord
  moves: Array  # whether this row's unknown is not yet final
  unknown: Array
  slope: Array  # of the chord through the last two points
  before: Array  # the unknown before, and G there; NaN for none
  value: Array
  low: Array  # bracket of the solution
  high: Array


def _search(logits, maximum, start, a, axis):
  """Solves G = 0 for every row."""

  def unfinished(state):
    return (state.passes < MAX_PASSES) & jnp.any(state.moves)

  def step(state):
    weights = _exponential(logits - maximum, state.unknown, a)
    return _advance(state, jnp.sum(weights, axis, keepdims=True), a)

  return jax.lax.while_loop(unfinished, step, start)


def _advance(state, total, a):
  """The next unknown, from S = total at this one."""
  passes, moves, unknown, slope, before, value, low, high = state
  small = a < SMALL
  new_value = _power_minus_one(jnp.maximum(total, jnp.finfo(total.dtype).tiny), a)
  new_value = jnp.where(small, new_value / a, new_value)
  chord = (new_value - value) / (unknown - before)
  chord = jnp.where(a > 1, chord, jnp.minimum(chord, -1))
  slope = jnp.where(jnp.isfinite(chord) & (chord < 0), chord, slope)
  low, high = jnp.where(total >= 1, unknown, low), jnp.where(total >= 1, high, unknown)
  new = unknown - new_value / slope
  rounding = jnp.finfo(unknown.dtype).eps * jnp.where(small, jnp.maximum(new, 1), jnp.abs(new))
  # Far enough that the first chord is not all rounding.
  new = jnp.where(passes > 0, new, jnp.maximum(new, unknown + 1e3 * rounding))
  # In the middle of the digits: t can be as small as -n^-a.
  middle = jnp.where(small, (low + high) / 2, -jnp.sqrt(jnp.abs(low * high)))
  new = jnp.where((new < low) | (new > high) | ((passes % 2 == 1) & (a > 1)), middle, new)
  # Where S is smooth the last step is the size of the error before it, far above the one after. A
  # long chord can be so much steeper than G that the step is short far from the solution.
  converged = jnp.abs(new - unknown) <= jnp.where(a < 0.9, 16, 8) * rounding
  converged &= jnp.abs(unknown - before) <= 1e4 * rounding
  moves &= jnp.where(a > 1, high - low > 2 * rounding, ~converged)
  moves &= total > 0  # an empty row is done
  new = jnp.where(state.moves, new, unknown)
  return _State(passes + 1, moves, new, slope, unknown, new_value, low, high)


def _power_minus_one(x, a):
  return jnp.expm1(a * jnp.log(x))


def _exponential(y, unknown, a):
  """Returns E(y - s) for y <= 0.

  Written without a select: XLA makes slow branches of those on CPU, and exp(log 0) is the exact 0.
  """
  if isinstance(a, float) and a >= SMALL:
    base = jnp.maximum(a * y - unknown, 0)
    return base ** round(1 / a) if (1 / a).is_integer() else jnp.exp(jnp.log(base) / a)
  y = jnp.maximum(y, jnp.finfo(y.dtype).min)  # 0 times -inf is no number
  log = jnp.log1p(jnp.maximum(a * (y - unknown), -1))
  if not isinstance(a, float):
    log = jnp.where(a < SMALL, log, jnp.log(jnp.maximum(a * y - unknown, 0)))
  return jnp.exp(log / a)


def _slope(weights, a):
  """Returns p^(1-a) on the support and 0 off it."""
  if not isinstance(a, float) or a > 1:
    return power(weights, jnp.asarray(1 - a, weights.dtype))
  return (weights > 0).astype(weights.dtype) if a == 1 else root(weights, 1 - a)


def _slope_in_a(weights, a):
  """Returns dE/da at fixed y, from p = E(y) alone; smooth through a = 0."""
  inside = weights > 0
  log = jnp.log(jnp.where(inside, weights, 1))
  x = jnp.expm1(a * log)  # a y
  return jnp.where(inside, weights * (x / a) ** 2 * _curve(x), 0)


def _curve(x):
  """Returns (x / (1 + x) - log(1 + x)) / x^2 for -1 < x <= 0."""
  near = jnp.abs(x) < 0.1
  # sum_k (-1)^(k+1) (k + 1) / (k + 2) x^k
  k = np.arange(16)
  series = jnp.polyval(jnp.asarray((-((-1.0) ** k) * (k + 1) / (k + 2))[::-1], x.dtype), x)
  far = jnp.where(near, -0.5, x)
  return jnp.where(near, series, (far / (1 + far) - jnp.log1p(far)) / far**2)


def tsallis_negentropy(weights, a, axis):
  """Returns (sum p^(1+a) - p) / (a (1 + a)), sum p log p for a = 0, without `axis`."""
  inside = weights > 0
  safe = jnp.where(inside, weights, 1)
  a = _nonzero(jnp.asarray(a, weights.dtype))
  parts = safe * jnp.expm1(a * jnp.log(safe)) / (a * (1 + a))
  return jnp.sum(jnp.where(inside, parts, 0), axis)
