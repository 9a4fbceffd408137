"""The chance of being chosen among all that lie above a random threshold; core of PLSoftMax."""

import math

import jax
import jax.numpy as jnp
import numpy as np

SLOTS = 14  # times sqrt(n): about three times what is within 2 of the largest of n normal numbers
BITS = 32  # of a word, and terms of a sum


def chosen_above(logits, top, delta):
  """Computes p_i = integral from gap_i to 1 of dv / #{j : gap_j <= v}, gap = (top - z) / delta.

  Logits [..., n], top and delta [..., 1]; top is the largest logit as a constant, for that it moves
  with the logits is in the derivative. Only what is near it, at a gap below 1, has mass and is
  sorted: in 14 sqrt(n) slots where these hold the near logits of every row, otherwise in n. At ties
  the derivative is the mean over the orders that they could be in.
  """
  n = logits.shape[-1]
  inputs = logits.reshape(-1, n), top.reshape(-1, 1), delta.reshape(-1, 1)
  width = SLOTS * math.isqrt(n)
  if 2 * width > n:
    return _all(*inputs).reshape(logits.shape)
  words = _words(_near(*inputs))
  most = jnp.max(jnp.sum(jax.lax.population_count(words), 1))

  def few():
    return _weights(*inputs, _places(words, width, n))

  return jax.lax.cond(most <= width, few, lambda: _all(*inputs)).reshape(logits.shape)


def _near(rows, top, delta):
  return ~(top - rows >= delta) & (rows != -jnp.inf)  # a NaN is near


def _all(rows, top, delta):
  own = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 1)
  return _weights(rows, top, delta, jnp.where(_near(rows, top, delta), own, rows.shape[1]))


def _words(near):
  """Packs n bits into m words, m = n / 32 rounded up: word j has those at j, j + m, j + 2 m..."""
  bits = jnp.pad(near, ((0, 0), (0, -near.shape[1] % BITS))).reshape(len(near), BITS, -1)
  shift = jnp.arange(BITS, dtype=jnp.uint32)[None, :, None]
  return jnp.sum(bits.astype(jnp.uint32) << shift, 1, dtype=jnp.uint32)


def _places(words, width, n):
  """Returns where the bits of every row lie, in `width` slots, and n in those that remain."""
  count = jax.lax.population_count(words).astype(jnp.int32)
  end = _counted(count)
  start = end - count
  starts = _add(jnp.zeros((len(words), width), jnp.int32), start, 1)
  word = _counted(starts) - 1  # of every slot
  slot = jax.lax.broadcasted_iota(jnp.int32, word.shape, 1)
  bits, nth = _get(words, word), slot - _get(start, word)
  bit = jnp.zeros_like(bits)
  for half in (16, 8, 4, 2, 1):  # of the bits from `bit` on
    lower = jax.lax.population_count(bits >> bit & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
    above = nth >= lower
    nth, bit = jnp.where(above, nth - lower, nth), jnp.where(above, bit + half, bit)
  return jnp.where(slot < end[:, -1:], bit.astype(jnp.int32) * words.shape[1] + word, n)


def _weights(rows, top, delta, places):
  gaps = top - _at(jax.lax.stop_gradient(rows), places).get(mode="clip")
  gaps = jnp.where(places < rows.shape[1], gaps, jnp.inf)
  return _spread(rows, delta, *_ascending(gaps, places))


def _ascending(gaps, places):
  """Sorts gaps, NaN last, and their places with them.

  On a CPU XLA sorts integers alone about five times as fast as anything else, so a gap of 32 bits
  and its place share an integer of 64. (All that is done to those needs no constant, which outside
  of the context, under vmap, would be cut to 32 bits.)
  """
  gaps = jnp.where(jnp.isnan(gaps), jnp.nan, gaps)  # without a sign
  if gaps.dtype != jnp.float32:
    return jax.lax.sort((gaps, places), dimension=1, num_keys=1)
  keys = jax.lax.bitcast_convert_type(gaps, jnp.int32)  # same order
  shift = jnp.full_like(keys, 32)
  with _long_integers():
    keys, places, shift = (x.astype("int64") for x in (keys, places, shift))
    pairs = jax.lax.sort(keys << shift | places, dimension=1)
    keys, places = (pairs >> shift).astype("int32"), pairs.astype("int32")
  return jax.lax.bitcast_convert_type(keys, gaps.dtype), places


def _long_integers():
  if hasattr(jax, "enable_x64"):
    return jax.enable_x64(True)
  from jax.experimental import enable_x64

  return enable_x64(True)


@jax.custom_jvp
def _spread(rows, delta, gaps, places):
  """Integrates 1 / (number of gaps passed) from every gap to 1, and puts that in its place."""
  gaps = jnp.where(places < rows.shape[1], gaps / delta, 1)
  weights = _integral(gaps, jnp.ones_like(gaps[:, :1]))
  nothing = jnp.broadcast_to(0 * weights[:, :1], rows.shape)  # NaN if one of the row is
  return _add(nothing, places, weights)


@_spread.defjvp
def _spread_jvp(primals, tangents):
  rows, delta, gaps, places = primals
  d_rows, d_delta, *_ = tangents
  # Only the gaps and the places are kept for the way back.
  moved = jax.checkpoint(_moved)(delta, _below_top(rows, gaps, places), places, d_rows, d_delta)
  return _spread(*primals), moved


@jax.custom_jvp
def _below_top(rows, gaps, places):
  """Returns gaps, with the derivative that they have at a constant top."""
  return gaps


@_below_top.defjvp
def _below_top_jvp(primals, tangents):
  return _below_top(*primals), -_get(tangents[0], primals[2])


def _moved(delta, gaps, places, d_rows, d_delta):
  inside = places < d_rows.shape[1]
  gaps = jnp.where(inside, gaps, 0) / delta
  moved = -(_get(d_rows, places) + gaps * d_delta) / delta
  tie, size, slope = _ties(gaps, inside)
  mean = _add(jnp.zeros_like(moved), tie, moved) / size
  end = mean[:, :1]  # it is delta below the largest logits, and moves with them
  mean = jnp.where(inside, _get(mean, tie), end)
  # A tie that moves as one stays a tie; what differs inside it is averaged over the orders.
  moved = _integral(mean, end) - _get(slope, tie) * (moved - mean)
  return _add(jnp.zeros_like(d_rows), places, moved)


def _ties(ascending, inside):
  """Returns the tie of every slot; and of every tie its size, at least 1, and the mean of 1 / r.

  The ranks r are those of the tie without its last: that is what the mean over the orders leaves.
  """
  same = ascending[:, 1:] == ascending[:, :-1]
  edge = jnp.zeros_like(inside[:, :1])
  tie = _counted(~jnp.concatenate([edge, same], 1)) - 1
  tie = jnp.where(inside, tie, tie.shape[1])
  followed = jnp.concatenate([same & inside[:, 1:], edge], 1)
  zeros = jnp.zeros_like(ascending)
  total = _add(zeros, tie, jnp.where(followed, 1 / _ranks(ascending), 0))
  size = _add(zeros, tie, 1)
  return tie, jnp.maximum(size, 1), total / jnp.maximum(size - 1, 1)


def _integral(ascending, end):
  steps = jnp.concatenate([ascending[:, 1:], end], 1) - ascending
  return _sums(steps / _ranks(steps), reverse=True)


def _ranks(x):
  return jnp.arange(1, x.shape[1] + 1, dtype=x.dtype)[None]


def _counted(x):
  """Sums like `_sums`, exactly."""
  exact = jnp.float32 if x.shape[1] < 2**24 // BITS else jnp.int32
  return _sums(x.astype(exact)).astype(jnp.int32)


def _sums(x, reverse=False):
  """Sums a row up to every place, or from it on: `cumsum` by products with matrices of ones.

  On a CPU that is at least three times as fast, and compiles in half of the time.
  """
  n = x.shape[1]
  ones = np.tri(min(n, BITS), dtype=x.dtype)
  ones = ones if reverse else ones.T
  if n <= BITS:
    return jnp.dot(x, ones, precision="highest")
  blocks = jnp.pad(x, ((0, 0), (0, -n % BITS))).reshape(len(x), -1, BITS)
  inside = jnp.dot(blocks, ones, precision="highest")
  # Shifted, as to subtract a block's own total from a sum would leave few digits of small weights.
  if reverse:
    others = jnp.pad(inside[:, 1:, 0], ((0, 0), (0, 1)))
  else:
    others = jnp.pad(inside[:, :-1, -1], ((0, 0), (1, 0)))
  return (inside + _sums(others, reverse)[:, :, None]).reshape(len(x), -1)[:, :n]


def _get(x, places):
  return _at(x, places).get(mode="fill", fill_value=0)


def _add(x, places, values):
  return _at(x, places).add(values, mode="drop")


def _at(x, places):
  row = jax.lax.broadcasted_iota(jnp.int32, places.shape, 0)
  return x.at[row, places]
