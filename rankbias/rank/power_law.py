"""How fast a spectrum decays: the exponent of the power law that fits its eigenvalues."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.rank.spectrum import working_dtype


class PowerLaw(NamedTuple):
  """lambda_i = exp(intercept) i^(-alpha), and the share of the variance of log lambda it fits."""

  alpha: Float[Array, "*batch"]
  intercept: Float[Array, "*batch"]
  r_squared: Float[Array, "*batch"]


def alpha_req(
  singular_values: Real[ArrayLike, "*batch k"], *, start: int = 11, stop: int = 100
) -> Float[Array, "*batch"]:
  """Computes the exponent with which the eigenvalues lambda_i = sigma_i^2 decay.

  The alpha of `power_law`; 1 is the edge of smoothness, and more decays faster. Published for the
  spectrum of a centred matrix: `singular_values(x, center=True)`.

  Example: alpha_req(arange(1, 200) ** -.5) is 1.
  Source: Stringer et al. 2019, doi:10.1038/s41586-019-1346-5; Agrawal et al. 2022,
  arXiv:2202.05808.
  """
  return power_law(singular_values, start=start, stop=stop).alpha


def power_law(
  singular_values: Real[ArrayLike, "*batch k"], *, start: int = 11, stop: int = 100
) -> PowerLaw:
  """Fits a power law to the eigenvalues lambda_i = sigma_i^2, largest first.

  Least squares of log lambda_i on log i with weights 1 / i, which weigh every octave alike, over
  ranks i = start..stop (from 1, both included, as far as there are any). r_squared is that of the
  weighted fit. Singular values of 0 have no logarithm and are left out; fewer than two of the
  others give NaN, and so does a spectrum that is not finite.

  Raises:
    ValueError: not 1 <= start < stop.

  Example: power_law(2 * arange(1, 200) ** -.5) has alpha 1, intercept log 4 = 1.3863, r_squared 1.
  Source: Stringer et al. 2019, doi:10.1038/s41586-019-1346-5.
  """
  if not 1 <= start < stop:
    raise ValueError(f"start = {start} and stop = {stop} are ranks: take 1 <= start < stop.")
  return _power_law(singular_values, start=start, stop=stop)


@partial(jax.jit, static_argnames=("start", "stop"))
def _power_law(singular_values, *, start, stop):
  values = jnp.asarray(singular_values)
  values = values.astype(working_dtype(values.dtype))
  finite = jnp.all(jnp.isfinite(values), -1)
  values = values[..., start - 1 : stop]
  ranks = jnp.broadcast_to(
    jnp.arange(start, start + values.shape[-1], dtype=values.dtype), values.shape
  )
  used = values > 0
  weights = jnp.where(used, 1 / ranks, 0)
  weights = weights / jnp.sum(weights, -1, keepdims=True)

  def mean(a):
    return jnp.sum(weights * a, -1, keepdims=True)

  x, y = jnp.log(ranks), 2 * jnp.log(jnp.where(used, values, 1))
  dx, dy = x - mean(x), y - mean(y)
  fits = finite[..., None] & (jnp.sum(used, -1, keepdims=True) > 1)
  slope = jnp.where(fits, mean(dx * dy) / mean(dx**2), jnp.nan)
  intercept = mean(y) - slope * mean(x)
  r_squared = 1 - mean((dy - slope * dx) ** 2) / mean(dy**2)
  return PowerLaw(-slope[..., 0], intercept[..., 0], r_squared[..., 0])
