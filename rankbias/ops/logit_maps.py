"""Increasing maps of single logits before a softmax: two slopes, a cap, piecewise linear."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.midx_index import Key
from rankbias.ops.rows import checked, float_dtype

UNIT_SLOPE = math.log(math.e - 1)  # softplus of it is 1


def sigsoftmax_logits(logits: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
  """Maps logits so that their softmax is `sigsoftmax` of the logits.

  f(z) = 2 z - softplus(z) = z + log sig(z),  slope 2 far below zero and 1 far above.

  As every map of this file it computes in float32 or wider and keeps -inf, which stands for a mask,
  without a gradient; NaN stays NaN.

  Example: softmax(sigsoftmax_logits(z)) is sigsoftmax(z).
  Source: Kanai et al. 2018, arXiv:1805.10829.
  """
  return generalized_sigsoftmax_logits(logits, knee=0.0, slope=2.0)


def generalized_sigsoftmax_logits(
  logits: Real[ArrayLike, "*shape"],
  *,
  knee: Real[ArrayLike, ""],
  slope: Real[ArrayLike, ""],
) -> Float[Array, "*shape"]:
  """Bends logits smoothly from one slope to another.

  f(z) = k (z - c) + c - (k - 1) softplus(z - c),  slope k far below the knee c and 1 far above.

  Computed as z - (k - 1) softplus(c - z), which is the same without a difference of large numbers.

  Args:
    knee: c. 0 with slope 2 is `sigsoftmax_logits`.
    slope: k > 0. 1 is the identity.

  Raises:
    ValueError: a slope known before tracing is not positive.

  Example: generalized_sigsoftmax_logits([-9., 9.], knee=0., slope=3.) is [-27., 9.] to 3e-4.
  Source: Parthiban, Mao & Inkpen 2021, "On the Softmax Bottleneck of Recurrent Language Models".
  """
  checked("slope", slope, lambda k: k > 0, "must be positive, or the map does not increase.")
  return _mapped(logits, lambda z: z - (slope - 1) * jax.nn.softplus(knee - z))


def tanh_cap(
  logits: Real[ArrayLike, "*shape"], *, cap: Real[ArrayLike, ""]
) -> Float[Array, "*shape"]:
  """Keeps logits between -c and c, almost unchanged where they are small.

  f(z) = c tanh(z / c)

  Args:
    cap: c > 0. A logit of -inf is a mask and stays -inf.

  Raises:
    ValueError: a cap known before tracing is not positive.

  Example: tanh_cap([1., 1000.], cap=30.) is [.9996, 30.].
  Source: Gemma Team 2024, arXiv:2408.00118, section 2 (logit soft-capping).
  """
  checked("cap", cap, lambda c: c > 0, "must be positive: logits lie between -cap and cap.")
  return _mapped(logits, lambda z: cap * jnp.tanh(z / cap))


def plif(
  logits: Real[ArrayLike, "*shape"], parameters: Float[ArrayLike, "K"], *, bound: float
) -> Float[Array, "*shape"]:
  """Maps logits by a learned increasing piecewise linear function.

  f(z) = f(t_j) + (z - t_j) s_j  in the bin j of z,  s = softplus(parameters),  f(0) = 0,

  with K bins of width 2 bound / K between the knots t_0 = -bound and t_K = bound. Beyond them the
  first and the last slope continue. At a knot the slope is that to its right.

  Two numbers are looked up, so that the derivative in the slopes is two histograms of K bins, of
  the cotangents and of these times z - t_j, and one reverse cumulative sum. `plif_map` makes the
  tables once for several calls.

  Args:
    logits: NaN stays NaN; -inf is a mask and stays it; +inf gives NaN.
    parameters: K numbers; `plif_init` makes them. A slope below 1e-7 is lost to rounding in
      float32: its bin is flat, and logits in it tie.
    bound: a Python number.

  Raises:
    ValueError: fewer than 2 parameters, not a vector of them, or bound is not positive.

  Example: plif([-9., 9.], plif_init(key, 100, scale=0.), bound=5.) is [-9., 9.].
  Source: Ganea et al. 2019, arXiv:1902.08077; derivative and anchor at 0 derived here.
  """
  return plif_map(parameters, bound=bound)(logits)


def plif_map(parameters: Float[ArrayLike, "..."], *, bound: float) -> Callable:
  """Returns `plif` of these parameters as a function of the logits, its tables made once.

  For a loss in blocks, linear_cross_entropy(..., logit_map=plif_map(parameters, bound=20.)): the
  blocks share the tables, and the cumulative sum and its derivative are computed once.

  Arguments and errors are those of `plif`.
  """
  parameters = jnp.asarray(parameters)
  if parameters.ndim != 1 or len(parameters) < 2:
    raise ValueError(
      f"parameters of shape {parameters.shape} must be a vector of K >= 2 numbers, one for the "
      "slope of every bin: see plif_init."
    )
  if not 0 < bound < math.inf:
    raise ValueError(f"bound = {bound} must be positive: the knots lie between -bound and bound.")
  knots, width = len(parameters), 2 * bound / len(parameters)
  wide = parameters.astype(jnp.promote_types(parameters.dtype, jnp.float32))
  # f(z) - z, whose slopes are small and whose sums therefore keep their digits.
  slopes = jax.nn.softplus(wide) - 1
  heights = _anchored(width * slopes)

  def apply(logits):
    return _mapped(logits, lambda z: _look_up(z, slopes, heights, knots / 2, width))

  return apply


def plif_init(key: Key, num_knots: int, *, scale: float = 0.0) -> Float[Array, "num_knots"]:
  """Draws the parameters of `plif` from N(log(e - 1), scale^2); slopes are 1 where scale is 0.

  With scale 0 the map is the identity. The published default of 1 draws slopes of mean 1.11 and
  standard deviation .63, so that with many knots the map is close to 1.11 z and its derivative to
  noise.

  Raises:
    ValueError: num_knots < 2 or scale < 0.

  Example: softplus(plif_init(key, 100)) is 1 everywhere.
  Source: Parthiban, Mao & Inkpen 2021, "On the Softmax Bottleneck of Recurrent Language Models".
  """
  if num_knots < 2:
    raise ValueError(f"num_knots = {num_knots} must be at least 2: one slope is a temperature.")
  if not scale >= 0:
    raise ValueError(f"scale = {scale} must not be negative: 0 starts at the identity.")
  return UNIT_SLOPE + scale * jax.random.normal(key, (num_knots,))


def _mapped(logits, function):
  """Applies function in float32 or wider where logits are not -inf."""
  logits = jnp.asarray(logits)
  wide = logits.astype(jnp.promote_types(float_dtype(logits), jnp.float32))
  masked = wide == -jnp.inf
  # The function sees 0 there: a derivative at -inf could be NaN, and NaN times 0 still is.
  mapped = jnp.where(masked, -jnp.inf, function(jnp.where(masked, 0, wide)))
  return mapped.astype(float_dtype(logits))


def _anchored(rises):
  """Returns the height of every bin's left knot, 0 at z = 0, from what f - z rises in each."""
  half = len(rises) // 2
  # Sums run outwards from the middle, in the form of a tree: rounding grows with log K only.
  left, right = -jax.lax.cumsum(rises[:half], reverse=True), jax.lax.cumsum(rises[half:])
  heights = jnp.concatenate([left, jnp.zeros(1, rises.dtype), right[:-1]])
  return heights - rises[half] / 2 if len(rises) % 2 else heights


def _look_up(z, slopes, heights, middle, width):
  """Evaluates z plus the piecewise linear function of these slopes and left heights."""
  position = jnp.floor(z / width + middle)
  bins = jnp.where(position > 0, jnp.minimum(position, len(slopes) - 1), 0).astype(jnp.int32)
  left = (bins - middle).astype(z.dtype) * width
  slope, height = (x.at[bins].get(mode="promise_in_bounds") for x in (slopes, heights))
  return z + (height.astype(z.dtype) + (z - left) * slope.astype(z.dtype))
