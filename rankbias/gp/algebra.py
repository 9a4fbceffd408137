"""Batches of matrices, one per class: triangular systems and a kernel's factors."""

import jax
import jax.numpy as jnp


def factorize(kernel, jitter):
  """Computes lower triangular L with L L^T = kernel + jitter I."""
  return jnp.linalg.cholesky(with_diagonal(kernel, jitter))


def with_diagonal(matrix, value):
  """Computes matrix + value I."""
  return matrix + value * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)[None]


def solve(factor, right):
  """Computes L^-1 right, for right [C, n, k]."""
  return jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)


def solve_vector(factor, right):
  """Computes L^-1 right, for right [C, n]."""
  return solve(factor, right[..., None])[..., 0]


def whiten(factor, covariance):
  """Computes L^-1 covariance L^-T, a posterior covariance in units of the prior's.

  Symmetric, and well conditioned also where the kernel is nearly singular.
  """
  whole = solve(factor, transpose(solve(factor, covariance)))
  return (whole + transpose(whole)) / 2


def transpose(matrix):
  """Swaps the last two axes."""
  return jnp.swapaxes(matrix, -1, -2)


def times(matrix, vector):
  """Multiplies [C, m, n] by [C, n]."""
  return (matrix @ vector[..., None])[..., 0]


def variances(covariance):
  """The diagonals, [C, n]."""
  return jnp.diagonal(covariance, axis1=1, axis2=2)
