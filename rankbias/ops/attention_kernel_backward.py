"""The backward kernels of adaptive-temperature attention: logits are computed again, tile by tile.

With weights p = exp(beta (z - m)) / sum, cotangent g and out the mixture:

  dp = g . v - g . out,  dz = beta p dp,  dbeta = sum p dp (z - m),  dv = sum p g,

and for the moments dz = e^(z - m) (dS + dW (z - m + 1)); both then give dq = scale sum dz k and
dk = scale sum dz q, the latter over all query heads that share the key head.
"""

import jax
import jax.numpy as jnp

from rankbias.ops.attention_tiles import LOG2_E, load, product, row_shape, store


def mix_backward_queries(query, key, value, cotangent, rows, tiles):
  """Computes dq and dbeta; rows are beta, maximum, normaliser and g . out, each [B, N, T]."""
  arrays = [("queries", query), ("keys", key), ("keys", value), ("queries", cotangent)]
  outputs = [("queries", _like(query)), ("rows", row_shape(tiles))]
  return tiles.run(_mix_queries_kernel, arrays + [("rows", x) for x in rows], outputs)


def mix_backward_keys(query, key, value, cotangent, rows, tiles):
  """Computes dk and dv; rows are beta, maximum, normaliser and g . out."""
  arrays = [("queries", query), ("keys", key), ("keys", value), ("queries", cotangent)]
  outputs = [("keys", _like(key)), ("keys", _like(value))]
  return tiles.run(_mix_keys_kernel, arrays + [("rows", x) for x in rows], outputs)


def moments_backward_queries(query, key, rows, tiles):
  """Computes dq; rows are maximum, dS and dW, each [B, N, T]."""
  arrays = [("queries", query), ("keys", key)] + [("rows", x) for x in rows]
  return tiles.run(_moments_queries_kernel, arrays, [("queries", _like(query))])[0]


def moments_backward_keys(query, key, rows, tiles):
  """Computes dk; rows are maximum, dS and dW."""
  arrays = [("queries", query), ("keys", key)] + [("rows", x) for x in rows]
  return tiles.run(_moments_keys_kernel, arrays, [("keys", _like(key))])[0]


def _like(x):
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _mix_queries_kernel(
  query_ref, key_ref, value_ref, cotangent_ref, beta_ref, maximum_ref, normalizer_ref, mean_ref,
  query_grad_ref, beta_grad_ref, *, tiles
):  # fmt: skip
  i = tiles.block()
  query, cotangent = (load(tiles.queries(ref, i)) for ref in (query_ref, cotangent_ref))
  refs = (beta_ref, maximum_ref, normalizer_ref, mean_ref)
  beta, maximum, normalizer, mean = (load(tiles.rows(ref, i)) for ref in refs)
  slope = beta * LOG2_E

  def step(j, carry, cut):
    query_grad, beta_grad = carry
    key, value = load(tiles.keys(key_ref, j)), load(tiles.keys(value_ref, j))
    shifted = product(query, key, transpose_b=True) * tiles.scale - maximum[:, None]
    weights = jnp.exp2(shifted * slope[:, None] - normalizer[:, None])
    if cut:
      weights = jnp.where(tiles.visible(i, j), weights, 0.0)
    grad = weights * (product(cotangent, value, transpose_b=True) - mean[:, None])
    beta_grad += jnp.sum(grad * shifted, axis=1)
    return query_grad + product(grad.astype(key.dtype), key), beta_grad

  zeros = jnp.zeros(query.shape, jnp.float32), jnp.zeros(tiles.blocks.queries, jnp.float32)
  query_grad, beta_grad = tiles.over_keys(i, step, zeros)
  store(tiles.queries(query_grad_ref, i), query_grad * (beta * tiles.scale)[:, None])
  store(tiles.rows(beta_grad_ref, i), beta_grad)


def _mix_keys_kernel(
  query_ref, key_ref, value_ref, cotangent_ref, beta_ref, maximum_ref, normalizer_ref, mean_ref,
  key_grad_ref, value_grad_ref, *, tiles
):  # fmt: skip
  j = tiles.block()
  key, value = load(tiles.keys(key_ref, j)), load(tiles.keys(value_ref, j))

  def step(i, head, carry, cut):
    key_grad, value_grad = carry
    query, cotangent = (load(tiles.queries(ref, i, head)) for ref in (query_ref, cotangent_ref))
    refs = (beta_ref, maximum_ref, normalizer_ref, mean_ref)
    beta, maximum, normalizer, mean = (load(tiles.rows(ref, i, head)) for ref in refs)
    shifted = product(key, query, transpose_b=True) * tiles.scale - maximum[None]
    weights = jnp.exp2(shifted * (beta * LOG2_E)[None] - normalizer[None])
    if cut:
      weights = jnp.where(tiles.visible(i, j), weights, 0.0)
    value_grad += product(weights.astype(cotangent.dtype), cotangent)
    grad = weights * (product(value, cotangent, transpose_b=True) - mean[None]) * beta[None]
    return key_grad + product(grad.astype(query.dtype), query), value_grad

  zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (key, value))
  key_grad, value_grad = tiles.over_queries(j, step, zeros)
  store(tiles.keys(key_grad_ref, j), key_grad * tiles.scale)
  store(tiles.keys(value_grad_ref, j), value_grad)


def _moments_queries_kernel(
  query_ref, key_ref, maximum_ref, total_ref, weighted_ref, query_grad_ref, *, tiles
):
  i = tiles.block()
  query = load(tiles.queries(query_ref, i))
  refs = (maximum_ref, total_ref, weighted_ref)
  maximum, total, weighted = (load(tiles.rows(ref, i))[:, None] for ref in refs)

  def step(j, carry, cut):
    key = load(tiles.keys(key_ref, j))
    grad = _moments_slope(product(query, key, transpose_b=True), maximum, total, weighted, tiles)
    if cut:
      grad = jnp.where(tiles.visible(i, j), grad, 0.0)
    return carry + product(grad.astype(key.dtype), key)

  query_grad = tiles.over_keys(i, step, jnp.zeros(query.shape, jnp.float32))
  store(tiles.queries(query_grad_ref, i), query_grad * tiles.scale)


def _moments_keys_kernel(
  query_ref, key_ref, maximum_ref, total_ref, weighted_ref, key_grad_ref, *, tiles
):
  j = tiles.block()
  key = load(tiles.keys(key_ref, j))

  def step(i, head, carry, cut):
    query = load(tiles.queries(query_ref, i, head))
    refs = (maximum_ref, total_ref, weighted_ref)
    rows = (load(tiles.rows(ref, i, head))[None] for ref in refs)
    grad = _moments_slope(product(key, query, transpose_b=True), *rows, tiles)
    if cut:
      grad = jnp.where(tiles.visible(i, j), grad, 0.0)
    return carry + product(grad.astype(query.dtype), query)

  key_grad = tiles.over_queries(j, step, jnp.zeros(key.shape, jnp.float32))
  store(tiles.keys(key_grad_ref, j), key_grad * tiles.scale)


def _moments_slope(products, maximum, total, weighted, tiles):
  """Computes e^x (dS + dW (x + 1)) of x = scale q . k - m."""
  shifted = products * tiles.scale - maximum
  return jnp.exp2(shifted * LOG2_E) * (total + weighted * (shifted + 1.0))
