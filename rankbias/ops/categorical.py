"""Draws from unnormalised probabilities by inverting their cumulative sum."""

import jax.numpy as jnp

from rankbias.ops.rows import row_maximum


def draw(uniform, log_mass):
  """Returns one index per uniform number in [0, 1): i with probability ~ exp(log_mass_i).

  One random number a draw, where the Gumbel trick needs one per entry. An entry of -inf is never
  drawn, although the cumulative sum may step there by a rounding error; a row of them returns 0.

  Args:
    uniform: shape [..., n].
    log_mass: shape [..., 1 or n, k], of the same rank plus one.
  """
  mass = jnp.exp(log_mass - row_maximum(log_mass, -1))
  below = jnp.cumsum(mass, -1)
  passed = below > uniform[..., None] * below[..., -1:]
  place = jnp.arange(mass.shape[-1]).reshape((1,) * (mass.ndim - 1) + (-1,))
  # The first entry with mass whose sum passes; the last one with mass where rounding hides it.
  rank = jnp.where(passed, 2 * mass.shape[-1] - place, place)
  return jnp.argmax(jnp.where(mass > 0, rank, -1), -1)


def log_sum_exp(x):
  """Computes log sum exp over the last axis; -inf without gradient for a row of -inf."""
  top = row_maximum(x, -1)
  total = jnp.sum(jnp.exp(x - top), -1)
  return jnp.where(total == 0, -jnp.inf, top[..., 0] + jnp.log(jnp.where(total == 0, 1, total)))
