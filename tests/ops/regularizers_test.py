"""Loss terms on the output matrix: closed forms, gradients, degenerate rows, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3))


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def test_mean_cosine_is_the_mean_over_pairs():
  units = X / np.linalg.norm(X, axis=1, keepdims=True)
  cosines = units @ units.T
  expected = cosines[~np.eye(8, dtype=bool)].mean()
  np.testing.assert_allclose(ops.mean_cosine(X), expected, rtol=1e-12)
  np.testing.assert_allclose(ops.mean_cosine(X * 10.0 ** RNG.uniform(-200, 200, (8, 1))), expected)


def test_mean_cosine_of_extreme_matrices():
  simplex = np.eye(4) - 0.25
  np.testing.assert_allclose(ops.mean_cosine(simplex), -1 / 3, rtol=1e-12)
  np.testing.assert_allclose(ops.mean_cosine(np.ones((5, 2))), 1.0, rtol=1e-12)
  assert ops.mean_cosine(jnp.ones((5, 2), jnp.bfloat16)).dtype == jnp.bfloat16


def test_rows_of_zeros_are_not_counted_and_get_no_gradient():
  with_zeros = np.concatenate([X, np.zeros((2, 3))])
  np.testing.assert_allclose(ops.mean_cosine(with_zeros), ops.mean_cosine(X), rtol=1e-12)
  gradient = jax.jit(jax.grad(ops.mean_cosine))(with_zeros)
  assert np.isfinite(gradient).all() and (gradient[8:] == 0).all()
  assert np.abs(gradient[:8]).min() > 0
  for few in (np.zeros((3, 2)), np.eye(1, 2)):
    assert ops.mean_cosine(few) == 0
    assert (jax.jit(jax.grad(ops.mean_cosine))(few) == 0).all()


def test_spectrum_control_by_its_norms():
  left, values, right = RNG.normal(size=(8, 3)), RNG.normal(size=3), RNG.normal(size=(5, 3))
  target = np.array([3.0, 2.0, 1.0])
  excess = [u.T @ u - np.eye(3) for u in (left, right)]
  out = ops.spectrum_control(left, values, right, target, frobenius=0.1, spectral=0.2, distance=0.3)
  expected = 0.1 * sum(np.linalg.norm(e) ** 2 for e in excess)
  expected += 0.2 * sum(np.linalg.norm(e, 2) for e in excess)
  expected += 0.3 * np.linalg.norm(values - target) ** 2
  np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_spectrum_control_vanishes_where_it_should_and_its_gradient_is_finite():
  u, s, vt = np.linalg.svd(X, full_matrices=False)

  @jax.jit
  def both(*factors):
    def loss(factors):
      return ops.spectrum_control(*factors, s, spectral=1.0)

    return jax.value_and_grad(loss)(factors)

  value, gradients = both(u, s, vt.T)
  assert abs(value) < 1e-14
  assert all(np.isfinite(g).all() for g in gradients)
  value, gradients = both(np.eye(4, 3), s, np.eye(3))  # exactly zero excess
  assert value == 0 and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (4, 4)])
def test_orthogonality_is_the_mean_over_singular_values(shape):
  w = RNG.normal(size=shape)
  s = np.linalg.svd(w, compute_uv=False)
  np.testing.assert_allclose(ops.orthogonality(w), np.mean((s**2 - 1) ** 2), rtol=1e-12)
  np.testing.assert_allclose(ops.orthogonality(2 * np.linalg.qr(w)[0]), 9.0, rtol=1e-12)
  np.testing.assert_allclose(ops.orthogonality(np.zeros(shape)), 1.0)
  assert ops.orthogonality(jnp.ones(shape, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_spectrum_spread_is_that_of_the_singular_values(shape):
  w = RNG.normal(size=shape)
  s = np.linalg.svd(w, compute_uv=False)
  np.testing.assert_allclose(ops.spectrum_spread(w), 3 * s.var(), rtol=1e-12)
  np.testing.assert_allclose(ops.spectrum_spread(np.eye(*shape) * 5), 0, atol=1e-20)
  assert ops.spectrum_spread(jnp.ones(shape, jnp.bfloat16)).dtype == jnp.bfloat16
  for degenerate in (np.zeros(shape), np.ones(shape), np.eye(*shape)):
    assert np.isfinite(jax.jit(jax.grad(ops.spectrum_spread))(degenerate)).all()


def test_gradients():
  check_grads(jax.jit(ops.orthogonality), (X,), order=1, modes=["rev"])
  check_grads(jax.jit(ops.spectrum_spread), (X,), order=1, modes=["rev"])
  check_grads(jax.jit(ops.mean_cosine), (X,), order=1, modes=["rev"])

  @jax.jit
  def control(left, values, right):
    return ops.spectrum_control(left, values, right, np.ones(3), spectral=0.5)

  check_grads(control, (X, RNG.normal(size=3), RNG.normal(size=(5, 3))), order=1, modes=["rev"])


def test_a_target_of_another_length_is_refused():
  with pytest.raises(
    ValueError, match=r"target of shape \(2,\) does not fit values of shape \(3,\)"
  ):
    ops.spectrum_control(X, np.ones(3), X, np.ones(2))
