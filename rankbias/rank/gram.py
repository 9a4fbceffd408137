"""The float64 Gram matrix of a float32 matrix, a block of rows at a time, and its eigenvalues."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.rank import lapack
from rankbias.rank.float64 import double_precision

# Measured with 20,000 x 512 on two cores. A block of rows is transposed once and stays in cache;
# tiles of the upper triangle save three eighths of the work, since the product is symmetric.
CPU_BLOCK = 512
CPU_TILE = 32
CPU_TILES = 4
# An accelerator wants few large products: this many entries of float64 at a time (256 MiB).
ACCELERATOR_ENTRIES = 2**25
# jax asks LAPACK for the eigenvectors too; from this size on, bisecting the tridiagonal form is
# faster on a CPU (measured: 12 against 22 ms at 512, 54 against 128 ms at 1024).
BISECTION_FROM = 384


def gram(x, shift=None):
  """Returns (x - shift)^T (x - shift) in float64 for x [n, d]; the copy in float64 is one block.

  The product of two float32 numbers is exact in float64, so only its sum is rounded.

  Args:
    x: float32 or float64.
    shift: a function (block in float64, index of its first row) -> block, or None.
  """
  with double_precision():
    n, d = x.shape
    if n == 0:
      return jnp.zeros((d, d), jnp.float64)
    rows = min(n, _block_rows(d))
    edges = _edges(d)

    def add(start, size, tiles):
      block = jax.lax.dynamic_slice_in_dim(x, start, size).astype(jnp.float64)
      block = block if shift is None else shift(block, start)
      turned = block.T
      return [
        tile + product(turned[a:b], block[:, a:])
        for tile, (a, b) in zip(tiles, pairwise(edges), strict=True)
      ]

    tiles = [jnp.zeros((b - a, d - a), jnp.float64) for a, b in pairwise(edges)]
    whole = n // rows
    starts = np.arange(whole, dtype=np.int32) * rows
    tiles, _ = jax.lax.scan(lambda tiles, i: (add(i, rows, tiles), None), tiles, starts)
    if whole * rows < n:
      tiles = add(whole * rows, n - whole * rows, tiles)
    return _mirror(tiles, edges)


def _mirror(tiles, edges):
  """Assembles the strips of the upper triangle into the symmetric matrix."""
  strips = [
    jnp.concatenate([jnp.zeros((b - a, a), jnp.float64), tile], axis=1)
    for tile, (a, b) in zip(tiles, pairwise(edges), strict=True)
  ]
  upper = jnp.concatenate(strips)
  row, column = np.indices(upper.shape, sparse=True)
  return jnp.where(row <= column, upper, upper.T)


def product(a, b):
  """Returns the matrix product a b in the dtype they share.

  jnp.dot also names it as the preferred dtype, and vmap asks for that again outside the context.
  """
  dimensions = (((1,), (0,)), ((), ()))
  return jax.lax.dot_general(a, b, dimensions, precision=jax.lax.Precision.HIGHEST)


def eigenvalues(matrix):
  """Returns the eigenvalues of a symmetric float64 matrix, ascending."""
  with double_precision():
    if jax.default_backend() != "cpu" or matrix.shape[-1] < BISECTION_FROM:
      return lapack.eigh(matrix)[1]
    diagonal, off_diagonal = lapack.tridiagonal(matrix)
    return jax.scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal, eigvals_only=True)


def _block_rows(d):
  return CPU_BLOCK if jax.default_backend() == "cpu" else max(1, ACCELERATOR_ENTRIES // max(d, 1))


def _edges(d):
  """Returns where the tiles of the upper triangle begin and end."""
  on_cpu = jax.default_backend() == "cpu"
  tiles = max(1, min(CPU_TILES, d // CPU_TILE)) if on_cpu else 1
  return [round(i * d / tiles) for i in range(tiles + 1)]
