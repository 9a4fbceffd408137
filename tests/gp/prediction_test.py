"""Predictions at other inputs: what is known, how surely, and what temperature does."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import gp, ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/logistic_softmax.npz")


@pytest.fixture
def predicted(toy, rbf):
  """Probabilities, latent means and variances at the centres of three clusters and far away."""
  x, labels, kernel = toy(3)
  angle = 2 * np.pi * np.arange(3) / 3
  new = np.concatenate([2 * np.stack([np.cos(angle), np.sin(angle)], 1), [[30.0, 30.0]]])
  cross, test = np.stack([rbf(x, new)] * 3), np.stack([rbf(new, new)] * 3)

  def predict(tau, prior_mean=0.0):
    state = gp.mean_field(kernel, labels, temperature=tau, prior_mean=prior_mean)
    mean, covariance = gp.posterior(state, kernel, cross, test, prior_mean=prior_mean)
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    key = jax.random.key(0)
    p = gp.predictive_probabilities(key, mean, variance, temperature=tau, num_samples=4000)
    return np.asarray(p), np.asarray(mean), np.asarray(variance)

  return predict


def test_clusters_are_told_apart_and_far_away_nothing_is_known(predicted):
  p, mean, variance = predicted(0.3, prior_mean=-0.5)
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-9)
  np.testing.assert_array_equal(p[:3].argmax(1), np.arange(3))
  assert p[:3].max(1).min() > 0.5
  np.testing.assert_allclose(p[3], 1 / 3, atol=0.03)
  np.testing.assert_allclose(mean[:, 3], -0.5, atol=1e-6)
  np.testing.assert_allclose(variance[:, 3], 1, rtol=1e-6)
  assert variance[:, :3].max() < 0.6


def test_a_lower_temperature_is_more_confident(predicted):
  sharp, usual, soft = (predicted(tau)[0][:3].max(1) for tau in (0.2, 1.0, 5.0))
  assert (sharp > usual + 0.05).all() and (usual > soft + 0.05).all()


def test_at_the_labelled_inputs_it_is_the_approximate_posterior(toy):
  _, labels, kernel = toy(3)
  kernel = kernel + 0.1 * np.eye(12)
  state = gp.mean_field(kernel, labels, prior_mean=-1.0, jitter=0.0)
  mean, covariance = gp.posterior(state, kernel, kernel, kernel, prior_mean=-1.0, jitter=0.0)
  np.testing.assert_allclose(mean, state.mean, rtol=1e-8)
  np.testing.assert_allclose(covariance, state.covariance, rtol=1e-7, atol=1e-9)


def test_probabilities_without_variance_are_the_logistic_softmax():
  """A variance that rounding left below zero counts as none."""
  f, variance = np.random.default_rng(0).normal(size=(4, 5)), np.full((4, 5), -1e-9)
  key = jax.random.key(0)
  found = gp.predictive_probabilities(key, f, variance, temperature=0.5, num_samples=3)
  np.testing.assert_allclose(found, ops.logistic_softmax(f, temperature=0.5, axis=0).T, atol=1e-5)


@pytest.mark.parametrize("tau", [0.2, 1])
def test_average_of_the_public_code_over_its_draws(tau, monkeypatch):
  """Of stored draws [samples, classes, inputs], value and gradient."""
  draws, cotangent = (jnp.asarray(GOLDEN[f"{k}/times7_C4_N5"]) for k in ("x", "cotangent"))
  monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: draws)

  def average(mean):
    variance = jnp.ones_like(mean)
    return gp.predictive_probabilities(None, mean, variance, temperature=tau, num_samples=7).T

  y, pull = jax.vjp(average, jnp.zeros(draws.shape[1:]))
  golden = f"montecarlo_average/tau{tau}/times7_C4_N5/f64"
  np.testing.assert_allclose(y, GOLDEN[f"{golden}/y"], rtol=0, atol=1e-10)
  # A mean moves all its draws.
  expected = GOLDEN[f"{golden}/grad_x"].sum(0)
  np.testing.assert_allclose(pull(cotangent)[0], expected, rtol=0, atol=1e-10)


def test_far_below_zero_the_likelihood_is_the_softmax():
  mean, variance = np.array([[-40.0], [-41.0]]), np.ones((2, 1))
  key = jax.random.key(0)
  found = gp.predictive_probabilities(key, mean, variance, num_samples=50)
  draws = mean + np.asarray(jax.random.normal(key, (50, 2, 1)))
  np.testing.assert_allclose(found[0], ops.softmax(draws, axis=1).mean(0)[:, 0], rtol=1e-9)
