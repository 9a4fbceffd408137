"""The chance of being chosen among all that lie above a random threshold; core of PLSoftMax."""

import jax
import jax.numpy as jnp
import numpy as np


def chosen_above(gap):
  """Computes p_i = integral from gap_i to 1 of dv / #{j : gap_j <= v}, gaps [..., n] in [0, 1].

  One sort a row, of integers alone: on a CPU that takes XLA a fifth of the time of sorting floats,
  or integers with their places, and a binary search finds the places afterwards. At ties the
  derivative is the mean over the orders that they could be in.
  """
  rows = gap.reshape(-1, gap.shape[-1])
  return _chosen(rows, *_ranked(jax.lax.stop_gradient(rows))).reshape(gap.shape)


def _ranked(rows):
  """Returns every row ascending, NaN last, and how many of its entries lie below each entry."""
  keys = jnp.where(jnp.isnan(rows), jnp.nan, rows + 0)  # NaN without a sign, and no -0
  keys = jax.lax.bitcast_convert_type(keys, f"int{jnp.finfo(rows.dtype).bits}")  # same order
  ascending = jax.lax.sort(keys, dimension=1)
  rank = jax.vmap(lambda row, key: jnp.searchsorted(row, key, method="scan_unrolled"))
  return jax.lax.bitcast_convert_type(ascending, rows.dtype), rank(ascending, keys)


@jax.custom_jvp
def _chosen(gap, ascending, rank):
  return _take(_integral(ascending, 1), rank)


@_chosen.defjvp
def _chosen_jvp(primals, tangents):
  gap, ascending, rank = primals
  first, size, slope = _ties(ascending)
  total = _at(jnp.zeros_like(gap), rank).add(tangents[0], mode="promise_in_bounds")
  mean = _take(total, first) / size
  # A tie that moves as one stays a tie; what differs inside it is averaged over the orders.
  apart = tangents[0] - _take(mean, rank)
  tangent = _take(_integral(mean, 0), rank) - _take(slope, rank) * apart
  return _chosen(gap, ascending, rank), tangent


def _take(x, places):
  return _at(x, places).get(mode="promise_in_bounds")


def _at(x, places):
  row = jax.lax.broadcasted_iota(jnp.int32, places.shape, 0)
  return x.at[row, places]


def _integral(ascending, end):
  """Integrates 1 / (number of gaps passed) from every gap to the end."""
  last = jnp.full_like(ascending[:, :1], end)
  steps = jnp.concatenate([ascending[:, 1:], last], 1) - ascending
  passed = jnp.broadcast_to(jnp.arange(1, steps.shape[1] + 1, dtype=steps.dtype), steps.shape)
  return jax.lax.cumsum(steps / passed, axis=1, reverse=True)


def _ties(ascending):
  """Returns of every place the first one of its tie, the tie's size, and the mean of 1/r over it.

  The ranks r are those of the tie without its last: that is what the mean over the orders leaves.
  """
  edge = jnp.ones_like(ascending[:, :1], bool)
  differs = jnp.concatenate([edge, ascending[:, 1:] != ascending[:, :-1]], 1)
  place = jax.lax.broadcasted_iota(jnp.int32, ascending.shape, 1)
  first = jax.lax.cummax(jnp.where(differs, place, 0), axis=1)
  ones = jnp.ones_like(ascending)
  size = _take(_at(jnp.zeros_like(ascending), first).add(ones, mode="promise_in_bounds"), first)
  harmonic = np.cumsum(np.r_[0, 1 / np.arange(1, ascending.shape[1] + 1)])
  harmonic = jnp.asarray(harmonic.astype(ascending.dtype))
  sums = harmonic[first + size.astype(jnp.int32) - 1] - harmonic[first]
  return first, size, sums / jnp.maximum(size - 1, 1)
