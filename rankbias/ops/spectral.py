"""Functions of the singular values of a matrix that keep its singular vectors."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.rows import checked, float_dtype

SERIES_TERMS = 16  # of log(1 + u) / u, enough for float64 where |u| < NEAR
NEAR = 0.09


def soft_decay(
  x: Real[ArrayLike, "*batch n d"],
  *,
  alpha: Real[ArrayLike, ""] = -0.2,
  eps: float = 0.0,
  zero_tolerance: float | None = None,
) -> Float[Array, "*batch n d"]:
  """Raises the small singular values of a matrix towards the largest, against token uniformity.

  y = U diag(g(sigma)) V^T,  g(s) = f(s) sigma_1 / f(sigma_1),
  f(s) = -log(1 - alpha (s + alpha) + eps) / alpha,  and f(s) = s at alpha = 0.

  The largest singular value stays. The derivative is written by divided differences, so that equal
  singular values do not divide by zero; at a tie of the largest it is the mean over the tie. There
  is no second derivative.

  f is not homogeneous: sigma_1 should be well above |alpha|, since f changes its sign near it (an
  input that small is turned around). For alpha > 0 the logarithm of a negative number, where
  s > 1 / alpha - alpha, makes the matrix NaN.

  Args:
    x: tokens by features, one matrix or a batch of them.
    alpha: may be learned; published -0.2 trained and -0.6 fixed. In (-1, 1).
    eps: the published code adds 1e-7; then there is no limit at alpha = 0.
    zero_tolerance: f(0) is not 0, hence what is zero would be raised along arbitrary vectors.
      Singular values up to this part of the largest stay as zero; None is max(n, d) times the
      rounding unit. 0.0 is as published.

  Raises:
    ValueError: alpha known before tracing is outside (-1, 1), or zero_tolerance outside [0, 1).

  Example: soft_decay([[4., 0.], [0., 1.]]) is [[4., 0.], [0., 1.05]].
  Source: Yan et al. 2022, arXiv:2208.11790.
  """
  checked("alpha", alpha, lambda a: abs(a) < 1, "must lie in (-1, 1), such as -0.2.")
  if zero_tolerance is not None and not 0 <= zero_tolerance < 1:
    raise ValueError(f"zero_tolerance = {zero_tolerance} must lie in [0, 1), or None to choose.")
  return _soft_decay(x, alpha, eps, zero_tolerance)


@jax.jit
def _soft_decay(x, alpha, eps, zero_tolerance):
  x = jnp.asarray(x)
  if x.size == 0:
    return x.astype(float_dtype(x))
  wide = x.astype(jnp.promote_types(float_dtype(x), jnp.float32))
  alpha = jnp.asarray(alpha, wide.dtype)
  eps = jax.lax.stop_gradient(jnp.asarray(eps, wide.dtype))
  if zero_tolerance is None:
    zero_tolerance = max(x.shape[-2:]) * jnp.finfo(wide.dtype).eps
  cut = jnp.asarray(zero_tolerance, wide.dtype)
  matrices = wide.reshape(-1, *x.shape[-2:])
  out = jax.vmap(lambda matrix: _decayed(matrix, alpha, eps, cut))(matrices)
  return out.reshape(x.shape).astype(float_dtype(x))


@jax.custom_jvp
def _decayed(x, alpha, eps, cut):
  u, s, vt = _svd(x)
  return _matmul(u * _raised(s, alpha, eps, cut)[None, :], vt)


@_decayed.defjvp
def _decayed_jvp(primals, tangents):
  x, alpha, eps, cut = primals
  dx, dalpha, deps, _ = tangents
  u, s, vt = _svd(x)
  v = vt.T
  kept = s > cut * s[0]
  s = jnp.where(kept, s, 0)
  f = jnp.where(kept, _f(s, alpha, eps), 0)
  scale = jnp.where(kept[0], s[0] / jnp.where(kept[0], f[0], 1), 0)
  right, left = _matmul(dx, v), _matmul(u.T, dx)
  inner = _matmul(u.T, right)
  # With the rank held, df is f[s_i, s_j] on the symmetric part of u^T dx v, (f_i + f_j) / (s_i +
  # s_j) on the antisymmetric part, and f_i / s_i where one vector lies outside the two bases.
  minus = jnp.where(kept[:, None] & kept[None, :], _divided_difference(s, alpha, eps), 0)
  plus = jnp.where(kept[:, None] | kept[None, :], _over(_outer_sum(f), _outer_sum(s)), 0)
  one_kept = kept[:, None] ^ kept[None, :]
  minus = jnp.where(one_kept, plus, minus)
  core = minus * (inner + inner.T) / 2 + plus * (inner - inner.T) / 2
  ratio = _over(f, s)
  outside = _matmul((right - _matmul(u, inner)) * ratio[None, :], vt)
  outside += _matmul(u * ratio[None, :], left - _matmul(inner, vt))
  # sigma_1 / f(sigma_1) moves with the mean of the singular values that are tied with it.
  ties = (s >= s[0] * (1 - len(s) * jnp.finfo(s.dtype).eps)) & kept
  rise = jnp.sum(jnp.where(ties, jnp.diagonal(inner), 0)) / jnp.maximum(jnp.sum(ties), 1)
  steep = jax.grad(_f)(s[0], alpha, eps)
  dscale = jnp.where(kept[0], (1 - scale * steep) * rise / jnp.where(kept[0], f[0], 1), 0)
  _, own = jax.jvp(lambda a, e: _raised(s, a, e, cut), (alpha, eps), (dalpha, deps))
  primal = _matmul(u * (scale * f)[None, :], vt)
  change = _matmul(_matmul(u, scale * core), vt) + scale * outside
  return primal, change + _matmul(u * (dscale * f + own)[None, :], vt)


def _raised(s, alpha, eps, cut):
  """Returns g(s) of descending singular values, zero where they count as zero."""
  kept = s > cut * s[0]
  f = jnp.where(kept, _f(jnp.where(kept, s, s[0]), alpha, eps), 0)
  return f * jnp.where(kept[0], s[0] / jnp.where(kept[0], f[0], 1), 0)


def _f(s, alpha, eps):
  """Returns -log(1 + u) / alpha with u = eps - alpha (s + alpha), without dividing by alpha."""
  step = s + alpha
  u = eps - alpha * step
  published = step - jnp.where(eps == 0, 0, eps / jnp.where(eps == 0, 1, alpha))
  return published * _log_ratio(u)


def _divided_difference(s, alpha, eps):
  """Returns (f(s_i) - f(s_j)) / (s_i - s_j), exact at and near ties; f' on the diagonal."""
  inside = 1 + eps - alpha * (s + alpha)
  u = -alpha * (s[:, None] - s[None, :]) / inside[None, :]
  return _log_ratio(u) / inside[None, :]


def _log_ratio(u):
  """Returns log(1 + u) / u, which is 1 at 0, with derivatives that do not cancel there."""
  near = jnp.abs(u) < NEAR
  small = jnp.where(near, u, 0)
  coefficients = jnp.asarray([(-1) ** i / (i + 1) for i in reversed(range(SERIES_TERMS))], u.dtype)
  big = jnp.where(near, 1, u)
  return jnp.where(near, jnp.polyval(coefficients, small), jnp.log1p(big) / big)


def _outer_sum(a):
  return a[:, None] + a[None, :]


def _over(a, b):
  """Returns a / b, and 0 where b is 0."""
  return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _matmul(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def _svd(x):
  return svd_one_at_a_time(x)


@_svd.defjvp
def _svd_jvp(primals, tangents):
  del primals, tangents
  raise NotImplementedError("the second derivative of soft_decay is not written.")


@jax.custom_batching.custom_vmap
def svd_one_at_a_time(x):
  """Computes the thin singular value decomposition, also under `vmap`; it has no derivative."""
  u, s, vt = jnp.linalg.svd(x, full_matrices=False)
  return u, s, vt


@svd_one_at_a_time.def_vmap
def _svd_batch(size, batched, x):
  """Loops on a CPU, where independent batched LAPACK calls can wait for each other for ever."""
  del size, batched
  if jax.default_backend() == "cpu":
    out = jax.lax.map(svd_one_at_a_time, x)
  else:
    out = jax.vmap(partial(jnp.linalg.svd, full_matrices=False))(x)
  return tuple(out), (True, True, True)
