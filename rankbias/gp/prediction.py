"""Predictions at other inputs: latent means and covariances, and class probabilities."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from rankbias.gp.algebra import factorize, solve, solve_vector, times, transpose, whiten
from rankbias.gp.factors import Kernel, MeanField, Scalar
from rankbias.ops import logistic_softmax


def posterior(
  state: MeanField,
  kernel: Kernel,
  cross: Float[ArrayLike, "classes n m"],
  test: Float[ArrayLike, "classes m m"],
  *,
  prior_mean: Scalar = 0.0,
  jitter: Scalar = 1e-6,
) -> tuple[Float[Array, "classes m"], Float[Array, "classes m m"]]:
  """Returns mean and covariance of the latent functions at m other inputs.

      a + K_x^T K^-1 (mean - a)        K_xx - K_x^T (K^-1 - K^-1 covariance K^-1) K_x

  Args:
    cross: K_x, the kernel between the n labelled and the m other inputs.
    test: K_xx, the kernel among the other inputs.

  The other arguments are those of `mean_field`.

  Example: posterior(mean_field_init(K, labels), K, K_cross, K_test) is the prior, (0, K_test).
  Source: Ke et al. 2023, arXiv:2310.10379.
  """
  factor = factorize(jnp.asarray(kernel), jitter)
  projected = solve(factor, jnp.asarray(cross))
  mean = prior_mean + times(transpose(projected), solve_vector(factor, state.mean - prior_mean))
  known = projected - whiten(factor, state.covariance) @ projected
  return mean, test - transpose(projected) @ known


def predictive_probabilities(
  key: Array,
  mean: Float[ArrayLike, "classes m"],
  variance: Float[ArrayLike, "classes m"],
  *,
  temperature: Scalar = 1.0,
  num_samples: int = 1000,
) -> Float[Array, "m classes"]:
  """Averages the logistic-softmax over draws of the latent functions.

  The probabilities at one input depend on the variances there and not on covariances between
  inputs, so the draws are independent: pass `jnp.diagonal(covariance, axis1=1, axis2=2)`. The error
  falls as 1 / sqrt(num_samples).

  Example: predictive_probabilities(key, zeros((2, 1)), zeros((2, 1))) is [[.5, .5]].
  Source: Ke et al. 2023, arXiv:2310.10379.
  """
  mean, variance = jnp.asarray(mean), jnp.asarray(variance)
  deviation = jnp.sqrt(jnp.maximum(variance, 1e-12))  # rounding may leave a variance below 0
  noise = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
  latent = mean[None] + deviation[None] * noise
  return logistic_softmax(latent, temperature=temperature, axis=1).mean(0).T
