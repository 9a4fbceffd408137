"""Attention cut into blocks of queries and keys: which there are, what is read and added where."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Grid(NamedTuple):
  """The sizes of an attention and of its blocks; nothing but numbers, so that it is static.

  Arrays are [batch, key heads, group, length, features]: `group` query heads share a key head, and
  keys and values have a group of 1. A bias or mask is [batch, key heads, group, queries, keys] with
  size 1 wherever it is broadcast.
  """

  batch: int
  heads: int
  group: int
  queries: int
  keys: int
  block: tuple[int, int, int]  # key heads, queries, keys; key heads divides `heads`
  scale: float

  @property
  def sizes(self):
    """The sizes of a block of logits."""
    heads, queries, keys = self.block
    return 1, heads, self.group, queries, keys


def over_queries(grid: Grid, step: Callable, carry):
  """Returns carry after carry = step(carry, at) for all blocks of queries at (b, head, 0, t)."""
  heads, queries, _ = grid.block
  across, along = grid.heads // heads, math.ceil(grid.queries / queries)

  def body(i, carry):
    row, column = i // along, i % along
    return step(carry, (row // across, row % across * heads, 0, column * queries))

  return jax.lax.fori_loop(0, grid.batch * across * along, body, carry)


def over_keys(grid: Grid, t, band, step: Callable, carry):
  """Returns carry after carry = step(carry, s) for the blocks of keys that queries from t see.

  band: (left, right), t - left <= s <= t + right; None does not bound.
  """
  (left, right), (_, queries, keys) = band, grid.block
  first, last = 0, math.ceil(grid.keys / keys)
  t = jnp.minimum(t, grid.queries - queries)
  if left is not None:
    first = jnp.maximum((t - left) // keys, 0)
  if right is not None:
    last = jnp.minimum((t + queries - 1 + right) // keys + 1, last)
  return jax.lax.fori_loop(first, last, lambda i, carry: step(carry, i * keys), carry)


def take(x, starts, sizes):
  """Reads a block without its batch axis; the last one starts earlier where it would stick out."""
  starts, sizes = _fitting(x, starts, sizes)
  return jax.lax.dynamic_slice(x, starts, sizes)[0]


def add(x, block, starts):
  """Adds a block, summed over the axes along which x is broadcast, to where `take` reads it."""
  starts, sizes = _fitting(x, starts, (1, *block.shape))
  axes = [a for a, (n, size) in enumerate(zip(block.shape, sizes[1:], strict=True)) if n != size]
  block = jnp.sum(block, axes, keepdims=True)[None].astype(x.dtype)
  return jax.lax.dynamic_update_slice(x, jax.lax.dynamic_slice(x, starts, sizes) + block, starts)


def put(x, block, starts):
  """Writes a block to where `take` reads it."""
  starts, _ = _fitting(x, starts, (1, *block.shape))
  return jax.lax.dynamic_update_slice(x, block[None].astype(x.dtype), starts)


def _fitting(x, starts, sizes):
  """Completes starts with zeros, and reads the one entry of an axis of size 1."""
  starts = (*starts, *(0,) * (x.ndim - len(starts)))
  starts = tuple(0 if n == 1 else s for n, s in zip(x.shape, starts, strict=True))
  return starts, tuple(min(n, size) for n, size in zip(x.shape, sizes, strict=True))


def rows_of(grid, x, at):
  """Reads the block of queries, or of numbers a query, at (b, head, 0, t)."""
  return take(x, at, (*grid.sizes[:4], *x.shape[4:]))


def scaled_queries(grid, query, at, dtype):
  """Reads a block of queries as `dtype` and scales it, which is cheaper than to scale logits."""
  return rows_of(grid, query, at).astype(dtype) * jnp.asarray(grid.scale, dtype)


def visible_keys(grid, band):
  """Returns how many keys each query sees through the band alone, as [queries]."""
  (left, right), t = band, jnp.arange(grid.queries)
  first = 0 if left is None else jnp.maximum(t - left, 0)
  last = grid.keys if right is None else jnp.minimum(t + right + 1, grid.keys)
  return jnp.broadcast_to(jnp.maximum(last - first, 0), t.shape)


def keys_of(grid, x, at, s, dtype):
  """Reads the block of keys or values at s for the queries at `at`, as `dtype`."""
  return take(x, (*at[:3], s), (1, grid.block[0], 1, grid.block[2], x.shape[-1]))[:, 0].astype(
    dtype
  )


def new_rows(grid, t):
  """Returns which rows of the block at t no earlier block has read, as [1, 1, queries]."""
  queries = grid.block[1]
  return (jnp.minimum(t, grid.queries - queries) + jnp.arange(queries) >= t)[None, None]


def block_logits(grid, q, k, bias, where, at, s):
  """Computes the logits [heads, group, queries, keys] of a block, -inf where masked.

  q: scaled already. where: (masks, band). Keys that an earlier block has read are masked.
  """
  masks, (left, right) = where
  z = jnp.einsum("hgtd,hsd->hgts", q, k, preferred_element_type=q.dtype)
  corner = (*at, s)
  if bias is not None:
    z = z + take(bias, corner, grid.sizes).astype(z.dtype)
  _, queries, keys = grid.block
  rows = (jnp.minimum(at[3], grid.queries - queries) + jnp.arange(queries))[None, None, :, None]
  columns = (jnp.minimum(s, grid.keys - keys) + jnp.arange(keys))[None, None, None]
  allowed = [take(mask, corner, grid.sizes) for mask in masks]
  if grid.keys % keys:
    allowed.append(columns >= s)
  if left is not None:
    allowed.append(columns >= rows - left)
  if right is not None:
    allowed.append(columns <= rows + right)
  for part in allowed:
    z = jnp.where(part, z, -jnp.inf)
  return z


def wide(*arrays):
  """Returns the dtype in which arrays are computed with."""
  return jnp.result_type(jnp.float32, *arrays)


def pull_logits(grid, carry, d_logits, q, k, at, s):
  """Adds what the derivative of a block of logits is worth in scaled queries, keys and bias."""
  d_q, d_key, d_bias = carry
  d_q += jnp.einsum("hgts,hsd->hgtd", d_logits, k)
  d_k = jnp.einsum("hgts,hgtd->hsd", d_logits, q)
  d_key = add(d_key, d_k[:, None], (*at[:3], s))
  return d_q, d_key, None if d_bias is None else add(d_bias, d_logits, (*at, s))


def zeros_like(dtype, *arrays):
  """Returns zeros of the shapes of arrays, None for None."""
  return tuple(None if x is None else jnp.zeros(x.shape, dtype) for x in arrays)


def cast_like(values, arrays):
  """Returns values in the dtypes of arrays, None for None."""
  return tuple(
    None if x is None else v.astype(x.dtype) for v, x in zip(values, arrays, strict=True)
  )
