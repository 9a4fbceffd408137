"""Loss terms against a degenerate output matrix: narrow cones and fast-decaying spectra."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.affine import wide
from rankbias.ops.rows import float_dtype
from rankbias.ops.spectral import svd_one_at_a_time


def mean_cosine(vectors: Real[ArrayLike, "n d"]) -> Float[Array, ""]:
  """Computes the mean cosine between two different rows, the cosine regulariser.

  R = sum_(i != j) <u_i, u_j> / (n (n - 1)) = (|sum_i u_i|^2 - n) / (n (n - 1)),  u_i = x_i / |x_i|

  It is 1 when all word vectors share a direction and about 0 when they spread; -1 / (n - 1) is the
  least. Costs n d, not n^2 d. Rows of zeros have no direction and are not counted; with less than
  two others the answer is 0. To be added to the loss with a factor, on the transposed kernel.

  Example: mean_cosine([[1., 0.], [0., 2.]]) is 0, and of two equal rows 1.
  Source: Gao et al. 2019, arXiv:1907.12009.
  """
  return _mean_cosine(vectors)


@jax.jit
def _mean_cosine(vectors):
  (x,) = wide(vectors)
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True, initial=0))
  counted = largest > 0
  x = jnp.where(counted, x / jnp.where(counted, largest, 1), 1)  # no square under- or overflows
  units = jnp.where(counted, x / jnp.sqrt(jnp.sum(x * x, -1, keepdims=True)), 0)
  n = jnp.sum(counted, dtype=x.dtype)
  pairs = jnp.sum(jnp.square(jnp.sum(units, 0))) - n
  return (jnp.where(n > 1, pairs, 0) / jnp.maximum(n * (n - 1), 1)).astype(float_dtype(vectors))


def orthogonality(matrix: Real[ArrayLike, "n d"]) -> Float[Array, ""]:
  """Computes how far the columns, or the rows where these are fewer, are from orthonormal.

  R = |W^T W - I|_F^2 / d  for n >= d, and |W W^T - I|_F^2 / n else: the mean of (s_i^2 - 1)^2

  over the singular values s_i, so it is 0 where they all are 1: the term pulls at the scale of a
  matrix as well as at the angles. Published without the division, which makes one weight serve
  matrices of all sizes, and with W^T W alone, which cannot be I for n < d.

  Example: orthogonality(2 * eye(3)) is 9.
  Source: Bansal et al. 2018, arXiv:1810.09102, soft orthogonality.
  """
  (w,) = wide(matrix)
  w = w.T if w.shape[0] < w.shape[1] else w
  gram = jnp.matmul(w.T, w, precision=jax.lax.Precision.HIGHEST)
  excess = jnp.sum(jnp.square(gram - jnp.eye(len(gram), dtype=w.dtype)))
  return (excess / max(len(gram), 1)).astype(float_dtype(matrix))


def spectrum_spread(matrix: Real[ArrayLike, "n d"]) -> Float[Array, ""]:
  """Penalises a matrix for singular values that differ: `spectrum_control` with a flat target.

  R = sum_i (s_i - t)^2,  t = mean_i s_i

  It is 0 where all singular values are the same, whatever their size. For a plain matrix, without
  factors as parameters: the singular vectors come from a decomposition and are held, which leaves
  ds_i = u_i^T dW v_i, the exact derivative. The flat target is a choice made here.

  Example: spectrum_spread([[3., 0.], [0., 1.]]) is 2.
  Source: Wang et al. 2020, "Improving neural language generation with spectrum control", ICLR.
  """
  (w,) = wide(matrix)
  u, _, vt = jax.lax.stop_gradient(svd_one_at_a_time(jax.lax.stop_gradient(w)))
  values = jnp.sum(u * jnp.matmul(w, vt.T, precision=jax.lax.Precision.HIGHEST), 0)
  target = jnp.full_like(values, jnp.mean(values))
  spread = spectrum_control(u, values, vt.T, target, frobenius=0.0)
  return spread.astype(float_dtype(matrix))


def spectrum_control(
  left: Real[ArrayLike, "n r"],
  values: Real[ArrayLike, "r"],
  right: Real[ArrayLike, "m r"],
  target: Real[ArrayLike, "entries"],
  *,
  frobenius: Real[ArrayLike, ""] = 1.0,
  spectral: Real[ArrayLike, ""] = 0.0,
  distance: Real[ArrayLike, ""] = 1.0,
) -> Float[Array, ""]:
  """Penalises an output matrix W = U diag(s) V^T for leaving the spectrum wished for.

  R = frobenius (|U^T U - I|_F^2 + |V^T V - I|_F^2) + spectral (|U^T U - I|_2 + |V^T V - I|_2)
      + distance sum_i (s_i - t_i)^2

  The factors are the parameters, so no singular value decomposition is needed: as long as the
  first two terms are small, s is the spectrum of W. A slowly decaying target t keeps the word
  vectors from collapsing into a few directions. That the published terms are Frobenius and spectral
  norms and a distance to a stored spectrum is known; a third norm of theirs is left out, and the
  squares are a choice made here.

  Args:
    left, values, right: U, s and V.
    target: t, as long as s and in its order.

  Raises:
    ValueError: target and values differ in length.

  Example: 0 for orthonormal columns and values equal to the target.
  Source: Wang et al. 2020, "Improving neural language generation with spectrum control", ICLR.
  """
  if jnp.shape(target) != jnp.shape(values):
    raise ValueError(
      f"target of shape {jnp.shape(target)} does not fit values of shape {jnp.shape(values)}: pass "
      "one target for each singular value."
    )
  factors = frobenius, spectral, distance
  norms = isinstance(spectral, jax.Array) or bool(spectral)  # or no decomposition is made
  return _spectrum_control(left, values, right, target, factors, norms=norms)


@partial(jax.jit, static_argnames="norms")
def _spectrum_control(left, values, right, target, factors, *, norms):
  dtype, (frobenius, spectral, distance) = float_dtype(values), factors
  left, values, right, target = wide(left, values, right, target)
  total = distance * jnp.sum(jnp.square(values - target))
  for factor in (left, right):
    excess = jnp.matmul(factor.T, factor) - jnp.eye(factor.shape[1], dtype=factor.dtype)
    total += frobenius * jnp.sum(jnp.square(excess))
    if norms:
      total += spectral * _spectral_norm(excess)
  return total.astype(dtype)


def _spectral_norm(matrix):
  """Returns the largest singular value s = u^T M v, whose derivative is that of u and v held."""
  u, _, vt = svd_one_at_a_time(jax.lax.stop_gradient(matrix))
  return jnp.sum(u[:, 0] * jnp.matmul(matrix, vt[0]))
