"""Softmaxes built on the sigmoid: logistic-softmax and sigsoftmax."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import Axis, float_dtype, masked_logits, row_maximum
from rankbias.ops.softmax import checked_temperature


def logistic_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Normalises the sigmoids of the logits, so that no entry outweighs another by more than theirs.

  p_i = sig(z_i / T) / sum_j sig(z_j / T),  shifted, so that it never is 0 / 0.

  Not invariant to a shift: far below zero it is softmax(z / T), far above zero it is uniform.

  Args:
    temperature: T > 0; a number, a traced scalar or an array that broadcasts against logits.
    axis, where: as in `softmax`.

  Raises:
    ValueError: a temperature known before tracing is not positive.

  Example: logistic_softmax([0., 100.]) is [.3333, .6667].
  Source: Ke et al. 2023, arXiv:2310.10379.
  """
  return _logistic_softmax(logits, checked_temperature(temperature), where, axis=axis)


def sigsoftmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Multiplies the exponential by the sigmoid, which lets log p leave the span of the logits.

  p_i = exp(z_i) sig(z_i) / sum_j exp(z_j) sig(z_j),  that is, softmax(z + log sig(z)).

  Not invariant to a shift: far below zero it is softmax(2 z), far above zero it is softmax(z).
  Arguments are those of `softmax`, without a temperature.

  Example: sigsoftmax([0., 1.]) is [.2010, .7990].
  Source: Kanai et al. 2018, arXiv:1805.10829.
  """
  return _sigsoftmax(logits, where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _logistic_softmax(logits, temperature, where, *, axis):
  masked = masked_logits(logits, temperature, where)
  return _sigmoid_shares(masked, 0, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _sigsoftmax(logits, where, *, axis):
  masked = masked_logits(logits, None, where)
  return _sigmoid_shares(masked, 1, axis).astype(float_dtype(logits))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _sigmoid_shares(logits, power, axis):
  """Computes w / sum w for w = sig(z) exp(power z), the largest of which is between 1/2 and 1.

  sig(z) = exp(min(z, 0)) / (1 + exp(-|z|)): its exponential part can be shifted like the other, so
  that nothing overflows, and not everything underflows.
  """
  top = row_maximum(logits, axis)
  exponent = jnp.minimum(logits, 0) - jnp.minimum(top, 0)
  if power:
    exponent += power * (logits - top)
  weights = jnp.exp(exponent) / (1 + jnp.exp(-jnp.abs(logits)))
  total = jnp.sum(weights, axis, keepdims=True)
  return weights / jnp.where(total == 0, 1, total)


@_sigmoid_shares.defjvp
def _sigmoid_shares_jvp(power, axis, primals, tangents):
  (logits,), (tangent,) = primals, tangents
  weights = _sigmoid_shares(logits, power, axis)
  change = (power + jax.nn.sigmoid(-logits)) * tangent  # of log w
  return weights, weights * (change - jnp.sum(weights * change, axis, keepdims=True))
