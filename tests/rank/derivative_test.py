"""Tests of the derivative of singular values: numerically, at zeros and at ties."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import rank

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/rank.npz")
CASES = [key.removeprefix("x/") for key in GOLDEN.files if key.startswith("x/")]
METHODS = ["gram", "qr", "svd"]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
@pytest.mark.parametrize("center", [False, True])
def test_derivative_numerically(shape, center, method):
  weights = np.arange(1.0, min(shape) + 1)[::-1]
  with jax.enable_x64(True):
    x = jnp.asarray(RNG.normal(size=shape))

    def f(x):
      return rank.singular_values(x, method=method, center=center)[:-1] @ weights[:-1]

    check_grads(f, (x,), order=1, modes=("fwd", "rev"), atol=2e-4, rtol=2e-4)
  narrow = jnp.asarray(x, jnp.float32)
  with jax.enable_x64(True):
    wide = jax.grad(f)(x)
  np.testing.assert_allclose(jax.grad(f)(narrow), wide, atol=1e-5 * np.abs(wide).max())


@pytest.mark.parametrize("method", METHODS)
def test_derivative_of_small_singular_values_in_float32(method, graded):
  x, _ = graded(60, 6, smallest=1e-4)
  gradient = jax.jacobian(lambda x: rank.singular_values(x, method=method))(x)
  left, _, right = np.linalg.svd(x.astype(np.float64), full_matrices=False)
  expected = np.einsum("ni,ij->inj", left, right)
  np.testing.assert_allclose(gradient, expected, atol=1e-5 if method == "gram" else 5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_derivative_is_zero_where_a_singular_value_is(method):
  np.testing.assert_array_equal(
    jax.grad(lambda x: rank.singular_values(x, method=method).sum())(jnp.zeros((4, 3))), 0
  )
  thin = jnp.asarray(RNG.normal(size=(9, 2)) @ RNG.normal(size=(2, 5)), jnp.float32)
  jacobian = jax.jacobian(lambda x: rank.singular_values(x, method=method))(thin)
  np.testing.assert_array_equal(jacobian[2:], 0)
  assert (jnp.abs(jacobian[:2]).max((1, 2)) > 0.01).all()


@pytest.mark.parametrize("method", METHODS)
def test_derivative_at_ties_and_under_vmap(method):
  def nuclear(x):
    return rank.singular_values(x, method=method).sum()

  # The nuclear norm at an orthogonal matrix has that matrix as its gradient, ties or not.
  q = jnp.asarray(np.linalg.qr(RNG.normal(size=(5, 5)))[0], jnp.float32)
  np.testing.assert_allclose(jax.grad(nuclear)(q), q, atol=1e-6)
  pair = jnp.stack([q, 3 * q])
  np.testing.assert_allclose(
    jax.jit(jax.vmap(jax.grad(nuclear)))(pair), jnp.stack([q, q]), atol=1e-6
  )
  _, rate = jax.vmap(lambda x: jax.jvp(nuclear, (x,), (x,)))(pair)
  np.testing.assert_allclose(rate, [5, 15], rtol=1e-5)


def test_rankme_gradient_golden():
  for case in CASES:
    key = f"{case}/f64/grad_rankme_eps1e_7"
    if key in GOLDEN.files:
      with jax.enable_x64(True):
        gradient = jax.grad(lambda x: rank.rankme(rank.singular_values(x)))(
          jnp.asarray(GOLDEN[f"x/{case}"])
        )
        np.testing.assert_allclose(gradient, GOLDEN[key], rtol=1e-8, atol=1e-8)


def test_second_derivative_says_that_it_is_missing():
  with pytest.raises(NotImplementedError, match="second derivative of singular values"):
    jax.hessian(lambda x: rank.singular_values(x).sum())(jnp.eye(3))
