"""The approximate posterior of the latent functions: where it starts, one update, and many."""

from functools import partial

import jax
import jax.numpy as jnp

from rankbias.gp.algebra import factorize, solve, times, transpose, with_diagonal
from rankbias.gp.factors import (
  Kernel,
  Labels,
  MeanField,
  Scalar,
  gamma_of,
  omega_of,
  prepare,
  tilt_of,
)


def mean_field(
  kernel: Kernel,
  labels: Labels,
  *,
  temperature: Scalar = 1.0,
  num_steps: int = 30,
  prior_mean: Scalar = 0.0,
  state: MeanField | None = None,
  jitter: Scalar = 1e-6,
  lagged: bool = True,
  stop_gradient: bool = False,
) -> MeanField:
  """Approximates the posterior by `num_steps` steps of `mean_field_update`.

  Args:
    kernel: K, one positive definite matrix per class over the n labelled inputs.
    labels: classes 0 .. C - 1 of the n inputs.
    temperature: tau > 0. A low one makes the predictions of the prior confident.
    prior_mean: a. A low one brings the likelihood close to the softmax.
    state: where to start; None is `mean_field_init`.
    jitter: added to the diagonal of K.

  Raises:
    ValueError: shapes do not fit, a label is no class, temperature is not positive.

  Example: posterior(mean_field(K, labels), K, K_cross, K_test) predicts f at other inputs.
  Source: Ke et al. 2023, arXiv:2310.10379.
  """
  model = {"temperature": temperature, "prior_mean": prior_mean, "jitter": jitter}
  if state is None:
    state = mean_field_init(kernel, labels, **model)
  kernel, targets = prepare(kernel, labels, temperature)
  options = {"num_steps": num_steps, "lagged": lagged, "stop_gradient": stop_gradient}
  return _mean_field(state, kernel, targets, **model, **options)


def mean_field_init(
  kernel: Kernel,
  labels: Labels,
  *,
  temperature: Scalar = 1.0,
  prior_mean: Scalar = 0.0,
  jitter: Scalar = 1e-6,
) -> MeanField:
  """Returns the state in which q(f) is the prior and the other factors follow from it.

  Nothing is random, unlike in the published code. Arguments are those of `mean_field`.

  Raises:
    ValueError: as `mean_field`.

  Example: mean_field_init(K, labels, prior_mean=-1.0).mean is -1 everywhere.
  Source: Ke et al. 2023, arXiv:2310.10379; this start is our own.
  """
  kernel, targets = prepare(kernel, labels, temperature)
  covariance = with_diagonal(kernel, jitter)
  mean = jnp.full(targets.shape, prior_mean, kernel.dtype)
  tilt = tilt_of(mean, covariance, temperature)
  # alpha = 1.5 nearly solves the equations of gamma and alpha at f = 0.
  gamma = gamma_of(mean, tilt, jnp.full(targets.shape[1], 1.5, kernel.dtype), temperature)
  omega = omega_of(targets, gamma, tilt)
  return MeanField(mean, covariance, gamma, 1 + gamma.sum(0), tilt, omega)


def mean_field_update(
  state: MeanField,
  kernel: Kernel,
  labels: Labels,
  *,
  temperature: Scalar = 1.0,
  prior_mean: Scalar = 0.0,
  jitter: Scalar = 1e-6,
  lagged: bool = True,
  stop_gradient: bool = False,
) -> MeanField:
  """Updates every factor once, in this order.

      tilt       = sqrt(mean^2 + diag(covariance)) / tau
      gamma      = exp(psi(alpha) - mean / (2 tau)) / (2 C cosh(tilt / 2))
      alpha      = 1 + sum_c gamma
      covariance = (K^-1 + W)^-1,   W = diag(omega) / tau^2
      mean       = covariance ((y - gamma) / (2 tau) + K^-1 a)
      omega      = (y + gamma) tanh(tilt / 2) / (2 tilt)

  K is never inverted: with K = L L^T, covariance = L (I + L^T W L)^-1 L^T and
  mean = a + covariance ((y - gamma) / (2 tau) - W a).

  Args:
    lagged: W is that of the previous step, as published; `elbo` can then fall on the way from an
      arbitrary state (it was not seen to from `mean_field_init`). False takes omega before
      covariance: coordinate ascent, under which `elbo` never falls, to the same fixed points and in
      about a quarter fewer steps.
    stop_gradient: True takes tilt for a constant in derivatives, as the published training does.

  The other arguments are those of `mean_field`.

  Raises:
    ValueError: as `mean_field`.

  Example: with K = ones((2, 1, 1)), mean_field_update(mean_field_init(K, [0]), K, [0]).mean is
  [[.3032], [-.1051]]: the latent of the right class has risen.
  Source: Ke et al. 2023, arXiv:2310.10379.
  """
  kernel, targets = prepare(kernel, labels, temperature)
  factor = factorize(kernel, jitter)
  return _update(state, factor, targets, temperature, prior_mean, lagged, stop_gradient)


@partial(jax.jit, static_argnames=("num_steps", "lagged", "stop_gradient"))
def _mean_field(
  state, kernel, targets, *, temperature, prior_mean, jitter, num_steps, lagged, stop_gradient
):
  factor = factorize(kernel, jitter)

  def step(state, _):
    new = _update(state, factor, targets, temperature, prior_mean, lagged, stop_gradient)
    return new, None

  return jax.lax.scan(step, state, length=num_steps)[0]


def _update(state, factor, targets, temperature, prior_mean, lagged, stop_gradient):
  seen = state.mean, state.covariance
  tilt = tilt_of(*(jax.lax.stop_gradient(seen) if stop_gradient else seen), temperature)
  gamma = gamma_of(state.mean, tilt, state.alpha, temperature)
  omega = omega_of(targets, gamma, tilt)
  weights = (state.omega if lagged else omega) / temperature**2
  inner = transpose(factor) @ (weights[:, :, None] * factor)
  root = solve(factorize(inner, 1), transpose(factor))
  covariance = transpose(root) @ root
  pull = (targets - gamma) / (2 * temperature) - weights * prior_mean
  mean = prior_mean + times(covariance, pull)
  return MeanField(mean, covariance, gamma, 1 + gamma.sum(0), tilt, omega)
