"""How many dimensions a spectrum uses, by several definitions.

All are invariant to the scale of the spectrum, accept [..., k] singular values in any order, and
give 0 for a spectrum of zeros (a zero matrix uses no dimension) and NaN for one that is not finite,
counts included: a diverged network must not pass for a collapsed one. Counts are therefore floats.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Real


def numerical_rank(
  singular_values: Real[ArrayLike, "*batch k"], *, rtol: Real[ArrayLike, "*sweep"] = 1e-3
) -> Float[Array, "..."]:
  """Counts the singular values above a part of the largest: #{i : sigma_i > rtol sigma_1}.

  Args:
    rtol: a tolerance in [0, 1), or an array of them, whose axes follow those of the batch.

  Raises:
    ValueError: a tolerance known before tracing is outside [0, 1).

  Example: numerical_rank([1., .1, 1e-4], rtol=[1e-3, 1e-5]) is [2., 3.].
  Source: Golub & Van Loan 2013, "Matrix computations", section 5.4.
  """
  _check_rtol(rtol)
  return _count_above(singular_values, rtol)


def covariance_rank(
  singular_values: Real[ArrayLike, "*batch k"], *, rtol: Real[ArrayLike, "*sweep"] = 1e-3
) -> Float[Array, "..."]:
  """Counts the eigenvalues of X^T X above a part of the largest: #{i : sigma_i^2 > rtol sigma_1^2}.

  With the spectrum of a centred matrix these are the eigenvalues of the covariance. The same as
  numerical_rank at sqrt(rtol), so that 1e-3 here is .0316 there. Arguments as in `numerical_rank`.

  Example: covariance_rank([1., .1, .01]) is 2.
  Source: Masarczyk et al. 2023, arXiv:2305.19753 (the threshold of 1e-3 on the covariance).
  """
  _check_rtol(rtol)
  return _count_above(singular_values, jnp.sqrt(jnp.asarray(rtol, float)))


def press_rank(
  singular_values: Real[ArrayLike, "*batch k"],
  shape: Sequence[int],
  *,
  dtype: DTypeLike | None = None,
) -> Float[Array, "*batch"]:
  """Counts the singular values above the rounding of a matrix of this shape and dtype.

  #{i : sigma_i > eps sqrt(m + n + 1) sigma_1 / 2} of a matrix [m, n]. The usual count in the
  literature on the softmax bottleneck. Noise at the rounding of the data moves it from low to full.

  Args:
    shape: (m, n) of the matrix, as the spectrum may be padded.
    dtype: of the numbers in the matrix; None is that of the singular values. Where float32 data
      were decomposed in float64, say float32: the digits that they lack are noise.

  Raises:
    ValueError: the shape is not two sizes, or the dtype is not floating.

  Example: press_rank([1., 1e-5, 1e-7], (200, 200)) is 2.
  Source: Press et al. 2007, "Numerical Recipes", third edition, section 2.6.
  """
  values = _floats(singular_values)
  dtype = jnp.dtype(values.dtype if dtype is None else dtype)
  if len(shape) != 2 or min(shape) < 0 or not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(
      f"shape = {tuple(shape)}, dtype = {dtype}: give the two sizes of the matrix and the floating "
      "type of its numbers, such as (200, 10000) and 'float32'."
    )
  level = 0.5 * np.sqrt(sum(shape) + 1) * float(jnp.finfo(dtype).eps)
  return _count_above(values, level)


@jax.jit
def effective_rank(singular_values: Real[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
  """Computes the exponential of the entropy of the normalised singular values.

  exp(-sum_i p_i log p_i),  p_i = sigma_i / sum_j sigma_j. Between 1 and k.

  Example: effective_rank([1., 1., 0.]) is 2.
  Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
  """
  return _entropy_rank(singular_values, 0.0)


@jax.jit
def rankme(
  singular_values: Real[ArrayLike, "*batch k"], *, eps: Real[ArrayLike, ""] = 1e-7
) -> Float[Array, "*batch"]:
  """Computes the effective rank with a small constant added to every normalised singular value.

  exp(-sum_i p_i log p_i),  p_i = sigma_i / sum_j sigma_j + eps.

  Example: rankme([1., 1., 0.]) is 2.000003
  Source: Garrido et al. 2023, arXiv:2210.02885, equation 1.
  """
  return _entropy_rank(singular_values, eps)


@jax.jit
def stable_rank(singular_values: Real[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
  """Computes the squared Frobenius norm over the squared spectral norm.

  sum_i sigma_i^2 / sigma_1^2, between 1 and the rank.

  Example: stable_rank([2., 1.]) is 1.25.
  Source: Rudelson & Vershynin 2007, arXiv:math/0503442.
  """
  parts, top = _relative(singular_values)
  return _or_zero(jnp.sum(parts**2, -1), top)


@jax.jit
def participation_ratio(singular_values: Real[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
  """Computes (sum_i lambda_i)^2 / sum_i lambda_i^2 of the eigenvalues lambda_i = sigma_i^2.

  Example: participation_ratio([1., 1., 0.]) is 2.
  Source: Gao et al. 2017, doi:10.1101/214262.
  """
  parts, top = _relative(singular_values)
  squares = parts**2
  # The largest part is 1, and so is the smallest denominator of a spectrum that is not zero.
  return _or_zero(jnp.sum(squares, -1) ** 2 / jnp.maximum(jnp.sum(squares**2, -1), 1), top)


def energy_rank(
  singular_values: Real[ArrayLike, "*batch k"], *, fraction: Real[ArrayLike, "*sweep"]
) -> Float[Array, "..."]:
  """Counts the directions that hold a fraction of the energy.

  The smallest r with sum_{i<=r} sigma_i^2 >= fraction sum_i sigma_i^2. What the literature on the
  softmax bottleneck calls the effective rank at eps is this at fraction = 1 - eps.

  Args:
    fraction: in (0, 1], or an array of them, whose axes follow those of the batch.

  Raises:
    ValueError: a fraction known before tracing is outside (0, 1].

  Example: energy_rank([3., 1.], fraction=.9) is 1.
  Source: Jolliffe 2002, "Principal component analysis", section 6.1.1.
  """
  if not isinstance(fraction, jax.core.Tracer):
    known = np.asarray(fraction)
    if not ((known > 0) & (known <= 1)).all():
      raise ValueError(f"fraction = {fraction} must lie in (0, 1], such as 0.99.")
  # What may be left out is small, and 1 - fraction in float32 would be off by 1e-3 of 1e-5.
  traced = isinstance(fraction, jax.core.Tracer)
  return _energy_rank(singular_values, 1 - (fraction if traced else np.asarray(fraction, float)))


@jax.jit
def _energy_rank(singular_values, rest):
  """Counts all but the smallest ones that together hold at most this rest of the energy.

  Summed from the smallest on, since what a float32 sum from the largest on leaves has no digits.
  """
  parts, top = _relative(singular_values)
  tail = jnp.cumsum(jnp.sort(parts**2, axis=-1), axis=-1)
  total = tail[..., -1:] * (1 + 4 * jnp.finfo(tail.dtype).eps)  # an equal rest may be left out
  return _sweep(lambda level: jnp.sum(tail > level * total, -1), rest, top)


@jax.jit
def _count_above(singular_values, rtol):
  values = _floats(singular_values)
  top = jnp.max(values, -1, initial=0)
  return _sweep(lambda level: jnp.sum(values > level * top[..., None], -1), rtol, top)


@jax.jit
def _entropy_rank(singular_values, eps):
  parts, top = _relative(singular_values)
  weights = parts / jnp.maximum(jnp.sum(parts, -1, keepdims=True), 1) + eps
  used = weights > 0
  # An entry of exactly 0 adds nothing, and passes no gradient where that of p log p is infinite.
  terms = jnp.where(used, weights * jnp.log(jnp.where(used, weights, 1)), 0)
  return _or_zero(jnp.exp(-jnp.sum(terms, -1)), top)


def _sweep(count, levels, top):
  """Applies count (level -> [...]) to every level; its axes come after those of the batch."""
  levels = jnp.asarray(levels, top.dtype)
  counts = jax.vmap(count, out_axes=-1)(levels.reshape(-1)).astype(top.dtype)
  return _or_zero(counts, top[..., None]).reshape(*top.shape, *levels.shape)


def _relative(singular_values):
  """Returns the singular values over the largest, and the largest."""
  values = _floats(singular_values)
  top = jnp.max(values, -1, initial=0)
  return values / jnp.where(top == 0, 1, top)[..., None], top


def _or_zero(measure, top):
  """Returns the measure, 0 for a spectrum of zeros and NaN for one that is not finite."""
  return jnp.where(jnp.isfinite(top), jnp.where(top == 0, 0, measure), jnp.nan)


def _floats(singular_values):
  values = jnp.asarray(singular_values)
  wide = jnp.issubdtype(values.dtype, jnp.floating)
  return values.astype(jnp.promote_types(values.dtype, jnp.float32) if wide else float)


def _check_rtol(rtol):
  if isinstance(rtol, jax.core.Tracer):
    return
  known = np.asarray(rtol)
  if not ((known >= 0) & (known < 1)).all():
    raise ValueError(
      f"rtol = {rtol} must lie in [0, 1): it is a part of the largest singular value. "
      "For a covariance threshold of 1e-3 pass rtol=1e-3 to covariance_rank."
    )
