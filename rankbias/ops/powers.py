"""Powers of weights, exactly zero at zero in value and derivative, and quick where they can be."""

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def root(weights, exponent):
  """Returns p^c for 0 < c < 1, by square roots where c is a multiple of 1/4; no select."""
  half = jnp.sqrt(weights)
  roots = {0.5: half, 0.25: jnp.sqrt(half), 0.75: half * jnp.sqrt(half)}
  return roots[exponent] if exponent in roots else jnp.exp(exponent * jnp.log(weights))


@root.defjvp
def _root_jvp(exponent, primals, tangents):
  value = root(*primals, exponent)
  return value, exponent * value / jnp.where(primals[0] > 0, primals[0], 1) * tangents[0]


@jax.custom_jvp
def power(weights, exponent):
  """Returns p^c on the support and 0 off it, whatever the sign of c."""
  return jnp.where(weights > 0, jnp.exp(exponent * jnp.log(weights)), 0)


@power.defjvp
def _power_jvp(primals, tangents):
  (weights, exponent), (d_weights, d_exponent) = primals, tangents
  value = power(weights, exponent)
  safe = jnp.where(weights > 0, weights, 1)
  return value, value * (exponent * d_weights / safe + jnp.log(safe) * d_exponent)
