"""The evidence lower bound: below the evidence, rising, differentiable."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import gp


@partial(jax.jit, static_argnames="lagged")
def bounds(kernel, state, temperature, prior_mean, lagged):
  """The bound after each of 50 steps, with the labels of `toy`."""
  labels = jnp.arange(12) % 3
  options = {"temperature": temperature, "prior_mean": prior_mean}

  def step(state, _):
    state = gp.mean_field_update(state, kernel, labels, lagged=lagged, **options)
    return state, gp.elbo(state, kernel, labels, **options)

  return jax.lax.scan(step, state, length=50)[1]


@pytest.mark.parametrize("lagged", [True, False])
@pytest.mark.parametrize(("tau", "prior_mean"), [(0.2, 0.0), (1.0, -3.0), (4.0, 1.0)])
def test_the_bound_rises_with_every_step(toy, lagged, tau, prior_mean):
  _, labels, kernel = toy(3)
  start = gp.mean_field_init(kernel, labels, temperature=tau, prior_mean=prior_mean)
  first = gp.elbo(start, kernel, labels, temperature=tau, prior_mean=prior_mean)
  found = np.array([first, *bounds(kernel, start, tau, prior_mean, lagged)])
  assert np.diff(found).min() > -1e-9 and found[-1] - found[0] > 0.1


def test_from_an_arbitrary_state_coordinate_ascent_rises_and_the_published_order_may_not(toy):
  _, labels, kernel = toy(3)
  start = gp.mean_field_init(kernel, labels, temperature=0.1)
  start = start._replace(mean=start.mean + 5, omega=jnp.full_like(start.omega, 30.0))
  ascent, published = (np.asarray(bounds(kernel, start, 0.1, 0.0, own)) for own in (False, True))
  assert np.diff(ascent).min() > -1e-9
  assert np.diff(published).min() < -1


@pytest.mark.parametrize(
  ("tau", "prior_mean", "gap"),
  [(1.0, 0.0, 1.3), (0.3, 0.0, 2.2), (1.0, -2.0, 3.3), (1.0, 4.0, 0.2)],
)
def test_the_bound_is_below_the_evidence_and_not_far(rbf, tau, prior_mean, gap):
  """log p(labels) of three inputs by 100,000 draws of the prior; with few counts m it is tight."""
  x = np.array([[0.0], [0.3], [2.0]])
  labels, kernel = np.array([0, 0, 1]), np.stack([rbf(x, x)] * 2)
  noise = np.random.default_rng(0).normal(size=(100_000, 2, 3))
  f = prior_mean + np.einsum("cij,scj->sci", np.linalg.cholesky(kernel), noise)
  sigmoids = 1 / (1 + np.exp(-f / tau))
  p = sigmoids / sigmoids.sum(1, keepdims=True)
  evidence = np.log(np.prod(p[:, labels, np.arange(3)], axis=1).mean())
  options = {"temperature": tau, "prior_mean": prior_mean}
  for steps in (0, 1, 50):
    state = gp.mean_field(kernel, labels, num_steps=steps, **options)
    found = gp.elbo(state, kernel, labels, **options)
    assert found < evidence + 0.01
  assert evidence - found < gap


def test_the_initial_q_is_the_prior(toy):
  """Then the divergence is zero, and the bound does not depend on the kernel's off-diagonal."""
  _, labels, kernel = toy()
  flat = np.stack([np.eye(12)] * 2)
  one, two = (gp.elbo(gp.mean_field_init(k, labels), k, labels) for k in (kernel, flat))
  np.testing.assert_allclose(one, two, rtol=1e-6)


def test_the_gradient_of_the_bound_points_to_a_better_length_scale(toy):
  """Clusters of the size of 1 want neither a kernel that sees each input alone nor a flat one."""
  x, labels, _ = toy()
  squares = ((x[:, None] - x[None]) ** 2).sum(-1)

  @jax.jit
  @jax.value_and_grad
  def bound(log_scale):
    kernel = 4 * jnp.exp(-squares / (2 * jnp.exp(2 * log_scale)))
    kernel = jnp.broadcast_to(kernel, (2, *kernel.shape))
    options = {"temperature": 0.5, "jitter": 1e-4}
    return gp.elbo(gp.mean_field(kernel, labels, **options), kernel, labels, **options)

  (short, up), (good, _), (long, down) = (bound(s) for s in (-2.0, 0.5, 3.5))
  assert good > max(short, long) + 0.5
  assert up > 0 > down


def test_derivatives_are_those_of_differences(toy):
  _, labels, kernel = toy()
  turn = 0.1 * np.random.default_rng(0).normal(size=kernel.shape)
  point = (kernel + np.eye(12), 0.8, -0.3)
  along = (turn + turn.swapaxes(1, 2), 1.0, -2.0)

  def bound(step):
    kernel, tau, prior_mean = (p + step * a for p, a in zip(point, along, strict=True))
    options = {"temperature": tau, "prior_mean": prior_mean}
    state = gp.mean_field(kernel, labels, num_steps=3, **options)
    return gp.elbo(state, kernel, labels, **options)

  forward = jax.jit(lambda step: jax.jvp(bound, (step,), (1.0,)))
  expected = (forward(1e-5)[0] - forward(-1e-5)[0]) / 2e-5
  slope, again = jax.jit(jax.grad(bound))(0.0), forward(0.0)[1]
  np.testing.assert_allclose([slope, again], expected, rtol=1e-6)


def test_float32_is_near_float64_on_a_nearly_singular_kernel(toy):
  _, labels, kernel = toy()
  exact = gp.elbo(gp.mean_field(kernel, labels, jitter=1e-4), kernel, labels, jitter=1e-4)
  with jax.enable_x64(False):
    single = jnp.asarray(kernel, jnp.float32)
    state = gp.mean_field(single, labels, jitter=1e-4)
    assert state.mean.dtype == jnp.float32
    np.testing.assert_allclose(gp.elbo(state, single, labels, jitter=1e-4), exact, rtol=1e-3)


def test_an_input_without_variance_has_a_finite_gradient(toy):
  """As a linear kernel has at the origin."""
  x, labels, _ = toy()
  x[0] = 0

  @jax.jit
  @jax.value_and_grad
  def bound(kernel):
    return gp.elbo(gp.mean_field(kernel, labels), kernel, labels)

  value, grad = bound(np.stack([x @ x.T] * 2))
  assert np.isfinite(value) and np.isfinite(grad).all()
