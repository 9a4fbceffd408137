"""Attention by blocks in two passes: the moments of every row, then the mixture of the values."""

import jax
import jax.numpy as jnp

from rankbias.ops.attention_blocks import Grid
from rankbias.ops.attention_stream_mix import block_mix
from rankbias.ops.attention_stream_moments import block_moments

BLOCK = (1, 256, 512)  # key heads, queries, keys


def stream_moments(
  query, key, bias=None, mask=None, *, scale, is_causal=False, window=(None, None), block=BLOCK
):
  """Computes the moments [B, N, T] of the logits scale q . k + bias of every query.

  Memory is linear in T and S, in the derivative too: that recomputes the logits. Maximum and count
  are its constants. There is no forward mode.

  Args:
    query: [B, T, N, H].
    key: [B, S, K, H], N a multiple of K; no axis is empty.
    bias: None or broadcastable to [B, N, T, S]. Its gradient is its own size.
    mask: None, a boolean array broadcastable to [B, N, T, S] or a tuple of them that must all hold.
    window: (left, right), t - left <= s <= t + right; None does not bound.
    block: key heads, queries and keys of a block.
  """
  grid = _grid(query, key, scale, block)
  where = _masks(grid, mask), _band(is_causal, window)
  moments = block_moments(grid, _queries(grid, query), _keys(key), _logitwise(grid, bias), where)
  return jax.tree.map(lambda x: x.reshape(x.shape[0], -1, x.shape[3]), moments)


def stream_mix(
  query,
  key,
  value,
  beta,
  maximum,
  bias=None,
  mask=None,
  *,
  scale,
  is_causal=False,
  window=(None, None),
  block=BLOCK,
  skip=True,
):
  """Mixes values [B, S, K, D] into [B, T, N, D], float32 or wider, by weights at beta [B, N, T].

  p = exp(beta (z - m)) / sum exp(beta (z - m)), z the logits and m = maximum [B, N, T] as of
  `stream_moments`, whose arguments these are. Any finite beta will do. A constant shift of z has no
  derivative, so `maximum` has none.

  Args:
    skip: leaves out blocks whose weights are beyond the rounding of the sum.
  """
  grid = _grid(query, key, scale, block)
  where = _masks(grid, mask), _band(is_causal, window)
  rows = (x.reshape(grid.batch, grid.heads, grid.group, -1) for x in (beta, maximum))
  arrays = _queries(grid, query), _keys(key), _keys(value)
  out = block_mix(grid, skip, *arrays, *rows, _logitwise(grid, bias), where)
  return jnp.moveaxis(out, 3, 1).reshape(*query.shape[:3], -1)


def _grid(query, key, scale, block):
  (batch, queries, heads, _), (_, keys, key_heads, _) = query.shape, key.shape
  block = min(block[0], key_heads), min(block[1], queries), min(block[2], keys)
  return Grid(batch, key_heads, heads // key_heads, queries, keys, block, float(scale))


def _queries(grid, x):
  return jnp.moveaxis(x.reshape(*x.shape[:2], grid.heads, grid.group, -1), 1, 3)


def _keys(x):
  return jnp.moveaxis(x, 1, 2)[:, :, None]


def _logitwise(grid, x):
  """Splits the axis of heads of a bias or mask."""
  if x is None or x.shape[1] == 1:
    return None if x is None else x[:, :, None]
  return x.reshape(x.shape[0], grid.heads, grid.group, *x.shape[2:])


def _masks(grid, mask):
  masks = () if mask is None else mask if isinstance(mask, tuple) else (mask,)
  return tuple(_logitwise(grid, x) for x in masks)


def _band(is_causal, window):
  left, right = window
  if is_causal:
    right = 0 if right is None else jnp.minimum(right, 0)
  return left, right
