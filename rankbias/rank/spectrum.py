"""Singular values of a matrix, accurate enough to count them."""

import math
from contextlib import nullcontext
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.rank import lapack
from rankbias.rank.float64 import delivers_float64, double_precision
from rankbias.rank.gram import eigenvalues, gram, product

Method = Literal["gram", "qr", "svd"]
METHODS = ("gram", "qr", "svd")
# A singular value below this part of the largest is noise of a float64 Gram matrix.
GRAM_NOISE = 1e-7


def singular_values(
  matrix: Real[ArrayLike, "*batch n d"],
  *,
  method: Method | None = None,
  center: bool = False,
  dtype: DTypeLike | None = None,
) -> Float[Array, "*batch k"]:
  """Computes the singular values of a matrix, largest first; k = min(n, d).

  sigma_i = sqrt(lambda_i(X^T X)). The derivative is d sigma_i = u_i^T dX v_i, and zero where
  sigma_i is zero up to rounding. At ties it is that of one choice of singular vectors, on which the
  derivative of a symmetric function of the spectrum does not depend.

  Args:
    matrix: one matrix or a batch of them. Half precision is converted exactly and returns float32.
    method: None takes what `default_method` says of the dtype.
      "gram" sums X^T X of the smaller side in float64: error about 1e-16 sigma_1^2 / sigma_i, at
      most about 2e-8 sigma_1, whatever the dtype of the matrix.
      "qr" takes the SVD of the R factor, "svd" of the matrix, both in the wider of the dtypes of
      matrix and result: error about its rounding unit times sigma_1.
    center: subtracts the mean of every column (of a row of observations) first.
    dtype: of the result; None is that of the matrix, float32 or wider. float64 keeps the digits
      that float32 rounds away (6e-8 of each value) even in a 32-bit program, where such an array is
      for NumPy and not for more jax.

  Raises:
    ValueError: the method is unknown, or is "gram" where float64 is not delivered.

  Example: singular_values([[3., 0.], [0., 4.]]) is [4., 3.].
  Source: Golub & Van Loan 2013, "Matrix computations", sections 5.4 and 8.6.
  """
  matrix = jnp.asarray(matrix)
  matrix = matrix.astype(working_dtype(matrix.dtype))
  method = checked_method(method, matrix.dtype)
  dtype = matrix.dtype if dtype is None else jnp.dtype(dtype)
  return _batched(matrix, method=method, center=center, dtype=dtype)


def default_method(dtype=jnp.float32) -> Method:
  """Returns the method that `method=None` stands for: worth recording beside a rank.

  "gram" for float32 and narrower where float64 works: the most accurate for such data, and a sum.
  "qr" for float64 data, because a Gram matrix squares the condition number and loses everything
  below 1e-8 sigma_1, which float64 data can hold; and "qr" where there is no float64.
  """
  wide = jnp.dtype(dtype) == jnp.float64
  return "gram" if delivers_float64() and not wide else "qr"


def working_dtype(dtype):
  """Returns float32 or wider: half precision could not tell a tolerance of 1e-3 from rounding."""
  if not jnp.issubdtype(dtype, jnp.floating):
    return jnp.result_type(float)
  return jnp.promote_types(dtype, jnp.float32)


def checked_method(method, dtype):
  """Returns the method, the default one for None; raises where it is unknown or cannot run."""
  if method is None:
    return default_method(dtype)
  if method not in METHODS:
    raise ValueError(f"method = {method!r} is unknown: use None or one of {', '.join(METHODS)}.")
  if method == "gram" and not delivers_float64():
    raise ValueError(
      f"method = 'gram' needs float64, which {jax.default_backend()} does not deliver: "
      "use method='qr', or None to choose."
    )
  return method


@partial(jax.jit, static_argnames=("method", "center", "dtype"))
def _batched(matrix, *, method, center, dtype):
  *batch, n, d = matrix.shape
  if not batch:
    return _spectrum(matrix, method, center, dtype)
  flat = matrix.reshape(math.prod(batch), n, d)
  values = jax.vmap(lambda x: _spectrum(x, method, center, dtype))(flat)
  return values.reshape(*batch, min(n, d))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _spectrum(x, method, center, dtype):
  with _precision(dtype):
    if 0 in x.shape:
      return jnp.zeros(min(x.shape), dtype)
    if method == "gram":
      return gram_to_values(eigenvalues(_small_gram(x, center)), dtype)
    x = _centered(x.astype(jnp.promote_types(x.dtype, dtype)), center)
    if method == "qr":
      x = lapack.triangle(x if x.shape[0] >= x.shape[1] else x.T)
    return lapack.svdvals(x).astype(dtype)


@_spectrum.defjvp
def _spectrum_jvp(method, center, dtype, primals, tangents):
  (x,), (tangent,) = primals, tangents
  left, values, right = triplets(x, method, center)
  rates = jnp.sum(left * product(tangent, right), axis=0)
  with _precision(dtype):
    return values.astype(dtype), rates.astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def triplets(x, method, center):
  """Returns u [n, k], sigma [k], v [d, k]; u or v is 0 where sigma is zero up to rounding."""
  if 0 in x.shape:
    n, d = x.shape
    return jnp.zeros((n, 0), x.dtype), jnp.zeros(0, x.dtype), jnp.zeros((d, 0), x.dtype)
  if method == "gram":
    return _gram_triplets(x, center)
  left, values, right = lapack.svd(_centered(x, center))
  noise = max(x.shape) * jnp.finfo(x.dtype).eps
  return left * (values > noise * values[0])[None, :], values, right.T


@triplets.defjvp
def _triplets_jvp(method, center, primals, tangents):
  del method, center, primals, tangents
  raise NotImplementedError(
    "the derivative of singular vectors, and with it the second derivative of singular values, is "
    "not written: differentiate a smooth function of the matrix, such as its Gram matrix, instead."
  )


def _gram_triplets(x, center):
  wide = x.shape[0] < x.shape[1]
  with double_precision():
    vectors, squares = lapack.eigh(_small_gram(x, center))
    vectors, squares = vectors[:, ::-1], jnp.maximum(squares[::-1], 0)
    values = jnp.sqrt(squares)
    good = values > GRAM_NOISE * values[0]
    scale = good / jnp.where(good, values, jnp.ones_like(values))
    wider = _centered(x.astype(jnp.float64), center)
    other = product(wider.T if wide else wider, vectors * scale[None, :])
    left, right = (vectors * good[None, :], other) if wide else (other, vectors)
    return left.astype(x.dtype), values.astype(x.dtype), right.astype(x.dtype)


def _small_gram(x, center):
  """Returns the Gram matrix of the smaller side, in float64, of the centred matrix if asked."""
  if x.shape[0] < x.shape[1]:  # a block of x.T holds whole columns of x, and knows their means
    return gram(x.T, (lambda b, _: b - jnp.mean(b, axis=1, keepdims=True)) if center else None)
  if not center:
    return gram(x)
  with double_precision():
    mean = jnp.mean(x, axis=0, keepdims=True, dtype=jnp.float64)
  return gram(x, lambda block, _: block - mean)


def gram_to_values(squares, dtype):
  """Turns ascending eigenvalues of a Gram matrix into descending singular values."""
  with double_precision():
    # A NaN stays a NaN; a negative eigenvalue is rounding.
    return jnp.sqrt(jnp.maximum(squares[::-1], 0)).astype(dtype)


def _centered(x, center):
  return x - jnp.mean(x, axis=0, keepdims=True) if center else x


def _precision(dtype):
  return double_precision() if dtype == jnp.float64 else nullcontext()
