"""Sparse relatives of softmax: sparsemax, 1.5-entmax and alpha-entmax, without sorting."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import Axis, checked, float_dtype, masked_logits, per_row
from rankbias.ops.tsallis import tsallis_normalize


def sparsemax(
  logits: Real[ArrayLike, "*shape"],
  *,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Projects logits onto the probability simplex; small ones become exactly zero.

  argmin_p ||p - z||^2  subject to  p >= 0, sum p = 1;  p_i = max(z_i - tau, 0).

  Its derivative jumps where an entry enters the support; there the entry counts as outside.

  Args:
    axis, where: as in `softmax`; an empty row returns zeros.

  Example: sparsemax([-2., 0., .5]) is [0., .25, .75].
  Source: Martins & Astudillo 2016, arXiv:1602.02068.
  """
  return _entmax_fixed(logits, where, alpha=2.0, axis=axis)


def entmax15(
  logits: Real[ArrayLike, "*shape"],
  *,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Turns logits into weights halfway between softmax and sparsemax: `entmax` at alpha = 1.5.

  p_i = max(z_i / 2 - tau, 0)^2,  tau such that sum p = 1.

  Args:
    axis, where: as in `softmax`; an empty row returns zeros.

  Example: entmax15([-2., 0., .5]) is [0., .3260, .6740].
  Source: Peters, Niculae & Martins 2019, arXiv:1905.05702.
  """
  return _entmax_fixed(logits, where, alpha=1.5, axis=axis)


def entmax(
  logits: Real[ArrayLike, "*shape"],
  *,
  alpha: Real[ArrayLike, "*#shape"] = 1.5,
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Turns logits into weights that are the sparser the larger alpha is.

  argmax_p <p, z> + (1 - sum p^alpha) / (alpha (alpha - 1))  over the probability simplex, or
  p_i = max((alpha - 1) z_i - tau, 0)^(1 / (alpha - 1)),  tau such that sum p = 1.

  alpha = 1 is softmax, 2 is sparsemax. Weights are exactly zero for any alpha > 1 if logits lie far
  enough below the maximum (1 / (alpha - 1) is always enough). The derivative is continuous for
  alpha < 2, jumps at the border of the support for alpha = 2, and is unbounded there beyond.

  Args:
    alpha: at least 1; a Python number, which is compiled into the program and fastest, or an array
      that broadcasts against logits with size 1 along `axis` (one alpha per row), traced or not,
      in which the result is differentiable.
    axis, where: as in `softmax`; an empty row returns zeros.

  Raises:
    ValueError: alpha is known to be below 1, or differs along `axis`. A traced one below 1 gives
      NaN.

  Example: entmax([-2., 0., .5], alpha=1.25) is [.0053, .3521, .6426].
  Source: Peters, Niculae & Martins 2019, arXiv:1905.05702; the derivative in alpha, Correia,
    Niculae & Martins 2019, arXiv:1909.00015.
  """
  checked("alpha", alpha, lambda a: a >= 1, "must be at least 1: 1 is softmax, 2 sparsemax.")
  if isinstance(alpha, int | float | np.floating | np.integer):
    return _entmax_fixed(logits, where, alpha=float(alpha), axis=axis)
  return _entmax_array(logits, per_row("alpha", alpha, logits, axis), where, axis=axis)


@partial(jax.jit, static_argnames=("alpha", "axis"))
def _entmax_fixed(logits, where, *, alpha, axis):
  weights = tsallis_normalize(masked_logits(logits, None, where), alpha - 1, axis)
  return weights.astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _entmax_array(logits, alpha, where, *, axis):
  masked = masked_logits(logits, None, where)
  power = jnp.where(alpha >= 1, alpha.astype(masked.dtype) - 1, jnp.nan)
  weights = tsallis_normalize(masked, power, axis)
  return weights.astype(float_dtype(logits))
