"""Softmax regression by Adam: the optimum, the protocol's steps, and many at once."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from rankbias.evaluate.softmax_regression import fit_adam

N, D, K = 120, 5, 3


def problem(seed=0, used=D):
  """Noisy classes, so that the optimum without decay is finite; features far from the origin."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(N, used)) @ rng.normal(size=(used, D))
  z = 0.5 * x @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))
  return (x + 4).astype("f4"), z.argmax(1).astype(np.int32)


def log_probs(probe, x):
  return log_softmax(np.asarray(probe(jnp.asarray(x))), axis=1)


def test_it_finds_the_optimum_of_softmax_regression():
  x, y = problem()
  probe = fit_adam(x, y, classes=K, epochs=2000, batch_size=N, learning_rate=0.1)
  best = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(x, y).predict_proba(x)
  np.testing.assert_allclose(np.exp(log_probs(probe, x)), best, atol=1e-3)


def test_a_step_of_adam_is_by_hand():
  """The first step goes by the learning rate against the sign of each derivative."""
  x, y = problem()
  probe = fit_adam(x, y, classes=K, epochs=1, batch_size=N, learning_rate=1e-3)
  wide = x.astype(float)
  scale = np.sqrt(np.mean((wide - wide.mean(0)) ** 2))
  z = (wide - wide.mean(0)) / scale
  residual = 1 / K - np.eye(K)[y]
  slope = z.T @ residual / N
  assert np.abs(slope).min() > 1e-4  # far above the epsilon of Adam
  np.testing.assert_allclose(probe.kernel * scale, -1e-3 * np.sign(slope), rtol=1e-3)
  np.testing.assert_allclose(probe.bias, -1e-3 * np.sign(residual.sum(0)), rtol=1e-3)
  np.testing.assert_allclose(probe.mean, wide.mean(0), rtol=1e-6)


def test_an_epoch_is_as_many_steps_as_whole_batches_fit():
  """Of one label alone every step lowers the other biases by the learning rate, about."""
  x = np.zeros((N, D), "f4")
  y = np.zeros(N, np.int32)
  for epochs, batch, steps in ((3, 50, 6), (1, 500, 1)):
    probe = fit_adam(x, y, classes=K, epochs=epochs, batch_size=batch, learning_rate=1e-3)
    np.testing.assert_allclose(probe.bias, np.array([1, -1, -1]) * 1e-3 * steps, rtol=1e-2)
    np.testing.assert_array_equal(probe.kernel, 0)


def test_units_of_the_features_change_nothing():
  x, y = problem()
  own = {"classes": K, "epochs": 3, "batch_size": 50, "learning_rate": 0.05}
  expected = log_probs(fit_adam(x, y, **own), x)
  assert np.ptp(expected) > 0.05
  for scale in (2.0**-30, 2.0**30):
    found = log_probs(fit_adam(x * np.float32(scale), y, **own), x * np.float32(scale))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_layers_and_members_under_vmap_are_as_one_by_one():
  """Two members with two layers each, one of them of rank 2."""
  xs = np.stack([[problem(seed, used)[0] for used in (D, 2)] for seed in (1, 2)])
  y = problem()[1]

  def fit(x):
    return fit_adam(x, y, classes=K, epochs=3, batch_size=50, learning_rate=0.01)

  together = jax.jit(jax.vmap(jax.vmap(fit)))(xs)
  one = jax.jit(fit)
  for m in range(2):
    for layer in range(2):
      for leaf, other in zip(one(xs[m, layer]), together, strict=True):
        np.testing.assert_allclose(other[m, layer], leaf, rtol=1e-4, atol=1e-6)


def test_batches_are_of_all_rows():
  """After many epochs of small batches every class has its share: none is left out of them."""
  y = np.repeat(np.arange(K), N // K).astype(np.int32)  # sorted, as data often are
  probe = fit_adam(
    np.zeros((N, D), "f4"), y, classes=K, epochs=60, batch_size=20, learning_rate=0.01
  )
  np.testing.assert_allclose(softmax(probe.bias), 1 / K, atol=0.02)
