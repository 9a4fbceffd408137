"""The second pass of streaming attention: the mixture of the values, by blocks."""

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
  wide,
  zeros_like,
)
from rankbias.ops.moments import below


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def block_mix(grid, skip, query, key, value, beta, maximum, bias, where):
  """Returns the mixture [batch, key heads, group, queries, features] of the values."""
  return _forward(grid, skip, query, key, value, beta, maximum, bias, where)[0]


def _tempered(z, beta, maximum):
  """Returns z - m and beta (z - m), the latter -inf where z is."""
  shifted = below(z, maximum[..., None])
  return shifted, jnp.where(z == -jnp.inf, -jnp.inf, beta[..., None] * shifted)


def _forward(grid, skip, query, key, value, beta, maximum, bias, where):
  dtype = wide(query, key, value)
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


def _backward(grid, skip, saved, cotangent):
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
      pulled = pull_logits(grid, pulled, b[..., None] * d_t, q, k, at, s)
      d_b += jnp.sum(d_t * shifted, -1)
      return pulled, add(d_value, d_v[:, None], (*at[:3], s)), d_b

    (d_query, d_key, d_bias), d_value, d_beta = carry
    start = (jnp.zeros_like(q), d_key, d_bias), d_value, jnp.zeros_like(b)
    (d_q, d_key, d_bias), d_value, d_b = over_keys(grid, at[3], where[1], keys, start)
    d_query = add(d_query, d_q * grid.scale, at)
    return (d_query, d_key, d_bias), d_value, add(d_beta, d_b, at)

  start = zeros_like(dtype, query, key, bias), *zeros_like(dtype, value, beta)
  (d_query, d_key, d_bias), d_value, d_beta = over_queries(grid, queries, start)
  gradients = d_query, d_key, d_value, d_beta, None, d_bias
  return (*cast_like(gradients, (query, key, value, beta, None, bias)), None)


block_mix.defvjp(_forward, _backward)
