"""Soft-max functions with guarantees: piecewise linear, the exponential and the power mechanism."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.random_threshold import chosen_above
from rankbias.ops.rows import (
  Axis,
  checked,
  float_dtype,
  masked_logits,
  on_last_axis,
  per_row,
  row_maximum,
)
from rankbias.ops.softmax import normalize


def piecewise_linear_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  delta: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Spreads the mass over the logits within delta of the maximum, and never further.

  p_i = E_U [z_i >= m - U] / #{j : z_j >= m - U},  U uniform on [0, delta],  m = max_j z_j.

  PLSoftMax: sparse, continuous, piecewise linear, and Lipschitz from l1 to l1 with constant at most
  2 / delta; every logit with mass is within delta of the maximum. A large delta is uniform, a small
  one the arg max. The cost is one sort of what lies within delta, while no row has more than
  14 sqrt(n) such logits, and of all n otherwise. Where logits tie, the derivative is the mean over
  the orders they could be in.

  Args:
    delta: delta > 0, in the units of the logits, one number a row (size 1 along `axis`); may be
      traced, differentiable.
    axis, where: as in `softmax`.

  Raises:
    ValueError: a delta known before tracing is not positive, or delta varies along `axis`.

  Example: piecewise_linear_softmax([0., -.5, -1.]) is [.75, .25, 0.].
  Source: Epasto, Mahdian, Mirrokni & Zampetakis 2020, arXiv:2010.11450.
  """
  remedy = "must be positive: it is how far below the maximum mass may reach. Pass 1.0, say."
  checked("delta", delta, lambda d: d > 0, remedy)
  return _piecewise_linear(logits, per_row("delta", delta, logits, axis), where, axis=axis)


def exponential_mechanism(
  utilities: Real[ArrayLike, "*shape"],
  *,
  epsilon: Real[ArrayLike, "*#shape"],
  sensitivity: Real[ArrayLike, "*#shape"] = 1.0,
  monotonic: bool = False,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Gives the probabilities with which an epsilon-differentially private choice selects.

  p = softmax(epsilon u / (2 sensitivity)); without the 2 where utilities are monotonic.

  Args:
    epsilon: the privacy loss, >= 0 (0 selects uniformly); one number a row, may be traced.
    sensitivity: > 0, how far one person's data can move a utility; likewise.
    monotonic: True where adding a person's data moves all utilities in one direction.
    axis, where: as in `softmax`.

  Raises:
    ValueError: known before tracing, epsilon is negative or not finite, or sensitivity not
      positive; or one of them varies along `axis`.

  Example: exponential_mechanism([0., 2.], epsilon=1.) is [.2689, .7311].
  Source: McSherry & Talwar 2007, "Mechanism design via differential privacy".
  """
  remedy = "must be finite and >= 0: it is the privacy loss. Pass 1.0, say; 0 selects uniformly."
  checked("epsilon", epsilon, lambda e: (e >= 0) & np.isfinite(e), remedy)
  remedy = "must be positive and finite: it divides epsilon. Pass the largest change of a utility."
  checked("sensitivity", sensitivity, lambda s: (s > 0) & np.isfinite(s), remedy)
  epsilon = per_row("epsilon", epsilon, utilities, axis)
  sensitivity = per_row("sensitivity", sensitivity, utilities, axis)
  if not monotonic:
    sensitivity = 2 * sensitivity
  return _exponential(utilities, epsilon, sensitivity, where, axis=axis)


def power_mechanism(
  values: Real[ArrayLike, "*shape"],
  *,
  alpha: Real[ArrayLike, "*#shape"],
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Gives weights in proportion to a power of values that are not negative.

  p_i = x_i^alpha / sum_j x_j^alpha,  x >= 0.

  Invariant to the scale of the values where softmax is to their shift: softmax(alpha log x). A
  value of 0 gets 0, a row of zeros returns zeros. The derivative at a value of 0 is the one from
  above, except for alpha < 1, where that is infinite and 0 is returned.

  Args:
    alpha: alpha > 0, one number a row (size 1 along `axis`); may be traced, differentiable.
    axis, where: as in `softmax`; masked values may be anything.

  Raises:
    ValueError: an unmasked value known before tracing is negative (-inf included; a traced one
      makes its row NaN), an alpha known before tracing is not positive, or alpha varies along
      `axis`.

  Example: power_mechanism([1., 3., 0.], alpha=2.) is [.1, .9, 0.].
  Source: Epasto, Mahdian, Mirrokni & Zampetakis 2020, arXiv:2010.11450.
  """
  remedy = "must be positive: it is the power of the values. Pass 1.0 for plain proportions."
  checked("alpha", alpha, lambda a: a > 0, remedy)
  if not isinstance(where, jax.core.Tracer):
    remedy = "must not be negative: it is raised to a power. Mask it, or pass logits to softmax."
    mask = True if where is None else np.asarray(where)
    checked("values", values, lambda x: ~((x < 0) & mask), remedy)
  return _power(values, per_row("alpha", alpha, values, axis), where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _piecewise_linear(logits, delta, where, *, axis):
  masked = masked_logits(logits, None, where)
  delta = delta.astype(masked.dtype)
  delta = jnp.where(delta > 0, delta, jnp.nan)
  weights = on_last_axis(chosen_above, axis, masked, row_maximum(masked, axis), delta)
  return weights.astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _exponential(utilities, epsilon, sensitivity, where, *, axis):
  masked = masked_logits(utilities, None, where)
  mass = masked != -jnp.inf
  scale = epsilon.astype(masked.dtype) / sensitivity.astype(masked.dtype)
  shifted = jnp.where(mass, masked - row_maximum(masked, axis), 0)
  scaled = jnp.where(mass, scale * shifted, -jnp.inf)
  return normalize(scaled, axis).astype(float_dtype(utilities))


@partial(jax.jit, static_argnames="axis")
def _power(values, alpha, where, *, axis):
  values = jnp.asarray(values)
  wide = values.astype(jnp.promote_types(float_dtype(values), jnp.float32))
  mask = jnp.broadcast_to(True if where is None else where, wide.shape)
  wide = jnp.where(mask, wide, 0)
  top = jax.lax.stop_gradient(jnp.max(wide, axis, keepdims=True, initial=0))
  alpha = jnp.broadcast_to(alpha.astype(wide.dtype), wide.shape)
  weights = jnp.where(mask, _powered(wide / jnp.where(top == 0, 1, top), alpha), 0)
  total = jnp.sum(weights, axis, keepdims=True)
  return (weights / jnp.where(total == 0, 1, total)).astype(float_dtype(values))


@jax.custom_jvp
def _powered(base, exponent):
  """Computes base^exponent; at base 0 it is 1 for the exponent 0 and 0 for any other."""
  positive = jnp.exp(exponent * jnp.log(jnp.where(base == 0, 1, base)))
  return jnp.where(base == 0, (exponent == 0).astype(base.dtype), positive)


@_powered.defjvp
def _powered_jvp(primals, tangents):
  (base, exponent), (d_base, d_exponent) = primals, tangents
  power = _powered(base, exponent)
  log = jnp.log(jnp.where(base == 0, 1, base))
  return power, exponent * _powered(base, exponent - 1) * d_base + power * log * d_exponent
