"""Softmax, its logarithm and its entropy, with a temperature and a mask."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import Axis, axes_of, checked, float_dtype, masked_logits, row_maximum


def softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Turns logits into weights that are non-negative and sum to one.

  p_i = exp(z_i / T) / sum_j exp(z_j / T), the sum over the entries where `where` holds.

  Args:
    temperature: T > 0; a number, a traced scalar or an array that broadcasts against logits.
    axis: one axis, several, or None for all of them.
    where: True where an entry may receive mass. Other entries, and logits of -inf, get exactly 0
      and no gradient; a row without any entry returns zeros.

  Raises:
    ValueError: a temperature known before tracing is not positive.

  Example: softmax([0., 0.], temperature=3.) is [.5, .5].
  Source: Masarczyk et al. 2025, arXiv:2506.01562, equation 1.
  """
  return _softmax(logits, checked_temperature(temperature), where, axis=axis)


def log_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Computes the logarithm of `softmax` without forming the weights.

  log p_i = z_i / T - log sum_j exp(z_j / T). Masked entries are -inf, constants without gradient,
  and so is a row without any entry. Arguments are those of `softmax`.

  Raises:
    ValueError: a temperature known before tracing is not positive.

  Example: log_softmax([0., 0.]) is [-.6931, -.6931].
  Source: Masarczyk et al. 2025, arXiv:2506.01562, equation 1.
  """
  return _log_softmax(logits, checked_temperature(temperature), where, axis=axis)


def entropy(
  logits: Real[ArrayLike, "*shape"],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "..."]:
  """Measures how spread out the weights of `softmax` are, in nats.

  H = -sum_i p_i log p_i, between 0 and log(number of unmasked entries). Computed from the logits,
  so that no epsilon is needed; 0 for a row without any entry. Arguments are those of `softmax`.

  Raises:
    ValueError: a temperature known before tracing is not positive.

  Example: entropy([0., 0.]) is log 2 = .6931.
  Source: Shannon 1948, "A mathematical theory of communication".
  """
  return _entropy(logits, checked_temperature(temperature), where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _softmax(logits, temperature, where, *, axis):
  rows, shifted = tempered_rows(logits, temperature, where, axis)
  return normalize(rows, axis, shifted).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _log_softmax(logits, temperature, where, *, axis):
  rows, shifted = tempered_rows(logits, temperature, where, axis)
  return log_normalize(rows, axis, shifted).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _entropy(logits, temperature, where, *, axis):
  rows, shifted = tempered_rows(logits, temperature, where, axis)
  values = row_entropy(rows, axis, shifted)
  return jnp.squeeze(values, axes_of(axis, values.ndim)).astype(float_dtype(logits))


def tempered_rows(logits, temperature, where, axis):
  """Returns logits / T, and whether every row's maximum was subtracted before the division.

  It is where T is one number a row: then large logits lose no digits to T. What is known to be
  shifted need not be shifted again.
  """
  masked = masked_logits(logits, None, where)
  if temperature is None:
    return masked, False
  shape = (1,) * (masked.ndim - jnp.ndim(temperature)) + jnp.shape(temperature)
  one_a_row = all(shape[a] == 1 for a in np.atleast_1d(axes_of(axis, masked.ndim)))
  if one_a_row:
    masked = masked - row_maximum(masked, axis)
  return masked_logits(masked, temperature, None), one_a_row


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def normalize(logits, axis, shifted=False):
  """Computes exp(z) / sum exp(z); -inf has weight 0, and a row of them stays 0.

  With `shifted` the largest z of every row is 0 already.
  """
  weights = jnp.exp(logits if shifted else logits - row_maximum(logits, axis))
  total = jnp.sum(weights, axis, keepdims=True)
  return weights / jnp.maximum(total, jnp.finfo(total.dtype).tiny)  # 0 only in an empty row


@normalize.defjvp
def _normalize_jvp(axis, shifted, primals, tangents):
  weights = normalize(*primals, axis, shifted)
  (tangent,) = tangents
  return weights, weights * (tangent - jnp.sum(weights * tangent, axis, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def log_normalize(logits, axis, shifted=False):
  """Computes z - log sum exp(z); -inf stays -inf."""
  rows = logits if shifted else logits - row_maximum(logits, axis)
  total = jnp.sum(jnp.exp(rows), axis, keepdims=True)
  # Never above zero: compiled into two loops, rows can differ by a rounding of the logits.
  return jnp.minimum(rows - jnp.log(jnp.where(total == 0, 1, total)), 0)


@log_normalize.defjvp
def _log_normalize_jvp(axis, shifted, primals, tangents):
  (logits,), (tangent,) = primals, tangents
  mean = jnp.sum(normalize(logits, axis, shifted) * tangent, axis, keepdims=True)
  return log_normalize(logits, axis, shifted), jnp.where(logits == -jnp.inf, 0, tangent - mean)


def row_entropy(logits, axis, shifted=False):
  """Computes -sum p log p of every row and keeps the axis; 0 for a row of -inf."""
  logs = log_normalize(logits, axis, shifted)
  logs = jnp.where(logits == -jnp.inf, 0, logs)
  # Never below zero: rounding leaves about -1e-9 where one entry has all the mass.
  return jnp.maximum(-jnp.sum(normalize(logits, axis, shifted) * logs, axis, keepdims=True), 0)


def checked_temperature(temperature):
  """Returns the temperature, None where it is exactly 1; raises where it is known and not > 0."""
  checked(
    "temperature",
    temperature,
    lambda t: t > 0,
    "must be positive: it divides the logits. "
    "Pass a number > 0; a small one (1e-3) comes close to the arg max.",
  )
  if isinstance(temperature, jax.core.Tracer):
    return temperature
  return None if np.ndim(temperature) == 0 and np.asarray(temperature) == 1 else temperature
