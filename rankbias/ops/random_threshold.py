"""The chance of being chosen among all that lie above a random threshold; core of PLSoftMax."""

import jax
import jax.numpy as jnp
import numpy as np


def chosen_above(gap):
  """Computes p_i = integral from gap_i to 1 of dv / #{j : gap_j <= v}, gaps [..., n] in [0, 1].

  One sort a row. At ties the derivative is the mean over the orders that they could be in.
  """
  rows = gap.reshape(-1, gap.shape[-1])
  place = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 1)
  _, order = jax.lax.sort((jax.lax.stop_gradient(rows), place), dimension=1, num_keys=1)
  return _chosen(rows, order).reshape(gap.shape)


@jax.custom_jvp
def _chosen(gap, order):
  return _put(_integral(_take(gap, order), 1), order)


@_chosen.defjvp
def _chosen_jvp(primals, tangents):
  gap, order = primals
  tangent = _take(tangents[0], order)
  mean, slope = _tied(_take(gap, order), tangent)
  # A tie that moves as one stays a tie; what differs inside it is averaged over the orders.
  return _chosen(gap, order), _put(_integral(mean, 0) - slope * (tangent - mean), order)


def _take(x, places, distinct=True):
  return _at(x, places).get(unique_indices=distinct, mode="promise_in_bounds")


def _put(x, order):
  return _at(jnp.zeros_like(x), order).set(x, unique_indices=True, mode="promise_in_bounds")


def _at(x, places):
  row = jax.lax.broadcasted_iota(jnp.int32, places.shape, 0)
  return x.at[row, places]


def _integral(ascending, end):
  """Integrates 1 / (number of gaps passed) from every gap to the end."""
  last = jnp.full_like(ascending[:, :1], end)
  steps = jnp.concatenate([ascending[:, 1:], last], 1) - ascending
  passed = jnp.broadcast_to(jnp.arange(1, steps.shape[1] + 1, dtype=steps.dtype), steps.shape)
  return jax.lax.cumsum(steps / passed, axis=1, reverse=True)


def _tied(ascending, tangent):
  """Returns the mean tangent of the tie of every entry, and the mean of 1/r over its ranks r.

  All ranks of the tie but its last: that is what the mean over the orders leaves.
  """
  edge = jnp.ones_like(ascending[:, :1], bool)
  differs = jnp.concatenate([edge, ascending[:, 1:] != ascending[:, :-1]], 1)
  place = jax.lax.broadcasted_iota(jnp.int32, ascending.shape, 1)
  before = jax.lax.cummax(jnp.where(differs, place, 0), axis=1)
  zeros = jnp.zeros_like(tangent)
  size, total = (
    _take(_at(zeros, before).add(x, mode="promise_in_bounds"), before, distinct=False)
    for x in (jnp.ones_like(tangent), tangent)
  )
  harmonic = np.cumsum(np.r_[0, 1 / np.arange(1, ascending.shape[1] + 1)])
  harmonic = jnp.asarray(harmonic.astype(tangent.dtype))
  sums = harmonic[before + size.astype(jnp.int32) - 1] - harmonic[before]
  return total / size, sums / jnp.maximum(size - 1, 1)
