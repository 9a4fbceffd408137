"""Softmax-free attention: a Gaussian kernel of low rank, with an inverse found by iteration."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.attention_mask import boolean

# The iteration squares its error, so products rounded to bfloat16 or TF32 would stop it early.
_matmul = partial(jnp.matmul, precision=Precision.HIGHEST)


def newton_inverse(
  matrix: Float[ArrayLike, "*batch n n"],
  *,
  num_iterations: int = 20,
  damping: Real[ArrayLike, ""] = 0.01,
  start: Real[ArrayLike, "*#batch"] | None = None,
) -> Float[Array, "*batch n n"]:
  """Approximates the inverse of A + damping I with products of matrices alone.

  V <- 2 V - V B V,  from V = start B^T,  B = A + damping I.

  The error of an eigenvalue squares at every step; after 20 steps those below about 1/500 of the
  largest are still on their way, and their inverses too small. The derivative is that of an
  inverse, dV = -V dB V, at whatever V was reached.

  Args:
    num_iterations: how many steps; each costs two products.
    start: one positive number per matrix, below 2 / |B|_2^2, or it does not converge. When None,
      1.8 / (|A|_1 |A|_inf), as published for A symmetric, but 1.9 of the same of B at most.

  Raises:
    ValueError: the matrix is not square, or num_iterations is negative.

  Example: newton_inverse([[1.]]) is [[.9901]].
  Source: Lu et al. 2021, arXiv:2110.11945; start and damping are those of its public code.
  """
  return _inverse(_newton, matrix, num_iterations, damping, start).astype(jnp.result_type(matrix))


def normalized_newton_inverse(
  matrix: Float[ArrayLike, "*batch n n"],
  *,
  num_iterations: int = 20,
  start: Real[ArrayLike, "*#batch"] | None = None,
) -> Float[Array, "*batch n n"]:
  """Approximates D^(-1/2) A^(-1) D^(-1/2), D the sums of the rows of A, without damping.

  What the normalised variant of softmax-free attention puts between its kernels; A >= 0. Nothing
  keeps the eigenvalues from zero here, so the derivative is that of the iteration itself.

  Args:
    num_iterations, start: as in `newton_inverse`. The public code seeks one start for the whole
      batch (2 / the largest row sum squared, halved until |I - A V| <= 1.01), which makes examples
      depend on each other; here every matrix has its own.

  Example: normalized_newton_inverse([[2.]]) is [[.25]].
  Source: Lu et al. 2022, arXiv:2207.03341, and its public code.
  """
  inverse = _inverse(_iterate, matrix, num_iterations, 0.0, start)
  total = jnp.sum(jnp.asarray(matrix, inverse.dtype), -1)
  root = jax.lax.rsqrt(jnp.where(total > 0, total, 1))
  return (root[..., :, None] * inverse * root[..., None, :]).astype(jnp.result_type(matrix))


def _inverse(iterate, matrix, num_iterations, damping, start):
  """Checks the arguments, finds the start and iterates in float32 or wider."""
  matrix = jnp.asarray(matrix)
  if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
    raise ValueError(f"matrix of shape {matrix.shape} must be square in its last two axes.")
  if num_iterations < 0:
    raise ValueError(f"num_iterations = {num_iterations} must not be negative; 20 is usual.")
  matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
  identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
  damped = matrix + jnp.asarray(damping, matrix.dtype) * identity
  if start is None:
    norm = jnp.maximum(_squared_norm(matrix), _squared_norm(damped) * (1.8 / 1.9))
    start = 1.8 / jnp.where(norm > 0, norm, 1)
  start = jnp.broadcast_to(jnp.asarray(start, matrix.dtype), matrix.shape[:-2])
  return iterate(damped, start[..., None, None], num_iterations)


def _squared_norm(x):
  """Bounds the square of the largest singular value from above."""
  x = jnp.abs(x)
  return x.sum(-1).max(-1) * x.sum(-2).max(-1)


@partial(jax.jit, static_argnums=2)
def _iterate(matrix, start, num_iterations):
  def step(_, v):
    return 2 * v - _matmul(v, _matmul(matrix, v))

  return jax.lax.fori_loop(0, num_iterations, step, start * matrix.mT)


_newton = jax.custom_jvp(_iterate, nondiff_argnums=(2,))


@_newton.defjvp
def _newton_jvp(num_iterations, primals, tangents):
  inverse = _newton(*primals, num_iterations)
  return inverse, -_matmul(inverse, _matmul(tangents[0], inverse))


def softmax_free_attention(
  query: Float[ArrayLike, "..."],
  landmarks: Float[ArrayLike, "..."],
  value: Float[ArrayLike, "..."],
  *,
  scale: Real[ArrayLike, ""] | None = None,
  where: Bool[ArrayLike, "..."] | None = None,
  inverse: Callable[[Array], Array] = newton_inverse,
) -> Float[Array, "..."]:
  """Mixes values by a Gaussian kernel between the queries, of the rank of a few landmarks.

  out = K1 inverse(K2) K1^T V,  K1_tm = exp(-scale |q_t - l_m|^2 / 2),  K2 the same of landmarks.

  Keys are the queries. Nothing of size T x T is formed: the cost is linear in T. Products are
  float32 or wider; the result has the dtype of `query`.

  Args:
    query: [..., T, N, H].
    landmarks: [..., M, N, H], such as means of neighbouring queries.
    value: [..., T, N, D].
    scale: 1 / sqrt(H) when None. In the published models the landmarks are a convolution, layer
      norm and GELU of queries already divided by H^(1/4): pass those and scale=1.
    where: [..., T], True for tokens that exist. Others give zeros, whatever they hold, and reach
      no other token through this function; keep them out of the landmarks too.
    inverse: [..., N, M, M] -> the same, such as normalized_newton_inverse or jnp.linalg.inv.

  Raises:
    ValueError: an argument has another shape.

  Example: softmax_free_attention(q, q.reshape(4, 16, n, h).mean(1), v) for 64 tokens.
  Source: Lu et al. 2021, arXiv:2110.11945, section 3.
  """
  query, landmarks, value = jnp.asarray(query), jnp.asarray(landmarks), jnp.asarray(value)
  _check_shapes(query, landmarks, value)
  dtype = jnp.promote_types(query.dtype, jnp.float32)
  q, l, v = (jnp.swapaxes(x, -3, -2).astype(dtype) for x in (query, landmarks, value))
  if where is not None:
    exists = boolean("where", where, query.shape[:-2])[..., None, :, None]
    q, v = jnp.where(exists, q, 0), jnp.where(exists, v, 0)
  scale = jnp.asarray(query.shape[-1] ** -0.5 if scale is None else scale, dtype)
  across = _gaussian(q, l, scale)
  if where is not None:
    across = jnp.where(exists, across, 0)
  mixed = _matmul(inverse(_gaussian(l, l, scale)), _matmul(across.mT, v))
  return jnp.swapaxes(_matmul(across, mixed), -3, -2).astype(query.dtype)


def _gaussian(x, y, scale):
  """Computes exp(-scale |x - y|^2 / 2) between the rows of x and y."""
  center = jax.lax.stop_gradient(y.mean(-2, keepdims=True))  # fewer digits cancel near the origin
  x, y = x - center, y - center
  lengths = jnp.sum(x * x, -1)[..., :, None] + jnp.sum(y * y, -1)[..., None, :]
  squares = lengths - 2 * _matmul(x, y.mT)
  squares -= jax.lax.stop_gradient(jnp.minimum(squares, 0))  # never below 0, at full slope
  return jnp.exp(-scale / 2 * squares)


def _check_shapes(query, landmarks, value):
  if query.ndim < 3:
    raise ValueError(f"query of shape {query.shape} needs the axes [..., length, heads, features].")
  fixed = (*query.shape[:-3], *query.shape[-2:])
  if landmarks.ndim != query.ndim or (*landmarks.shape[:-3], *landmarks.shape[-2:]) != fixed:
    raise ValueError(
      f"landmarks of shape {landmarks.shape} do not fit query of shape {query.shape}: all axes but "
      "the length must be equal."
    )
  if value.shape[:-1] != query.shape[:-1]:
    raise ValueError(
      f"value of shape {value.shape} does not fit query of shape {query.shape}: all axes but the "
      "last must be equal."
    )
