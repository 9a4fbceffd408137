"""Attention by blocks in two passes: the moments of every row, then the mixture of the values."""

from functools import partial

import jax
import jax.numpy as jnp

from rankbias.ops.attention_blocks import (
  Grid,
  add,
  block_logits,
  keys_of,
  new_rows,
  over_keys,
  over_queries,
  put,
  rows_of,
  scaled_queries,
  visible_keys,
)
from rankbias.ops.moments import below, empty_moments, merge_moments, row_moments

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
  moments = _moments(grid, _queries(grid, query), _keys(key), _logitwise(grid, bias), where)
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
  out = _mix(grid, skip, *arrays, *rows, _logitwise(grid, bias), where)
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


def _wide(*arrays):
  return jnp.result_type(jnp.float32, *arrays)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _moments(grid, query, key, bias, where):
  dtype = _wide(query, key)

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


def _moments_forward(grid, query, key, bias, where):
  moments = _moments(grid, query, key, bias, where)
  return moments, (query, key, bias, where, moments.maximum)


def _moments_backward(grid, saved, cotangents):
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
      return _pull_logits(
        grid, carry, total * weights + weighted * (shifted * weights), q, k, at, s
      )

    d_query, *rest = carry
    d_q, *rest = over_keys(grid, at[3], where[1], keys, (jnp.zeros_like(q), *rest))
    return add(d_query, d_q * grid.scale, at), *rest

  arrays = query, key, bias
  return (*_as(over_queries(grid, queries, _zeros(dtype, *arrays)), arrays), None)


def _pull_logits(grid, carry, d_logits, q, k, at, s):
  """Adds what the derivative of a block of logits is worth in scaled queries, keys and bias."""
  d_q, d_key, d_bias = carry
  d_q += jnp.einsum("hgts,hsd->hgtd", d_logits, k)
  d_k = jnp.einsum("hgts,hgtd->hsd", d_logits, q)
  d_key = add(d_key, d_k[:, None], (*at[:3], s))
  return d_q, d_key, None if d_bias is None else add(d_bias, d_logits, (*at, s))


def _zeros(dtype, *arrays):
  return tuple(None if x is None else jnp.zeros(x.shape, dtype) for x in arrays)


def _as(values, arrays):
  return tuple(
    None if x is None else v.astype(x.dtype) for v, x in zip(values, arrays, strict=True)
  )


_moments.defvjp(_moments_forward, _moments_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mix(grid, skip, query, key, value, beta, maximum, bias, where):
  return _mix_forward(grid, skip, query, key, value, beta, maximum, bias, where)[0]


def _tempered(z, beta, maximum):
  """Returns z - m and beta (z - m), the latter -inf where z is."""
  shifted = below(z, maximum[..., None])
  return shifted, jnp.where(z == -jnp.inf, -jnp.inf, beta[..., None] * shifted)


def _mix_forward(grid, skip, query, key, value, beta, maximum, bias, where):
  dtype = _wide(query, key, value)
  info = jnp.finfo(dtype)

  def queries(carry, at):
    q = scaled_queries(grid, query, at, dtype)
    b, m = (rows_of(grid, x, at).astype(dtype) for x in (beta, maximum))

    def keys(carry, s):
      z = block_logits(grid, q, keys_of(grid, key, at, s, dtype), bias, where, at, s)
      _, t = _tempered(z, b, m)
      top = jnp.max(t, -1)

      def mixed(carry):
        out, total, peak = carry
        new = jnp.maximum(peak, top)
        weights, kept = jnp.exp(t - new[..., None]), jnp.exp(peak - new)
        v = keys_of(grid, value, at, s, dtype)
        out = out * kept[..., None] + jnp.einsum("hgts,hsd->hgtd", weights, v)
        return out, total * kept + jnp.sum(weights, -1), new

      if not skip:
        return mixed(carry)
      # The final total is 1 at least: the largest weight is exp(0). What is left out of it, from
      # all blocks together, is S times this bound at most: half the unit in the last place of 1.
      negligible = jnp.all(grid.keys * jnp.exp(top - carry[2]) <= info.eps / 2)
      return jax.lax.cond(negligible, lambda carry: carry, mixed, carry)

    # No logit exceeds m: only where beta < 0 does the peak of beta (z - m) have to be found.
    start = jnp.where(b < 0, info.min, jnp.zeros_like(b))
    zero = jnp.zeros((*b.shape, value.shape[-1]), dtype)
    out, total, peak = over_keys(grid, at[3], where[1], keys, (zero, jnp.zeros_like(b), start))
    total = jnp.where(total == 0, 1, total)
    block = out / total[..., None], total, peak
    return jax.tree.map(lambda x, y: put(x, y, at), carry, block)

  rows = jnp.zeros(query.shape[:-1], dtype)
  out = jnp.zeros((*rows.shape, value.shape[-1]), dtype)
  out, total, peak = over_queries(grid, queries, (out, rows, rows))
  return out, (query, key, value, beta, maximum, bias, where, out, total, peak)


def _mix_backward(grid, skip, saved, cotangent):
  query, key, value, beta, maximum, bias, where, *found = saved
  dtype = cotangent.dtype

  def queries(carry, at):
    q = scaled_queries(grid, query, at, dtype)
    b, m, d_out, out, total, peak = (
      rows_of(grid, x, at).astype(dtype) for x in (beta, maximum, cotangent, *found)
    )
    d_out = jnp.where(new_rows(grid, at[3])[..., None], d_out / total[..., None], 0)
    mean = jnp.sum(d_out * out, -1)[..., None]

    def keys(carry, s):
      pulled, d_value, d_b = carry
      k, v = (keys_of(grid, x, at, s, dtype) for x in (key, value))
      shifted, t = _tempered(block_logits(grid, q, k, bias, where, at, s), b, m)
      weights = jnp.exp(t - peak[..., None])
      d_v = jnp.einsum("hgts,hgtd->hsd", weights, d_out)
      d_t = weights * (jnp.einsum("hgtd,hsd->hgts", d_out, v) - mean)
      pulled = _pull_logits(grid, pulled, b[..., None] * d_t, q, k, at, s)
      d_b += jnp.sum(d_t * shifted, -1)
      return pulled, add(d_value, d_v[:, None], (*at[:3], s)), d_b

    (d_query, d_key, d_bias), d_value, d_beta = carry
    start = (jnp.zeros_like(q), d_key, d_bias), d_value, jnp.zeros_like(b)
    (d_q, d_key, d_bias), d_value, d_b = over_keys(grid, at[3], where[1], keys, start)
    d_query = add(d_query, d_q * grid.scale, at)
    return (d_query, d_key, d_bias), d_value, add(d_beta, d_b, at)

  start = _zeros(dtype, query, key, bias), *_zeros(dtype, value, beta)
  (d_query, d_key, d_bias), d_value, d_beta = over_queries(grid, queries, start)
  gradients = d_query, d_key, d_value, d_beta, None, d_bias
  return (*_as(gradients, (query, key, value, beta, None, bias)), None)


_mix.defvjp(_mix_forward, _mix_backward)
