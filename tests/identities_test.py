"""Exact statements about softmax and rank: the small-norm limit, the curve of rank, the circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from rankbias import ops, rank


def spectrum_of_softmax(logits, temperature=1.0):
  """Returns the singular values of P [classes, samples], the softmax over the classes."""
  return rank.singular_values(ops.softmax(logits, temperature=temperature, axis=0))


@pytest.mark.parametrize("temperature", [10.0, 100.0, 1000.0])
def test_small_norm_limit_of_the_softmax_spectrum(temperature):
  # P = (1 1^T + Zc / T) / C + O(|Z / T|^2): sigma_1 -> sqrt(n / C), the others follow Zc / (C T),
  # so that sigma_2 / sigma_1 -> |Zc|_2 / (T sqrt(n C)).
  classes, samples = 100, 2000
  z = np.random.default_rng(0).normal(size=(classes, samples)).astype(np.float32)
  values = np.asarray(spectrum_of_softmax(z, temperature))
  centered = np.asarray(rank.singular_values(z, center=True))  # minus the mean over the classes
  ratio = centered[0] / (temperature * np.sqrt(samples * classes))
  second_order = 2 / temperature
  assert values[0] == pytest.approx(np.sqrt(samples / classes), rel=second_order**2)
  assert values[1] / values[0] == pytest.approx(ratio, rel=second_order)
  np.testing.assert_allclose(values[1:40], centered[:39] / temperature / classes, rtol=second_order)
  # Below the tolerance nothing but the constant direction is left.
  assert rank.numerical_rank(values, rtol=min(0.9, 1.2 * ratio)) == 1
  assert rank.numerical_rank(values, rtol=0.8 * ratio) > 1


SCALES = np.array([1e-3, 1e-2, 0.1, 1, 3, 10, 100, 1e3, 1e5])


def rank_curve(weights, features):
  logits = jnp.asarray(weights @ features, jnp.float32)
  return [int(rank.numerical_rank(spectrum_of_softmax(logits * a))) for a in SCALES]


def test_random_rank_2_logits_rank_rises_and_falls_to_the_classes_that_can_win():
  rng = np.random.default_rng(0)
  weights, features = rng.normal(size=(100, 2)), rng.normal(size=(2, 2000)) / np.sqrt(2)
  assert rank.numerical_rank(rank.singular_values((weights @ features).astype(np.float32))) == 2
  curve = rank_curve(weights, features)
  winners = len(np.unique((weights @ features).argmax(0)))
  assert curve[0] == 1  # the constant direction
  peak = int(np.argmax(curve))
  assert (np.diff(curve[: peak + 1]) >= 0).all() and (np.diff(curve[peak:]) <= 0).all()
  # Only classes on the convex hull can be the arg max, so that the limit is far below the peak.
  hull = scipy.spatial.ConvexHull(weights).vertices
  assert curve[-1] == winners <= len(hull) < curve[peak] / 2


@pytest.mark.parametrize("dimension", [5, 10])
def test_the_limit_is_the_number_of_distinct_arg_max_classes(dimension):
  rng = np.random.default_rng(dimension)
  weights, features = rng.normal(size=(100, dimension)), rng.normal(size=(dimension, 2000))
  winners = len(np.unique((weights @ features).argmax(0)))
  assert rank_curve(weights, features)[-1] == winners < 100


def circle(classes):
  angles = 2 * np.pi * np.arange(classes) / classes
  return np.stack([np.cos(angles), np.sin(angles)], -1)


def test_where_every_class_can_win_the_curve_only_rises():
  features = np.random.default_rng(0).normal(size=(2, 2000)) / np.sqrt(2)
  curve = rank_curve(circle(100), features)
  assert (np.diff(curve) >= 0).all() and curve[0] == 1 and curve[-1] == 100


@pytest.mark.parametrize(("classes", "scale"), [(10, 4.26), (100, 398.0), (1000, 3.98e4)])
def test_rank_2_logits_fit_any_labels(classes, scale):
  # w_c on a circle, h_i = s w_{y_i}: the margin is s (1 - cos(2 pi / C)), about 2 pi^2 s / C^2, and
  # the norm that reaches p_y = 1/2 grows as C^2. Low rank is paid in the norm of the logits.
  labels = np.random.default_rng(0).integers(0, classes, size=300)
  with jax.enable_x64(True):
    weights = jnp.asarray(circle(classes))
    logits = scale * weights[labels] @ weights.T
    assert rank.numerical_rank(rank.singular_values(logits), rtol=1e-12) == 2
    assert (jnp.argmax(logits, -1) == labels).all()
    confidence = ops.softmax(logits)[np.arange(300), labels]
    np.testing.assert_allclose(confidence, 0.5, atol=2e-3)
    assert (ops.cross_entropy(100 * logits, labels) < 1e-3).all()


def test_at_high_temperature_the_first_step_is_that_of_class_means():
  # T grad_W -> (1/n) (1 1^T / C - Y) A^T whatever the weights are, at a distance of O(1 / T): the
  # gradient itself falls as 1 / T, and its rank is that of the means of the classes.
  rng = np.random.default_rng(0)
  samples, classes, labels = 60, 5, rng.integers(0, 5, size=60)
  with jax.enable_x64(True):
    features, kernel = jnp.asarray(rng.normal(size=(60, 12))), jnp.asarray(rng.normal(size=(12, 5)))

    @jax.jit
    def gradient(temperature):
      def loss(kernel):
        return ops.cross_entropy(features @ kernel, labels, temperature=temperature).mean()

      return jax.grad(loss)(kernel)

    limit = features.T @ (1 / classes - np.eye(classes)[labels]) / samples
    far = [
      float(jnp.linalg.norm(t * gradient(t) - limit) / jnp.linalg.norm(limit))
      for t in (1e2, 1e3, 1e4)
    ]
    assert far[0] < 0.1 and np.allclose(far[:-1], 10 * np.array(far[1:]), rtol=0.05)
    spectrum = rank.singular_values(gradient(1e4), method="svd")
    assert rank.numerical_rank(spectrum, rtol=1e-10) == classes - 1
