"""The inverted multi-index of item vectors: codebooks, codes and the items of every cell."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer, PRNGKeyArray, Real, UInt32

from rankbias.ops.kmeans import kmeans, seeds
from rankbias.ops.rows import checked, float_dtype

Key = PRNGKeyArray | UInt32[Array, "2"]


class MidxIndex(NamedTuple):
  """Items quantised in two halves; a cell (a, b) holds the items with codewords a and b."""

  codebooks: tuple[Float[Array, "k0 h0"], Float[Array, "k1 h1"]]
  codes: Int[Array, "items 2"]
  log_mass: Float[Array, "k0 k1"]  # log of the summed weights of a cell; -inf where it is empty
  order: Int[Array, "items"]  # the items sorted by cell, those of weight 0 last
  starts: Int[Array, "cells_and_1"]  # cell c holds order[starts[c] : starts[c + 1]]
  log_weights: Float[Array, "items"] | None
  cumulative: Float[Array, "items"] | None  # weights summed within the cell, in `order`, up to 1


def midx_build(
  items: Real[ArrayLike, "items d"],
  *,
  num_codewords: int,
  key: Key,
  num_iterations: int = 100,
  log_weights: Real[ArrayLike, "items"] | None = None,
) -> MidxIndex:
  """Builds an inverted multi-index of item vectors: k-means on each half of their coordinates.

  Every item j gets two codewords; with a_j, b_j their vectors the proposal for a query (q0, q1) is

    q(j) ~ exp(q0 . a_j + q1 . b_j + log w_j),   the softmax of the quantised score.

  Build it anew, or with `midx_update`, when the items have moved; until then the proposal only
  fits them less well, its probabilities stay exact. No gradient passes through the index.

  Args:
    items: V vectors of d >= 2 numbers; the first half takes the odd coordinate. Item 0 is an item
      like any other. For cosine scores, pass normalised items and queries.
    num_codewords: K of each half. Sampling costs K^2 a query; K^2 near V leaves one item a cell.
    num_iterations: the most k-means steps; they end earlier when no item changes its codeword.
    log_weights: log w_j: the bias of an output layer, the log of popularity, or -|x_j|^2 / 2 for
      scores -|q - x_j|^2 / 2. An item of weight -inf is never drawn. None is 0.

  Raises:
    ValueError: fewer than two coordinates, no items, num_codewords or num_iterations < 1, or
      log_weights that are NaN, +inf or all -inf.

  Example: midx_build(items, num_codewords=32, key=jax.random.key(0)).
  Source: Chen et al. 2025, arXiv:2501.08563; the index of Babenko & Lempitsky 2012.
  """
  items = jnp.asarray(items)
  if items.shape[0] < 1 or items.shape[1] < 2:
    raise ValueError(
      f"items has shape {items.shape}: it needs at least one item and two coordinates, "
      "one for each half. Pad the vectors with a coordinate of zeros."
    )
  if num_codewords < 1:
    raise ValueError(f"num_codewords = {num_codewords} must be 1 or more.")
  return _build(items, key, _weights(log_weights), num_codewords, _steps(num_iterations))


def midx_update(
  index: MidxIndex,
  items: Real[ArrayLike, "items d"],
  *,
  num_iterations: int = 10,
  log_weights: Real[ArrayLike, "items"] | None = None,
) -> MidxIndex:
  """Fits an index to items that have moved, starting from its codebooks.

  As `midx_build`, whose arguments these are; 0 iterations keep the codebooks and reassign items.
  `log_weights` are not taken from the old index.

  Raises:
    ValueError: items of another width than those of the index, num_iterations < 0, or log_weights
      that `midx_build` refuses.

  Example: midx_update(index, items) after every epoch.
  Source: Chen et al. 2025, arXiv:2501.08563.
  """
  items = jnp.asarray(items)
  width = index_width(index)
  if items.shape[1] != width:
    raise ValueError(
      f"items of shape {items.shape} do not fit an index of {width} coordinates: "
      "build a new one with midx_build."
    )
  return _update(items, index.codebooks, _weights(log_weights), _steps(num_iterations, 0))


def midx_from_codes(
  codebooks: tuple[Real[ArrayLike, "k0 h0"], Real[ArrayLike, "k1 h1"]],
  codes: Integer[ArrayLike, "items 2"],
  *,
  log_weights: Real[ArrayLike, "items"] | None = None,
) -> MidxIndex:
  """Builds an inverted multi-index from codebooks and codes that are known.

  Args:
    codebooks: the codewords of the first and of the second half of the coordinates.
    codes: for every item its codeword in each; counted from 0.
    log_weights: as in `midx_build`.

  Raises:
    ValueError: a code names no codeword, or log_weights that `midx_build` refuses.

  Example: midx_from_codes((first, second), [[0, 1], [2, 0]]).
  Source: Chen et al. 2025, arXiv:2501.08563.
  """
  first, second = (jnp.asarray(c) for c in codebooks)
  sizes = np.array([[first.shape[0], second.shape[0]]])
  remedy = f"must lie in 0..{sizes[0, 0] - 1} and 0..{sizes[0, 1] - 1}, the rows of the codebooks."
  checked("codes", codes, lambda c: (c >= 0) & (c < sizes), remedy)
  dtype = jnp.promote_types(jnp.result_type(float_dtype(first), float_dtype(second)), jnp.float32)
  codebooks = first.astype(dtype), second.astype(dtype)
  return _index(codebooks, jnp.asarray(codes, jnp.int32), _weights(log_weights))


def _weights(log_weights):
  remedy = "must be numbers or -inf, and not all -inf: they are logarithms of weights."
  if log_weights is None:
    return None
  checked("log_weights", log_weights, lambda w: (w < np.inf).all() & (w > -np.inf).any(), remedy)
  return jnp.asarray(log_weights)


def _steps(num_iterations, least=1):
  if num_iterations < least:
    raise ValueError(f"num_iterations = {num_iterations} must be {least} or more.")
  return num_iterations


def index_width(index: MidxIndex) -> int:
  """Returns how many coordinates the items of an index have."""
  return sum(codebook.shape[1] for codebook in index.codebooks)


def _halves(vectors):
  middle = math.ceil(vectors.shape[-1] / 2)
  return vectors[..., :middle], vectors[..., middle:]


@partial(jax.jit, static_argnums=(3, 4))
def _build(items, key, log_weights, num_codewords, num_iterations):
  items = items.astype(jnp.promote_types(float_dtype(items), jnp.float32))
  start = [
    seeds(k, half, num_codewords)
    for k, half in zip(jax.random.split(key), _halves(items), strict=True)
  ]
  return _update(items, start, log_weights, num_iterations)


@partial(jax.jit, static_argnums=3)
def _update(items, codebooks, log_weights, num_iterations):
  items = items.astype(codebooks[0].dtype)
  split = codebooks[0].shape[1]
  halves = items[:, :split], items[:, split:]
  found = [kmeans(x, c, num_iterations) for x, c in zip(halves, codebooks, strict=True)]
  return _index(tuple(c for c, _ in found), jnp.stack([n for _, n in found], -1), log_weights)


@jax.jit
def _index(codebooks, codes, log_weights):
  """Sorts the items by cell and sums their weights there."""
  codebooks, codes, log_weights = jax.lax.stop_gradient((codebooks, codes, log_weights))
  k0, k1 = codebooks[0].shape[0], codebooks[1].shape[0]
  cell = codes[:, 0] * k1 + codes[:, 1]
  if log_weights is not None:
    log_weights = log_weights.astype(codebooks[0].dtype)
    cell = jnp.where(log_weights == -jnp.inf, k0 * k1, cell)  # in no cell
  order = jnp.argsort(cell, stable=True).astype(jnp.int32)
  count = jnp.bincount(cell, length=k0 * k1 + 1)[:-1]
  starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(count, dtype=jnp.int32)])
  if log_weights is None:
    log_mass, cumulative = jnp.log(count.astype(codebooks[0].dtype)), None
  else:
    log_mass, cumulative = _cell_sums(log_weights[order], cell[order], k0 * k1)
  return MidxIndex(
    codebooks, codes, log_mass.reshape(k0, k1), order, starts, log_weights, cumulative
  )


def _cell_sums(log_weights, cell, cells):
  """Returns the log of the summed weights of every cell, and running sums that end at 1."""
  top = jax.ops.segment_max(log_weights, cell, cells + 1, indices_are_sorted=True)
  top = jnp.where(jnp.isfinite(top), top, 0)
  weight = jnp.exp(log_weights - top[cell])
  total = jax.ops.segment_sum(weight, cell, cells + 1, indices_are_sorted=True)

  place = jnp.arange(cell.shape[0])

  def double(i, running):  # running sums of 2^i terms become those of 2^(i+1) within the cell
    before = place - 2**i
    same = (before >= 0) & (cell[before] == cell)
    return running + jnp.where(same, running[before], 0)

  # One sum over all items would lose the small cells to rounding.
  running = jax.lax.fori_loop(0, cell.shape[0].bit_length(), double, weight)
  return (top + jnp.log(total))[:-1], running / jnp.where(total == 0, 1, total)[cell]
