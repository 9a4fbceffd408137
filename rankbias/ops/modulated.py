"""MultiMax: softmax of logits that a learned piecewise function stretches and shrinks."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.rows import Axis, float_dtype, masked_logits, row_maximum
from rankbias.ops.softmax import normalize


def multimax(
  logits: Real[ArrayLike, "*shape"],
  *,
  ranges: Real[ArrayLike, "_ ..."] | Sequence[Real[ArrayLike, "..."]],
  slopes: Real[ArrayLike, "_ ..."] | Sequence[Real[ArrayLike, "..."]],
  axis: Axis = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
  """Normalises logits of which small and large ones have been given slopes of their own.

  p = softmax(s(z)),  with relu(u) = max(u, 0), ranges (b0, d1, b2, d3) and slopes (t0, t1, t2, t3),
  s(z) = z + t0 relu(b0 - z) + t1 relu(z - d1) + t2 relu(b2 - z)^2 + t3 relu(z - d3)^2.

  Pushing small logits down (t0 < 0) and holding large ones together (t1 < 0) makes weights nearly
  sparse and multi-modal at once. All slopes zero is softmax. Not invariant to shifts of the logits.

  The order of the logits is kept where s does not fall:
  1 - t0 [z < b0] + t1 [z > d1] - 2 t2 relu(b2 - z) + 2 t3 relu(z - d3) >= 0. For all z that means
  t0 <= 1, t1 >= -1, t2 <= 0 <= t3 if b0 <= d1; with b0 > d1 also t0 - t1 <= 1.

  Args:
    ranges, slopes: four entries each, or two (b0, d1), (t0, t1) for the first order alone; traced
      and differentiable, with relu'(0) = 0. An entry is a number or broadcasts against logits.
      Published initialisation: both from a normal of standard deviation 0.02, truncated, eight
      scalars a layer shared by all heads and kept out of weight decay.
    axis, where: as in `softmax`; the mask is applied after the modulation.

  Raises:
    ValueError: ranges and slopes do not both have two or four entries.

  Example: multimax([0., 1., 2.], ranges=(.5, 1.5), slopes=(-1., -.5)) is [.0668, .2994, .6338].
  Source: Zhou, Fritz & Keuper 2024, arXiv:2406.01189.
  """
  if len(ranges) not in (2, 4) or len(slopes) != len(ranges):
    raise ValueError(
      f"ranges has {len(ranges)} entries and slopes has {len(slopes)}: give both 2 (first order: "
      "b0, d1 and t0, t1) or both 4 (b0, d1, b2, d3 and t0, t1, t2, t3)."
    )
  return _multimax(logits, list(ranges), list(slopes), where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _multimax(logits, ranges, slopes, where, *, axis):
  masked = masked_logits(logits, None, where)
  mass = masked != -jnp.inf
  knots, slopes = (
    [jnp.broadcast_to(jnp.asarray(x, masked.dtype), masked.shape) for x in own]
    for own in (ranges, slopes)
  )
  origin = row_maximum(masked, axis)
  origin = jnp.where(origin == jnp.finfo(masked.dtype).min, 0, origin)  # an empty row
  # -inf must not meet a slope of zero, nor its derivative.
  modulated = _modulated(jnp.where(mass, masked, origin), origin, knots, slopes)
  return normalize(jnp.where(mass, modulated, -jnp.inf), axis).astype(float_dtype(logits))


def _modulated(logits, origin, knots, slopes):
  """Computes s(z) - s(origin) term by term: squares of large logits do not swamp their differences.

  With a = min(z, b) (below a knot) or max(z, d) (above it), relu is b - a or a - d, and its
  change from the origin is the change of a.
  """
  total = logits - origin
  for i, (knot, slope) in enumerate(zip(knots, slopes, strict=True)):
    sign = -1 if i % 2 == 0 else 1
    here, there = _beyond(logits, knot, sign), _beyond(origin, knot, sign)
    change = sign * (here - there)
    total += slope * (change if i < 2 else change * sign * ((here - knot) + (there - knot)))
  return total


def _beyond(logits, knot, sign):
  logits = jnp.broadcast_to(logits, knot.shape)
  return jnp.where(logits < knot if sign < 0 else logits > knot, logits, knot)
