"""The evidence lower bound: how good an approximate posterior is, and a kernel with it."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, xlogy
from jaxtyping import Array, Float

from rankbias.gp.algebra import factorize, solve_vector, variances, whiten
from rankbias.gp.factors import Kernel, Labels, MeanField, Scalar, log_two_cosh, omega_of, prepare


def elbo(
  state: MeanField,
  kernel: Kernel,
  labels: Labels,
  *,
  temperature: Scalar = 1.0,
  prior_mean: Scalar = 0.0,
  jitter: Scalar = 1e-6,
) -> Float[Array, ""]:
  """Computes the evidence lower bound of a state, in nats: at most log p(labels).

      sum_ci (y - gamma) mean / (2 tau) - (y + gamma) log(2 cosh(tilt / 2))
             + omega (tilt^2 - (mean^2 + variance) / tau^2) / 2
             + gamma (psi(alpha) - log C - log gamma + 1)
    + sum_i  lgamma(alpha) + (1 - alpha) psi(alpha) - log C  -  sum_c KL(q(f_c) || N(a, K_c))

  with omega that of gamma and tilt. It is a bound at every state, not at fixed points alone, and
  for every kernel and temperature: what to maximise over their parameters. Arguments are those of
  `mean_field`.

  The published training loss differs from minus this: it adds sum_i alpha (1 - 1 / C) and drops the
  line of omega and constants, so that it is no bound, and need not rise.

  Raises:
    ValueError: as `mean_field`.

  Example: with K = ones((2, 1, 1)), one input of label 0, elbo(mean_field(K, [0]), K, [0]) is
  -1.0985; log p(labels) is log .5 = -.6931.
  Source: the model of Galy-Fajou et al. 2019, arXiv:1905.09670, with f / tau in place of f.
  """
  kernel, targets = prepare(kernel, labels, temperature)
  return _elbo(state, kernel, targets, temperature, prior_mean, jitter)


@jax.jit
def _elbo(state, kernel, targets, temperature, prior_mean, jitter):
  mean, covariance, gamma, alpha, tilt, _ = state
  psi, log_classes = digamma(alpha), math.log(len(mean))
  moment = (mean**2 + variances(covariance)) / temperature**2
  data = (targets - gamma) * mean / (2 * temperature) - (targets + gamma) * log_two_cosh(tilt / 2)
  data += omega_of(targets, gamma, tilt) * (tilt**2 - moment) / 2
  counts = gamma * (psi[None] - log_classes + 1) - xlogy(gamma, gamma)
  rates = gammaln(alpha) + (1 - alpha) * psi - log_classes
  divergence = _divergence(mean - prior_mean, covariance, factorize(kernel, jitter))
  return jnp.sum(data) + jnp.sum(counts) + jnp.sum(rates) - divergence


def _divergence(shift, covariance, factor):
  """Computes sum_c KL(N(shift, covariance) || N(0, L L^T))."""
  relative = whiten(factor, covariance)
  distance = solve_vector(factor, shift)
  half_log_determinants = jnp.log(variances(jnp.linalg.cholesky(relative)))
  return jnp.sum(variances(relative) + distance**2 - 1) / 2 - jnp.sum(half_log_determinants)
