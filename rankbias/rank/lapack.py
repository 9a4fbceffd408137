"""Matrix factorisations that stay one at a time under vmap on a CPU.

jaxlib spreads a batched LAPACK call over XLA's pool of threads and blocks one of them until the
batch is done (seen in jaxlib 0.10 and 0.11): as many independent batched calls as there are threads
wait for each other for ever. Unbatched calls do not, and LAPACK gains nothing from the batch. So
vmap of the functions here is a loop on a CPU and the usual batch elsewhere.
"""

from collections.abc import Callable
from functools import wraps

import jax
import jax.numpy as jnp

from rankbias.rank.float64 import double_precision


def one_at_a_time(factorise: Callable) -> Callable:
  """Wraps a function of one matrix so that vmap runs it in a loop on a CPU."""
  mapped = jax.custom_batching.custom_vmap(factorise)

  @mapped.def_vmap
  def batch(size, batched, matrix):
    del size, batched  # the only argument is the batched one
    with double_precision():  # keeps the dtype of float64 matrices; float32 ones stay float32
      if jax.default_backend() != "cpu":
        out = jax.vmap(factorise)(matrix)
      else:
        out = jax.lax.map(mapped, matrix)
    return out, jax.tree.map(lambda _: True, out)

  return wraps(factorise)(mapped)


@one_at_a_time
def eigh(matrix):
  """Returns eigenvectors in columns and ascending eigenvalues of a symmetric matrix."""
  vectors, values = jax.lax.linalg.eigh(matrix, symmetrize_input=False)
  return vectors, values


@one_at_a_time
def tridiagonal(matrix):
  """Returns the diagonal and the off-diagonal of a tridiagonal matrix of the same eigenvalues."""
  _, diagonal, off_diagonal, _ = jax.lax.linalg.tridiagonal(matrix, lower=True)
  return diagonal, off_diagonal


@one_at_a_time
def svd(matrix):
  """Returns (u [n, k], sigma [k], v^T [k, d])."""
  left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
  return left, values, right


@one_at_a_time
def svdvals(matrix):
  """Returns the singular values alone."""
  # full_matrices=False although no vector is asked for: jax would reserve n x n numbers for them.
  return jnp.linalg.svd(matrix, full_matrices=False, compute_uv=False)


@one_at_a_time
def triangle(matrix):
  """Returns the factor R of the QR factorisation."""
  return jnp.linalg.qr(matrix, mode="r")
