"""The two forward kernels of adaptive-temperature attention: moments of the rows, then the mixture.

Exponents are powers of two inside: the hardware has 2^x, and the factor log2 e joins the scale.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from rankbias.ops.attention_tiles import LOG2_E, LOWEST, load, product, row_shape, store

LOG2_LAST_PLACE = 24  # 1 + 2^-24 is 1 in float32


def moments_forward(query, key, tiles):
  """Computes maximum, S and W of every row of logits, each [B, N, T], walking the keys once."""
  rows = [("rows", row_shape(tiles))] * 3
  return tiles.run(_moments_kernel, [("queries", query), ("keys", key)], rows)


def mix_forward(query, key, value, beta, maximum, tiles, skip):
  """Computes the mixture [B, T, N, D] and log2 of the sum [B, N, T] of the weights 2^exponents.

  Logits are shifted before they are multiplied by beta: the difference is exact where it matters,
  and large logits do not lose digits to a large beta.

  Args:
    skip: leaves out a block whose weights change no sum of weights: a branch in the loop.
  """
  batch, length, heads, _, _ = tiles.shape
  out = jax.ShapeDtypeStruct((batch, length, heads, value.shape[-1]), jnp.float32)
  arrays = [("queries", query), ("keys", key), ("keys", value), ("rows", beta), ("rows", maximum)]
  outputs = [("queries", out), ("rows", row_shape(tiles))]
  return tiles.run(_mix_kernel, arrays, outputs, skip=skip)


def _moments_kernel(query_ref, key_ref, maximum_ref, total_ref, weighted_ref, *, tiles):
  i = tiles.block()
  query = load(tiles.queries(query_ref, i))

  def step(j, carry, cut):
    maximum, total, weighted = carry
    key = load(tiles.keys(key_ref, j))
    logits = product(query, key, transpose_b=True) * (tiles.scale * LOG2_E)
    if cut:
      logits = jnp.where(tiles.visible(i, j), logits, LOWEST)
    highest = jnp.maximum(maximum, jnp.max(logits, axis=1))
    rise, shifted = maximum - highest, logits - highest[:, None]
    fade, weights = jnp.exp2(rise), jnp.exp2(shifted)
    weighted = fade * (weighted + rise * total) + jnp.sum(shifted * weights, axis=1)
    return highest, fade * total + jnp.sum(weights, axis=1), weighted

  zeros = jnp.zeros(tiles.blocks.queries, jnp.float32)
  maximum, total, weighted = tiles.over_keys(i, step, (zeros + LOWEST, zeros, zeros))
  store(tiles.rows(maximum_ref, i), maximum / LOG2_E)
  store(tiles.rows(total_ref, i), total)
  store(tiles.rows(weighted_ref, i), weighted / LOG2_E)


def _mix_kernel(
  query_ref, key_ref, value_ref, beta_ref, maximum_ref, out_ref, normalizer_ref, *, tiles, skip
):
  i = tiles.block()
  query, maximum = load(tiles.queries(query_ref, i)), load(tiles.rows(maximum_ref, i))
  slope = load(tiles.rows(beta_ref, i)) * LOG2_E

  def step(j, carry, cut):
    key, value = load(tiles.keys(key_ref, j)), load(tiles.keys(value_ref, j))
    shifted = product(query, key, transpose_b=True) * tiles.scale - maximum[:, None]
    exponents = shifted * slope[:, None]
    if cut:
      exponents = jnp.where(tiles.visible(i, j), exponents, LOWEST)

    def add(carry):
      out, total = carry
      weights = jnp.exp2(exponents)
      out += product(weights.astype(value.dtype), value)
      return out, total + jnp.sum(weights, axis=1)

    if not skip:
      return add(carry)
    # The sum ends at 1 or more, as the largest weight of a row is 1: all that is left out of it
    # together, S times the bound at most, is half the unit in the last place of 1.
    negligible = jnp.max(exponents) <= -LOG2_LAST_PLACE - math.log2(tiles.shape[3])
    return lax.cond(negligible, lambda carry: carry, add, carry)

  zeros = jnp.zeros(tiles.blocks.queries, jnp.float32)
  out = jnp.zeros((tiles.blocks.queries, out_ref.shape[-1]), jnp.float32)
  out, total = tiles.over_keys(i, step, (out, zeros))
  store(tiles.queries(out_ref, i), out / total[:, None])
  store(tiles.rows(normalizer_ref, i), jnp.log(total) * LOG2_E)
