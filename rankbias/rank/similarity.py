"""Centred kernel alignment: how similar two representations of the same inputs are."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.rank.spectrum import working_dtype


def linear_cka(
  x: Real[ArrayLike, "n d1"], y: Real[ArrayLike, "m d2"], *, debiased: bool = False
) -> Float[Array, ""]:
  """Compares two representations up to rotation and scale; 1 where they are the same.

  |X^T Y|^2 / (|X^T X| |Y^T Y|) of the centred matrices, Frobenius norms. Feature products of size
  d1 x d2 where both are narrower than n, else Gram matrices of size n x n: the same number.

  Args:
    debiased: replaces every norm by its unbiased estimate (a U-statistic, n >= 4). It is about 0
      for independent representations and can be negative; the biased one grows with d / n.

  A representation that is the same for all inputs gives NaN.

  Raises:
    ValueError: debiased with fewer than four rows, or the numbers of rows differ.

  Example: linear_cka(x, 2 * x @ rotation + 3) is 1.
  Source: Kornblith et al. 2019, arXiv:1905.00414; debiased: Song et al. 2012, JMLR 13.
  """
  x, y = _checked(x, y, debiased)
  return _linear_cka(x, y, debiased=debiased)


def rbf_cka(
  x: Real[ArrayLike, "n d1"],
  y: Real[ArrayLike, "m d2"],
  *,
  threshold: Real[ArrayLike, ""] = 1.0,
  debiased: bool = False,
) -> Float[Array, ""]:
  """Compares two representations through Gaussian kernels; memory n x n.

  HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),  K_ij = exp(-|x_i - x_j|^2 / (2 t^2 m)),  m the median
  of all n^2 squared distances, the zeros of the diagonal included as published.

  Args:
    threshold: t, the width of the kernel in units of the median distance.
    debiased: as in `linear_cka`; a narrow kernel needs it (the identity matrix is like itself).

  A representation in which more than half of the pairs coincide gives NaN.

  Raises:
    ValueError: as `linear_cka`.

  Example: rbf_cka(x, 2 * x + 3) is 1.
  Source: Kornblith et al. 2019, arXiv:1905.00414.
  """
  x, y = _checked(x, y, debiased)
  return _rbf_cka(x, y, threshold, debiased=debiased)


@partial(jax.jit, static_argnames="debiased")
def hsic(grams: Real[ArrayLike, "m n n"], *, debiased: bool = False) -> Float[Array, "m m"]:
  """Compares m representations of n inputs, of which their n x n Gram matrices are given.

  tr(K_a H K_b H) / (n - 1)^2 with H = I - 1 1^T / n, for all pairs; `debiased`, the U-statistic of
  the same (n >= 4). h_ab / sqrt(h_aa h_bb) is CKA. Of independent batches of inputs it may be
  averaged first: the mean of U-statistics has no bias, and memory is that of one batch.

  Raises:
    ValueError: debiased with fewer than four inputs.

  Example: hsic(x @ x.mT) of x [m, n, d], for the linear CKA of m networks.
  Source: Gretton et al. 2005, doi:10.1007/11564089_7; Song et al. 2012, JMLR 13; averaged over
  batches: Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327.
  """
  grams = jnp.asarray(grams)
  n = grams.shape[-1]
  if debiased and n < 4:
    raise ValueError(f"debiased = True needs 4 inputs or more, not {n}: add inputs.")
  grams = grams.astype(working_dtype(grams.dtype))
  centered = jax.vmap(_u_centered if debiased else _centered)(grams)
  flat = centered.reshape(len(grams), -1)
  return _matmul(flat, flat.T) / (n * (n - 3) if debiased else (n - 1) ** 2)


@partial(jax.jit, static_argnames="debiased")
def _linear_cka(x, y, *, debiased):
  x, y = _normalized(x), _normalized(y)
  n = x.shape[0]
  if max(x.shape[1], y.shape[1]) < n:
    product = partial(_feature_product, debiased=debiased)
    return product(x, y) / jnp.sqrt(product(x, x) * product(y, y))
  return _alignment(_matmul(x, x.T), _matmul(y, y.T), debiased)


@partial(jax.jit, static_argnames="debiased")
def _rbf_cka(x, y, threshold, *, debiased):
  return _alignment(_rbf(x, threshold), _rbf(y, threshold), debiased)


def _feature_product(x, y, debiased):
  """Returns the inner product of the centred Gram matrices of centred x and y."""
  biased = jnp.sum(_matmul(x.T, y) ** 2)
  if not debiased:
    return biased
  n = x.shape[0]
  rows_x, rows_y = jnp.sum(x**2, 1), jnp.sum(y**2, 1)
  cross = jnp.sum(rows_x * rows_y) * (n / (n - 2))
  return biased - cross + jnp.sum(rows_x) * jnp.sum(rows_y) / ((n - 1) * (n - 2))


def _alignment(k, l, debiased):
  center = _u_centered if debiased else _centered
  k, l = center(k), center(l)
  return jnp.sum(k * l) / jnp.sqrt(jnp.sum(k**2) * jnp.sum(l**2))


def _centered(k):
  means = jnp.mean(k, axis=0)
  return k - means[:, None] - means[None, :] + jnp.mean(means)


def _u_centered(k):
  """Centres a Gram matrix without its diagonal, so that products of two are unbiased."""
  n = k.shape[0]
  off_diagonal = ~jnp.eye(n, dtype=bool)
  k = jnp.where(off_diagonal, k, 0)
  means = jnp.sum(k, axis=0) / (n - 2)
  means = means - jnp.sum(means) / (2 * (n - 1))
  return jnp.where(off_diagonal, k - means[:, None] - means[None, :], 0)


def _rbf(x, threshold):
  x = _normalized(x)
  squares = jnp.sum(x**2, 1)
  distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * _matmul(x, x.T), 0)
  distances = jnp.where(jnp.eye(x.shape[0], dtype=bool), 0, distances)
  return jnp.exp(-distances / (2 * threshold**2 * jnp.median(distances)))


def _normalized(x):
  """Centres x and divides by its norm, which CKA does not see: no square overflows."""
  x = x - jnp.mean(x, axis=0, keepdims=True)
  x = x / jnp.max(jnp.abs(x))
  return x / jnp.linalg.norm(x)


def _checked(x, y, debiased):
  x, y = jnp.asarray(x), jnp.asarray(y)
  if x.shape[0] != y.shape[0]:
    raise ValueError(f"x has {x.shape[0]} rows and y {y.shape[0]}: give both the same inputs.")
  if debiased and x.shape[0] < 4:
    raise ValueError(f"debiased = True needs 4 rows or more, not {x.shape[0]}: add inputs.")
  dtype = working_dtype(jnp.promote_types(x.dtype, y.dtype))
  return x.astype(dtype), y.astype(dtype)


def _matmul(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
