"""The factors of the approximate posterior, the equations of the scalar ones, and their inputs."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import ArrayLike, Float, Int

from rankbias.gp.algebra import variances
from rankbias.ops.rows import checked

Kernel = Float[ArrayLike, "classes n n"]
Labels = Int[ArrayLike, "n"]
Scalar = Float[ArrayLike, ""]


class MeanField(NamedTuple):
  """The approximate posterior q(f) q(l) q(m, w) of the model in `rankbias.gp`.

  Attributes:
    mean, covariance: of q(f), [C, n] and [C, n, n].
    gamma: rates of the Poisson counts m, [C, n].
    alpha: shapes of the Gamma variables l, [n].
    tilt: tilting of the Polya-Gamma variables w, [C, n].
    omega: their expectation, [C, n].
  """

  mean: Any
  covariance: Any
  gamma: Any
  alpha: Any
  tilt: Any
  omega: Any


def tilt_of(mean, covariance, temperature):
  """Computes sqrt(E f^2) / tau, never 0, where a root has no derivative."""
  moment = mean**2 + variances(covariance)
  return jnp.sqrt(jnp.maximum(moment, 1e-12)) / temperature


def gamma_of(mean, tilt, alpha, temperature):
  """Computes exp(psi(alpha) - mean / (2 tau)) / (2 C cosh(tilt / 2)).

  In logarithms: since tilt >= |mean| / tau, the exponent is at most psi(alpha) - log C.
  """
  scale = digamma(alpha)[None] - math.log(len(mean))
  return jnp.exp(scale - mean / (2 * temperature) - log_two_cosh(tilt / 2))


def omega_of(targets, gamma, tilt):
  """Computes (y + gamma) tanh(tilt / 2) / (2 tilt)."""
  return (targets + gamma) * jnp.tanh(tilt / 2) / (2 * tilt)


def log_two_cosh(x):
  """Computes log(2 cosh x) = log(exp(x) + exp(-x)), which does not overflow."""
  return jnp.logaddexp(x, -x)


def prepare(kernel, labels, temperature):
  """Returns the kernel in float32 or wider and one-hot labels [C, n]; raises for misfits."""
  kernel, labels = jnp.asarray(kernel), jnp.asarray(labels)
  if kernel.ndim != 3 or kernel.shape[1:] != labels.shape * 2:
    raise ValueError(
      f"kernel of shape {kernel.shape} with labels of shape {labels.shape}: give [classes, n, n], "
      "one matrix per class (jnp.broadcast_to repeats a shared one), and [n]"
    )
  classes = len(kernel)
  checked("labels", labels, lambda y: (y >= 0) & (y < classes), f"must lie in 0..{classes - 1}")
  checked("temperature", temperature, lambda t: t > 0, "must be positive: it divides the latents")
  kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
  return kernel, jax.nn.one_hot(labels, classes, dtype=kernel.dtype, axis=0)
