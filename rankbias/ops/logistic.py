"""Softmaxes built on the sigmoid: logistic-softmax and sigsoftmax."""

from functools import partial

import jax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import Axis, float_dtype, masked_logits, row_maximum
from rankbias.ops.softmax import checked_temperature, normalize


def logistic_softmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Normalises the sigmoids of the logits, so that no entry outweighs another by more than theirs.

  p_i = sig(z_i / T) / sum_j sig(z_j / T),  computed as softmax(log sig(z / T)): never 0 / 0.

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

  p_i = exp(z_i) sig(z_i) / sum_j exp(z_j) sig(z_j),  computed as softmax(z + log sig(z)).

  Not invariant to a shift: far below zero it is softmax(2 z), far above zero it is softmax(z).
  Arguments are those of `softmax`, without a temperature.

  Example: sigsoftmax([0., 1.]) is [.2010, .7990].
  Source: Kanai et al. 2018, arXiv:1805.10829.
  """
  return _sigsoftmax(logits, where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _logistic_softmax(logits, temperature, where, *, axis):
  sigmoids = jax.nn.log_sigmoid(masked_logits(logits, temperature, where))
  return normalize(sigmoids, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _sigsoftmax(logits, where, *, axis):
  masked = masked_logits(logits, None, where)
  top = row_maximum(masked, axis)
  # Both terms shifted on their own: the sum of two large logits would round, or overflow to -inf.
  scores = (masked - top) + (jax.nn.log_sigmoid(masked) - jax.nn.log_sigmoid(top))
  return normalize(scores, axis).astype(float_dtype(logits))
