"""Weights that need not sum to one: softmax with a constant, softpick and sigmoids."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import (
  Axis,
  checked,
  float_dtype,
  masked_logits,
  per_row,
  row_count,
  row_maximum,
)


def softmax_plus_n(
  logits: Real[ArrayLike, "*shape"],
  *,
  n: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Adds a constant to the denominator of softmax, so that a row may give its mass to nobody.

  p_i = exp(z_i) / (n + sum_j exp(z_j)),  softmax over one more logit, log n, which is then dropped.

  n = 0 is softmax. A row far below log n goes to zero.

  Args:
    n: at least 0; a number, a traced scalar or one number per row (size 1 along `axis`). It has a
      derivative, cut off at the largest float where the true one overflows (n = 0, logits < -88).
    axis, where: as in `softmax`.

  Raises:
    ValueError: n known before tracing is negative, or differs along `axis`.

  Example: softmax_plus_n([0., 0.]) is [.3333, .3333].
  Source: Miller 2023, "Attention is off by one" (n = 1).
  """
  checked("n", n, lambda n: n >= 0, "must not be negative: 0 is softmax, 1 adds a logit of 0.")
  return _softmax_plus_n(logits, n, where, axis=axis)


def softpick(
  logits: Real[ArrayLike, "*shape"],
  *,
  eps: Real[ArrayLike, ""] = 1e-8,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Rectifies softmax: logits below zero get no weight, but still take from the others.

  p_i = relu(e^z_i - 1) / (sum_j |e^z_j - 1| + eps e^m),  m = max(0, max_j z_j).

  Rows without a positive logit are zero, and so is their gradient. A logit of exactly 0 has weight
  0 and, by decision, derivative 0, as in the published code: the one from above, which alone is not
  zero for a row of zeros, would be 1 / eps.

  Args:
    eps: positive; relative to the largest exponential of the row.
    axis, where: as in `softmax`; masked entries are not in the sum.

  Raises:
    ValueError: eps known before tracing is not positive.

  Example: softpick([-1., 0., 1.]) is [0., 0., .7311].
  Source: Zuhri et al. 2025, arXiv:2504.20966.
  """
  checked("eps", eps, lambda e: e > 0, "must be positive: it divides rows of zeros. Pass 1e-8.")
  return _softpick(logits, eps, where, axis=axis)


def sigmoid_weights(
  logits: Real[ArrayLike, "*shape"],
  *,
  bias: Real[ArrayLike, "*#shape"] | None = None,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Gives every entry its own weight between 0 and 1, without any competition.

  p_i = sig(z_i + b).

  Args:
    bias: b; by default -log n with n the unmasked entries of the row, which gives logits around
      zero a mass around one whatever n is. A number, a traced scalar or an array that broadcasts
      against logits.
    axis: along which n is counted; nothing else depends on it.
    where: as in `softmax`.

  Example: sigmoid_weights([0., 0., 0.]) is [.25, .25, .25].
  Source: Ramapuram et al. 2024, arXiv:2409.04431.
  """
  return _sigmoid_weights(logits, bias, where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _softmax_plus_n(logits, n, where, *, axis):
  masked = masked_logits(logits, None, where)
  weights, _ = _shares(masked, per_row("n", n, masked, axis).astype(masked.dtype), axis)
  return weights.astype(float_dtype(logits))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _shares(logits, n, axis):
  """Computes e^z / (n + sum e^z) and 1 / (n + sum e^z), relative to the largest of the terms."""
  log_n = jnp.log(n)  # -inf for n = 0, where n e^-m would be 0 * inf
  top = jnp.maximum(row_maximum(logits, axis), log_n)
  weights = jnp.exp(logits - top)
  total = jnp.exp(log_n - top) + jnp.sum(weights, axis, keepdims=True)
  total = jnp.where(total == 0, 1, total)
  return weights / total, jnp.minimum(jnp.exp(-top) / total, jnp.finfo(logits.dtype).max)


@_shares.defjvp
def _shares_jvp(axis, primals, tangents):
  weights, share = _shares(*primals, axis)
  d_logits, d_n = tangents
  change = share * d_n + jnp.sum(weights * d_logits, axis, keepdims=True)
  return (weights, share), (weights * (d_logits - change), -share * change)


@partial(jax.jit, static_argnames="axis")
def _softpick(logits, eps, where, *, axis):
  masked = masked_logits(logits, None, where)
  return _rectified(masked, jnp.asarray(eps, masked.dtype), axis).astype(float_dtype(logits))


def _parts(logits, eps, axis):
  """Computes e^-m |e^z - 1| and its sum plus eps, m = max(0, max z), with no difference of exps."""
  top = jnp.max(logits, axis, keepdims=True, initial=0)
  sizes = -jnp.expm1(-jnp.abs(logits)) * jnp.exp(jnp.maximum(logits, 0) - top)
  sizes = jnp.where(logits == -jnp.inf, 0, sizes)
  return sizes, jnp.sum(sizes, axis, keepdims=True) + eps, top


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _rectified(logits, eps, axis):
  sizes, total, _ = _parts(logits, eps, axis)
  return jnp.where(logits > 0, sizes, 0) / total


@_rectified.defjvp
def _rectified_jvp(axis, primals, tangents):
  (logits, eps), (d_logits, d_eps) = primals, tangents
  weights = _rectified(logits, eps, axis)
  _, total, top = _parts(logits, eps, axis)
  d_sizes = jnp.sign(logits) * jnp.exp(logits - top) * d_logits  # sign(0) = 0
  highest = logits == top
  ties = jnp.maximum(jnp.sum(highest, axis, keepdims=True), 1)
  d_top = jnp.sum(jnp.where(highest, d_logits, 0), axis, keepdims=True) / ties
  d_total = jnp.sum(d_sizes, axis, keepdims=True) + eps * d_top + d_eps
  return weights, (jnp.where(logits > 0, d_sizes, 0) - weights * d_total) / total


@partial(jax.jit, static_argnames="axis")
def _sigmoid_weights(logits, bias, where, *, axis):
  masked = masked_logits(logits, None, where)
  if bias is None:
    bias = -jnp.log(row_count(masked != -jnp.inf, axis, masked.dtype))
  biased = masked + jnp.broadcast_to(jnp.asarray(bias, masked.dtype), masked.shape)
  return jax.nn.sigmoid(biased).astype(float_dtype(logits))
