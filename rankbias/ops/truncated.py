"""Softmax whose small weights are cut to zero: by count, by distance from the maximum, by rate."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from rankbias.ops.rows import Axis, axes_of, checked, float_dtype, masked_logits, per_row, row_count
from rankbias.ops.selection import kth_smallest
from rankbias.ops.softmax import normalize


def topk_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  k: Int[ArrayLike, "*#shape"],
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Normalises the k largest logits of a row; the others become exactly zero.

  p = softmax(z) restricted to {i : z_i >= k-th largest unmasked logit}.

  Logits tied at the k-th place are all kept, so more than k weights may be positive: choosing among
  equals would depend on their order. No gradient flows to what is cut; p jumps where the k-th place
  changes hands. The k-th logit is found in one pass per bit, without a sort.

  Args:
    k: at least 1, one number a row (size 1 along `axis`); may be traced. From the number of
      unmasked logits on, it is softmax.
    axis, where: as in `softmax`.

  Raises:
    ValueError: k is not an integer, or known before tracing and below 1.

  Example: topk_softmax([0., 0., -1., -2.], k=2) is [.5, .5, 0., 0.].
  Source: Shazeer et al. 2017, arXiv:1701.06538 (there before the softmax of a gate).
  """
  remedy = "must be an integer >= 1: it counts the logits that are kept. Pass k=1 for the arg max."
  whole = jnp.issubdtype(jnp.result_type(k), jnp.integer)
  checked("k", k, lambda k: whole and k >= 1, remedy)
  return _topk_softmax(logits, per_row("k", k, logits, axis), where, axis=axis)


def t_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  t: Real[ArrayLike, "*#shape"],
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Cuts what lies t or more below the maximum of the row, and lets weights reach zero steadily.

  p_i = w_i / sum_j w_j,  w_i = max(0, z_i - m + t) exp(z_i - m),  m = max_j z_j.

  Infinite t is softmax; t towards 0 is the arg max. Differentiable in t; where z_i - m = -t the
  derivative is that of the zero side, and tied maxima share the derivative of m evenly.

  Args:
    t: t > 0, one number a row (size 1 along `axis`); may be traced.
    axis, where: as in `softmax`.

  Raises:
    ValueError: a t known before tracing is not positive, or t varies along `axis`.

  Example: t_softmax([0., -1., -2.], t=2.) is [.8446, .1554, 0.].
  Source: Balazy et al. 2023, arXiv:2304.05243.
  """
  remedy = "must be positive: logits that far below the maximum are cut. Pass jnp.inf to cut none."
  checked("t", t, lambda t: t > 0, remedy)
  return _t_softmax(logits, per_row("t", t, logits, axis), where, axis=axis)


def r_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  rate: Real[ArrayLike, "*#shape"],
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Sets a requested share of every row to exactly zero.

  p = t_softmax(z, t),  t = m - quantile_rate(z),  m = max_j z_j.

  The quantile interpolates linearly between the n unmasked logits of the row, so that with distinct
  ones floor(rate (n - 1)) + 1 weights are zero. All logits tied with the quantile go together. At
  rate 0 that is the smallest logit, hence never softmax; at rate 1 only the maxima are left, and so
  they are where all logits are equal. As published, t is a constant of the derivative: none
  reaches the rate, nor the logits through t.

  Args:
    rate: from 0 to 1, one number a row (size 1 along `axis`); may be traced.
    axis, where: as in `softmax`.

  Raises:
    ValueError: a rate known before tracing is not in [0, 1], or rate varies along `axis`.

  Example: r_softmax([0., -1., -2., -3.], rate=1 / 3) is [.8446, .1554, 0., 0.].
  Source: Balazy et al. 2023, arXiv:2304.05243.
  """
  remedy = "must lie in [0, 1]: it is the share of weights that become zero, for example 0.5."
  checked("rate", rate, lambda r: (r >= 0) & (r <= 1), remedy)
  return _r_softmax(logits, per_row("rate", rate, logits, axis), where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _topk_softmax(logits, k, where, *, axis):
  masked = masked_logits(logits, None, where)
  count = math.prod(masked.shape[a] for a in np.atleast_1d(axes_of(axis, masked.ndim)))
  threshold = kth_smallest(masked, count - jnp.clip(k, 1, count), axis)
  kept = jnp.where(masked < threshold, -jnp.inf, masked)  # a NaN is kept
  return normalize(kept, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _t_softmax(logits, t, where, *, axis):
  masked = masked_logits(logits, None, where)
  t = t.astype(masked.dtype)
  t = jnp.where(t > 0, t, jnp.nan)
  return _cut(masked, t, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _r_softmax(logits, rate, where, *, axis):
  masked = masked_logits(logits, None, where)
  t = _quantile_depth(jax.lax.stop_gradient(masked), rate.astype(masked.dtype), axis)
  return _cut(masked, jax.lax.stop_gradient(t), axis).astype(float_dtype(logits))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _cut(masked, t, axis):
  """Computes t-softmax for t >= 0, at 0 as the limit; NaN for a row whose t is NaN."""
  weights, *_, total = _cut_weights(masked, t, axis)
  return weights / total


@_cut.defjvp
def _cut_jvp(axis, primals, tangents):
  (masked, t), (d_masked, d_t) = primals, tangents
  weights, exponential, depth, width, total = _cut_weights(masked, t, axis)
  top = (depth == 0) & (exponential > 0)
  d_top = jnp.sum(jnp.where(top, d_masked, 0), axis, keepdims=True)
  d_top /= row_count(top, axis, masked.dtype)  # tied maxima share the derivative
  d_weights = (weights + exponential / width) * jnp.where(exponential > 0, d_masked - d_top, 0)
  d_weights -= exponential * (depth / width) / width * d_t
  p = _cut(masked, t, axis)
  return p, (d_weights - p * jnp.sum(d_weights, axis, keepdims=True)) / total


def _cut_weights(masked, t, axis):
  lowest = jnp.finfo(masked.dtype).min
  mass, top = masked != -jnp.inf, jnp.max(masked, axis, keepdims=True, initial=lowest)
  shifted = jnp.where(mass, masked - top, 0)
  kept = mass & (~(shifted <= -t) | (shifted == 0))  # not (shifted > -t): a NaN is kept
  depth = jnp.where(kept, shifted, 0)
  exponential = jnp.where(kept, jnp.exp(depth), 0)
  # Divided by t, which cancels: the factor is 1 at the maximum for any t, infinity included.
  width = jnp.where(t == 0, 1, t)
  weights = (1 + depth / width) * exponential
  total = jnp.sum(weights, axis, keepdims=True)
  return weights, exponential, depth, width, jnp.where(total == 0, 1, total)


def _quantile_depth(masked, rate, axis):
  """Returns how far below its maximum the `rate` quantile of a row lies, 0 for an empty row."""
  mass = masked != -jnp.inf
  size = jnp.sum(jnp.ones_like(mass), axis, keepdims=True, dtype=jnp.int32)
  count = jnp.sum(mass, axis, keepdims=True, dtype=jnp.int32)
  position = jnp.where((rate >= 0) & (rate <= 1), rate, jnp.nan) * (count - 1)
  # A rate such as 0.7 is rounded; 0.7 times 10 must still be the 7th entry, not just below it.
  nearest = jnp.round(position)
  close = jnp.abs(position - nearest) <= 4 * jnp.finfo(masked.dtype).eps * nearest
  position = jnp.where(close, nearest, position)
  floor = jnp.floor(position)
  index = size - count + floor.astype(jnp.int32)  # masked entries come first
  low = kth_smallest(masked, index, axis)
  larger = jnp.min(masked, axis, keepdims=True, where=masked > low, initial=jnp.inf)
  tied = jnp.sum(masked <= low, axis, keepdims=True, dtype=jnp.int32) > index + 1
  high = jnp.where(tied | (larger == jnp.inf), low, larger)
  top = jnp.max(masked, axis, keepdims=True, initial=jnp.finfo(masked.dtype).min)
  low, high = top - low, top - high
  return jnp.where(count == 0, 0, low - (position - floor) * (low - high))
