"""The first pass of streaming attention: the moments of every row of logits, by blocks."""

from functools import partial

import jax
import jax.numpy as jnp

from rankbias.ops.attention_blocks import (
  add,
  block_logits,
  cast_like,
  keys_of,
  new_rows,
  over_keys,
  over_queries,
  pull_logits,
  put,
  rows_of,
  scaled_queries,
  visible_keys,
  wide,
  zeros_like,
)
from rankbias.ops.moments import below, empty_moments, merge_moments, row_moments


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def block_moments(grid, query, key, bias, where):
  """Returns the moments [batch, key heads, group, queries] of arrays laid out as `Grid` says."""
  dtype = wide(query, key)

  def queries(out, at):
    q = scaled_queries(grid, query, at, dtype)

    def keys(moments, s):
      z = block_logits(grid, q, keys_of(grid, key, at, s, dtype), bias, where, at, s)
      return merge_moments(moments, jax.tree.map(lambda x: x[..., 0], row_moments(z)))

    moments = over_keys(grid, at[3], where[1], keys, empty_moments(q.shape[:-1], dtype))
    return jax.tree.map(lambda x, block: put(x, block, at), out, moments)

  moments = over_queries(grid, queries, empty_moments(query.shape[:-1], dtype))
  if bias is None and not where[0]:  # then nothing needs to be counted block by block
    count = visible_keys(grid, where[1]).astype(dtype)[None, None, None]
    moments = moments._replace(count=jnp.broadcast_to(count, moments.count.shape))
  return moments


def _forward(grid, query, key, bias, where):
  moments = block_moments(grid, query, key, bias, where)
  return moments, (query, key, bias, where, moments.maximum)


def _backward(grid, saved, cotangents):
  query, key, bias, where, maximum = saved
  dtype = maximum.dtype

  def queries(carry, at):
    q = scaled_queries(grid, query, at, dtype)
    rows = maximum, cotangents.total, cotangents.weighted
    m, total, weighted = (rows_of(grid, x, at) for x in rows)
    fresh = new_rows(grid, at[3])
    total, weighted = (jnp.where(fresh, x, 0)[..., None] for x in (total + weighted, weighted))

    def keys(carry, s):
      k = keys_of(grid, key, at, s, dtype)
      shifted = below(block_logits(grid, q, k, bias, where, at, s), m[..., None])
      weights = jnp.exp(shifted)
      return pull_logits(grid, carry, total * weights + weighted * (shifted * weights), q, k, at, s)

    d_query, *rest = carry
    d_q, *rest = over_keys(grid, at[3], where[1], keys, (jnp.zeros_like(q), *rest))
    return add(d_query, d_q * grid.scale, at), *rest

  arrays = query, key, bias
  return (*cast_like(over_queries(grid, queries, zeros_like(dtype, *arrays)), arrays), None)


block_moments.defvjp(_forward, _backward)
