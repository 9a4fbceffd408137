"""Draws items with nearly their softmax probability, at a cost that does not grow with V."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Real

from rankbias.ops.categorical import draw, log_sum_exp
from rankbias.ops.midx_index import Key, MidxIndex, index_width

CELLS = 2**22  # scores of cells, over all queries, held at once


def midx_log_probability(
  index: MidxIndex, query: Real[ArrayLike, "*batch d"], item_ids: Integer[ArrayLike, "..."]
) -> Float[Array, "..."]:
  """Computes the log probability with which `midx_sample` draws an item.

  log q(j) = s(a, b) + log w_j - log sum_(a', b') exp s(a', b') W(a', b'),  s(a, b) = q0.a + q1.b

  exactly normalised over the items: W is the summed weight of a cell. Cost K^2 a query.

  Args:
    item_ids: shape [*batch] or [*batch, ...]: any number of items a query. An id outside
      0..V-1 gives NaN.

  Raises:
    ValueError: query does not fit the index, or item_ids does not start with query's batch shape.

  Example: with index = midx_from_codes(([[0.], [1.]], [[0.], [1.]]), [[0, 0], [1, 1]]), of scores
  0 and 1 for the query [1., 0.], midx_log_probability(index, [1., 0.], 1) is -.3133.
  Source: Chen et al. 2025, arXiv:2501.08563.
  """
  query, item_ids = jnp.asarray(query), jnp.asarray(item_ids)
  _check_query(index, query)
  batch = query.shape[:-1]
  if item_ids.shape[: len(batch)] != batch:
    raise ValueError(
      f"item_ids of shape {item_ids.shape} must start with the batch shape {batch} of query: "
      "broadcast them with jnp.broadcast_to."
    )
  return _log_probability(index, query, item_ids)


def midx_sample(
  index: MidxIndex, query: Real[ArrayLike, "*batch d"], key: Key, num_samples: int
) -> tuple[Int[Array, "*batch n"], Float[Array, "*batch n"]]:
  """Draws items for every query, with replacement; returns their ids and log probabilities.

  First a codeword of the first half, P(a) ~ exp(q0.a) sum_b W(a, b) exp(q1.b), then one of the
  second, P(b | a) ~ W(a, b) exp(q1.b), then an item of the cell by its weight. Neither time
  (K^2 a query, K a draw) nor memory (K a draw) depends on V, but for a binary search where items
  have weights.

  Args:
    num_samples: draws a query, 1 or more.

  Raises:
    ValueError: query does not fit the index, or num_samples < 1.

  Example: ids, log_q = midx_sample(index, query, jax.random.key(0), 20).
  Source: Chen et al. 2025, arXiv:2501.08563.
  """
  query = jnp.asarray(query)
  _check_query(index, query)
  if num_samples < 1:
    raise ValueError(f"num_samples = {num_samples} must be 1 or more.")
  return _sample(index, query, key, num_samples)


def _check_query(index, query):
  if query.ndim < 1 or query.shape[-1] != index_width(index):
    raise ValueError(
      f"query of shape {query.shape} does not fit an index of {index_width(index)} coordinates: "
      "its last axis must have the size of the items."
    )


def _scores(index, query):
  """Returns q0.a, q1.b and log P(a) + constant, a row a query."""
  first = index.codebooks[0]
  query = query.reshape(-1, query.shape[-1]).astype(first.dtype)
  halves = query[:, : first.shape[1]], query[:, first.shape[1] :]
  r0, r1 = (
    jnp.einsum("nh,kh->nk", q, c, precision="highest")
    for q, c in zip(halves, index.codebooks, strict=True)
  )

  def mass(log_mass):  # of one codeword of the first half, for every query
    return log_sum_exp(r1 + log_mass[None])

  together = max(1, CELLS // max(1, r1.size))
  return r0, r1, r0 + jax.lax.map(mass, index.log_mass, batch_size=together).T


def _item_log_probability(index, scores, ids):
  """ids [n, m] -> log q [n, m]."""
  r0, r1, rows = scores
  codes = index.codes[ids]
  logs = jnp.take_along_axis(r0, codes[..., 0], 1) + jnp.take_along_axis(r1, codes[..., 1], 1)
  if index.log_weights is not None:
    logs += index.log_weights[ids]
  return logs - log_sum_exp(rows)[:, None]


@jax.jit
def _log_probability(index, query, ids):
  scores = _scores(index, query)
  known = (ids >= 0) & (ids < index.codes.shape[0])
  flat = jnp.where(known, ids, 0).reshape(scores[0].shape[0], -1)
  return jnp.where(known, _item_log_probability(index, scores, flat).reshape(ids.shape), jnp.nan)


@partial(jax.jit, static_argnums=3)
def _sample(index, query, key, num_samples):
  scores = _scores(index, query)
  _, r1, rows = scores
  bits = jax.random.bits(key, (3, rows.shape[0], num_samples), jnp.uint32)
  uniform = (bits >> 8).astype(rows.dtype) * 2.0**-24
  a = draw(uniform[0], rows[:, None, :])
  b = draw(uniform[1], r1[:, None, :] + index.log_mass[a])
  ids = index.order[_place(index, a * r1.shape[1] + b, bits[2], uniform[2])]
  shape = *query.shape[:-1], num_samples
  return ids.reshape(shape), _item_log_probability(index, scores, ids).reshape(shape)


def _place(index, cell, bits, uniform):
  """Draws one place in `order` within every cell."""
  low, end = index.starts[cell], index.starts[cell + 1]
  count = jnp.maximum(end - low, 1)
  if index.cumulative is None:
    return low + (bits % count.astype(jnp.uint32)).astype(jnp.int32)

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) // 2
    right = (index.cumulative[middle] <= uniform) & (low < high)
    return jnp.where(right, middle + 1, low), jnp.where(right, high, middle)

  rounds = max(1, index.order.shape[0].bit_length())
  return jax.lax.fori_loop(0, rounds, halve, (low, low + count - 1))[0]
