"""The tiles of attention in a Pallas kernel: who sees whom, loads and stores at edges, launch."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

LOG2_E = math.log2(math.e)
LOWEST = float(jnp.finfo(jnp.float32).min) / 2  # finite, and so are its differences from logits


class Blocks(NamedTuple):
  """How a kernel is cut: queries and keys of a tile (powers of two), warps, stages of its loop."""

  queries: int
  keys: int
  warps: int
  stages: int


# For heads of up to 64, 128 and 256 features of 16 bits: what Triton compiles for an H100 to its
# tensor core instructions with few registers spilled or none. Chosen by that, not by timing.
HOPPER = {
  "moments": ((128, 64, 4, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
  "mix": ((128, 64, 4, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
  "moments queries": ((128, 64, 8, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
  "moments keys": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 64, 8, 2)),
  "mix queries": ((128, 64, 8, 3), (128, 64, 8, 3), (64, 32, 8, 2)),
  "mix keys": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 32, 8, 2)),
}


def hopper_blocks(kernel: str, features: int, itemsize: int) -> Blocks:
  """Returns the cut of a kernel on an H100 or H200; float32 has no tensor core and small tiles."""
  if itemsize > 2:
    return Blocks(32 if features <= 128 else 16, 32, 8, 2)
  return Blocks(*HOPPER[kernel][0 if features <= 64 else 1 if features <= 128 else 2])


class Tiles(NamedTuple):
  """One kernel before it runs: its static numbers, and how a program reaches its part of an array.

  A program holds one block of queries of one head and walks over the keys it sees, or, `by_keys`,
  one block of keys of one head and walks over the queries of the group of heads that share it.
  """

  shape: tuple[int, int, int, int, int]  # B, T, N, S, K
  blocks: Blocks
  scale: float
  is_causal: bool
  by_keys: bool
  interpret: bool

  @property
  def group(self):
    """How many query heads a program serves."""
    return self.shape[2] // self.shape[4] if self.by_keys else 1

  @property
  def count(self):
    """How many blocks the programs of one head share."""
    _, length, _, keys, _ = self.shape
    return pl.cdiv(keys, self.blocks.keys) if self.by_keys else pl.cdiv(length, self.blocks.queries)

  @property
  def heads(self):
    """How many heads have programs of their own."""
    return self.shape[4] if self.by_keys else self.shape[2]

  def place(self, program):
    """Returns the block, the head and the example of a program: one grid axis, vmap adds others.

    Neighbours share the keys that they read; the programs with the longest walk start first.
    """
    block, rest = lax.rem(program, self.count), lax.div(program, self.count)
    if self.is_causal and not self.by_keys:
      block = self.count - 1 - block
    return block, lax.rem(rest, self.heads), lax.div(rest, self.heads)

  def block(self):
    """Returns the block that this program holds."""
    return self.place(pl.program_id(0))[0]

  def queries(self, ref, block, head=None):
    """Returns a block of [T, group, H], or [T, H], with where it lies inside the array."""
    span, inside = _span(block, self.blocks.queries, self.shape[1])
    part = ref.at[span, :] if self.group == 1 else ref.at[span, head, :]
    return part, inside if inside is None else inside[:, None]

  def keys(self, ref, block):
    """Returns a block of [S, H], with where it lies inside the array."""
    span, inside = _span(block, self.blocks.keys, self.shape[3])
    return ref.at[span, :], inside if inside is None else inside[:, None]

  def rows(self, ref, block, head=None):
    """Returns a block of [group, T], or [T], with where it lies inside the array."""
    span, inside = _span(block, self.blocks.queries, self.shape[1])
    return ref.at[span] if self.group == 1 else ref.at[head, span], inside

  def visible(self, query_block, key_block):
    """Computes which keys the queries of a tile see, [queries, keys], transposed when by_keys."""
    tile = (self.blocks.keys, self.blocks.queries)[:: 1 if self.by_keys else -1]
    key = key_block * self.blocks.keys + lax.broadcasted_iota(jnp.int32, tile, 1 - self.by_keys)
    query = query_block * self.blocks.queries + lax.broadcasted_iota(
      jnp.int32, tile, int(self.by_keys)
    )
    inside = key < self.shape[3]
    return inside & (key <= query) if self.is_causal else inside

  def over_keys(self, i, step, carry):
    """Folds step(j, carry, cut) over the key blocks that query block i sees; cut: not wholly."""
    rows, columns, keys = self.blocks.queries, self.blocks.keys, self.shape[3]
    whole, stop = keys // columns, pl.cdiv(keys, columns)
    if self.is_causal:
      whole = jnp.minimum(lax.div(i * rows + 1, columns), whole)
      stop = jnp.minimum(lax.div((i + 1) * rows + columns - 1, columns), stop)
    carry = lax.fori_loop(0, whole, partial(step, cut=False), carry)
    if self.is_causal or keys % columns:
      carry = lax.fori_loop(whole, stop, partial(step, cut=True), carry)
    return carry

  def over_queries(self, j, step, carry):
    """Folds step(i, head, carry, cut) over the query blocks of the group that see key block j."""
    rows, columns = self.blocks.queries, self.blocks.keys
    start, whole, stop = 0, 0, pl.cdiv(self.shape[1], rows)
    if self.is_causal:
      start = lax.div(j * columns, rows)
      whole = jnp.clip(lax.div((j + 1) * columns + rows - 2, rows), start, stop)

    def one_head(head, carry):
      if self.is_causal:
        carry = lax.fori_loop(start, whole, lambda i, c: step(i, head, c, cut=True), carry)
      return lax.fori_loop(whole, stop, lambda i, c: step(i, head, c, cut=False), carry)

    return one_head(0, carry) if self.group == 1 else lax.fori_loop(0, self.group, one_head, carry)

  def run(self, kernel, arrays, outputs, **static):
    """Runs kernel(*refs of arrays, *refs of outputs, tiles=self, **static).

    Args:
      arrays, outputs: (kind, array or its shape); the kinds are "queries" [B, T, N, H], "keys"
        [B, S, K, H] and "rows" [B, N, T].
    """
    params = plgpu.CompilerParams(num_warps=self.blocks.warps, num_stages=self.blocks.stages)
    return pl.pallas_call(
      partial(kernel, tiles=self, **static),
      grid=(self.count * self.heads * self.shape[0],),
      in_specs=[self._spec(kind, x.shape) for kind, x in arrays],
      out_specs=[self._spec(kind, x.shape) for kind, x in outputs],
      out_shape=[x for _, x in outputs],
      compiler_params=params,
      interpret=self.interpret,
      name=kernel.__name__.strip("_"),
    )(*(x for _, x in arrays))

  def _spec(self, kind, shape):
    """The whole of one head: on a GPU no more than an address, and the kernel loads from there."""
    _, length, heads, keys, key_heads = self.shape
    shared = 1 if self.by_keys else heads // key_heads
    group = None if self.group == 1 else self.group
    if kind == "rows":
      return pl.BlockSpec((None, group, length), lambda p: (*self.place(p)[:0:-1], 0))
    if kind == "queries":
      size = (None, length, group, shape[-1])
      return pl.BlockSpec(size, lambda p: (self.place(p)[2], 0, self.place(p)[1], 0))
    size = (None, keys, None, shape[-1])
    return pl.BlockSpec(size, lambda p: (self.place(p)[2], 0, lax.div(self.place(p)[1], shared), 0))


def _span(block, size, length):
  positions = block * size + jnp.arange(size)
  return pl.ds(block * size, size), None if length % size == 0 else positions < length


def load(part):
  """Loads a part of an array, with zeros where it lies outside."""
  ref, inside = part
  return plgpu.load(ref) if inside is None else plgpu.load(ref, mask=inside, other=0.0)


def store(part, x):
  """Stores x in a part of an array, where it lies inside, in the array's dtype."""
  ref, inside = part
  plgpu.store(ref, x.astype(ref.dtype), mask=inside)


def product(a, b, *, transpose_b=False):
  """Multiplies two tiles on the tensor cores in their own dtype, with a float32 sum.

  float32 tiles keep all their digits: the default of the compiler would cut them to TF32.
  """
  precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return lax.dot_general(
    a,
    b,
    (((1,), (1 if transpose_b else 0,)), ((), ())),
    precision=precision,
    preferred_element_type=jnp.float32,
  )


def row_shape(tiles):
  """Returns the shape of one float32 number a query and head."""
  batch, length, heads, _, _ = tiles.shape
  return jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)
