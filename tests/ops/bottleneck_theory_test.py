"""The theory of the softmax bottleneck, as numbers in float64: ranks, stationary points, orders."""

from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from rankbias import ops, rank

SIZE = 200  # contexts and classes


@pytest.fixture(autouse=True)
def _double():
  with jax.enable_x64(True):
    yield


def factors(d, contexts=SIZE, classes=SIZE, seed=0):
  """Random contexts H, kernel W and bias b."""
  rng = np.random.default_rng((seed, d))
  return rng.normal(size=(contexts, d)), rng.normal(size=(d, classes)), rng.normal(size=classes)


def press(matrix):
  return int(rank.press_rank(np.linalg.svd(matrix, compute_uv=False), matrix.shape))


def some_plif(knots=16, bound=4.0, scale=1.0):
  return ops.plif_map(ops.plif_init(jax.random.key(0), knots, scale=scale), bound=bound)


# What is no polynomial; with a cap far above the logits tanh would be one, to rounding.
ANALYTIC = {
  "sigsoftmax": ops.sigsoftmax_logits,
  "generalized": partial(ops.generalized_sigsoftmax_logits, knee=-1.5, slope=2.5),
  "tanh_cap": partial(ops.tanh_cap, cap=1.0),
}
INCREASING = {**ANALYTIC, "plif": lambda z: some_plif()(z)}


@pytest.mark.parametrize("d", [1, 2, 5, 20])
def test_log_probabilities_of_a_linear_layer_have_rank_d_and_one_for_the_norm_one_for_the_bias(d):
  h, w, b = factors(d)
  assert press(ops.log_softmax(h @ w)) == d + 1
  assert press(ops.log_softmax(h @ w + b)) == d + 2
  assert press(ops.log_softmax(h @ w, temperature=3.0)) == d + 1


@pytest.mark.parametrize("d", [3, 5])
def test_a_mixture_of_contexts_keeps_the_bound_and_a_mixture_of_softmaxes_does_not(d):
  _, w, b = factors(d)
  rng = np.random.default_rng(d)
  prior, contexts = rng.normal(size=(SIZE, 4)), rng.normal(size=(SIZE, 4, d))
  logits = ops.mixed_contexts(prior, contexts) @ w + b[None]
  assert press(ops.log_softmax(logits)) == d + 2
  assert press(ops.mixture_log_probs(prior, contexts, w, b)) == SIZE
  assert press(ops.mixture_log_probs(prior[:, :1], contexts[:, :1], w, b)) == d + 2


@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_rank_of_a_polynomial_of_logits_is_at_most_a_binomial_and_reaches_it(d):
  h, w, _ = factors(d)
  a = h @ w
  assert press(a**2) == comb(d + 1, 2) == {2: 3, 3: 6, 5: 15}[d]
  assert press(a**3) == comb(d + 2, 3) == {2: 4, 3: 10, 5: 35}[d]
  assert press(a + a**3) == d + comb(d + 2, 3) == {2: 6, 3: 13, 5: 40}[d]
  for k in (1, 2, 3):
    whole = sum(a**i / (i + 1) for i in range(k + 1))
    assert press(whole) == comb(d + k, k)


@pytest.mark.parametrize("name", ANALYTIC)
def test_maps_that_are_no_polynomials_have_full_rank_from_three_dimensions_on(name):
  for d in (3, 5):
    h, w, _ = factors(d)
    mapped = np.asarray(ANALYTIC[name](h @ w))
    assert press(mapped) == SIZE and press(ops.log_softmax(mapped)) == SIZE
    # But most of it in a few directions: a rank without a tolerance says little.
    values = np.linalg.svd(mapped, compute_uv=False)
    assert rank.energy_rank(values, fraction=1 - 1e-3) < 0.6 * SIZE
  h, w, _ = factors(1)
  assert press(ANALYTIC[name](h @ w)) < 40  # the values fall below rounding sooner


def test_a_piecewise_linear_map_with_random_slopes_has_full_rank_in_any_dimension():
  many = some_plif(knots=10**5, bound=20.0)
  for d in (1, 3):
    h, w, _ = factors(d)
    assert press(many(h @ w)) == SIZE
    values = np.linalg.svd(many(h @ w), compute_uv=False)
    assert rank.energy_rank(values, fraction=1 - 1e-3) <= d + 1  # noise, which carries nothing
  assert press(some_plif(scale=0.0)(h @ w)) == 3  # the start of the head is the identity


def fitting(f, n=14, m=12, d=2):
  """The loss of small factors x, what its gradient must be, random targets and a start."""
  p = np.random.default_rng(0).dirichlet(np.ones(m), n)

  def split(x):
    return x[: n * d].reshape(n, d), x[n * d :].reshape(d, m)

  def loss(x):
    h, w = split(x)
    return jnp.sum(ops.cross_entropy(f(h @ w), p))

  @jax.jit
  def errors(x):
    h, w = split(x)
    mapped, slopes = jax.jvp(f, (h @ w,), (jnp.ones((n, m)),))
    plain = ops.softmax(mapped) - p
    by_factor = (plain * slopes) @ w.T, h.T @ (plain * slopes)
    return plain, jnp.concatenate([jnp.ravel(each) for each in by_factor])

  return loss, errors, p, 0.5 * np.random.default_rng(1).normal(size=(n + m) * d)


@pytest.mark.parametrize("name", INCREASING)
def test_the_gradient_is_the_error_times_the_slope_times_the_other_factor(name):
  loss, errors, _, x = fitting(INCREASING[name])
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), errors(x)[1], atol=1e-12)


# Of the maps without bound in slope the optimum is not far out, where Newton's steps are slow.
@pytest.mark.parametrize("f", [lambda z: z, jnp.sinh], ids=["linear", "sinh"])
def test_at_an_optimum_the_errors_are_orthogonal_to_the_factors_and_not_zero(f):
  loss, errors, p, start = fitting(f)
  both, hessian = jax.jit(jax.value_and_grad(loss)), jax.jit(jax.hessian(loss))
  found = optimize.minimize(
    lambda x: tuple(map(np.asarray, both(x))),
    start,
    jac=True,
    hess=lambda x: np.asarray(hessian(x)),
    method="trust-exact",
    options={"gtol": 1e-8, "maxiter": 200},
  )
  plain, products = errors(found.x)
  assert np.abs(products).max() < 1e-6
  excess = (found.fun + np.sum(p * np.log(p))) / len(p)
  assert excess > 0.1 and np.abs(plain).max() > 0.1, (excess, np.abs(plain).max())


@pytest.mark.parametrize("name", INCREASING)
def test_an_increasing_map_changes_no_order_and_no_argmaxable_class(name):
  f = INCREASING[name]
  h, w, b = factors(2, contexts=4000, classes=60)
  logits = h @ w + b
  mapped = np.asarray(f(logits))
  np.testing.assert_array_equal(np.argsort(mapped, -1), np.argsort(logits, -1))  # hence no top-k
  found = rank.argmaxable(w, b)
  assert 2 < found.argmaxable.sum() < 50
  witnesses = found.witness[found.argmaxable]
  won = np.asarray(f(0.01 * (witnesses @ w + b))).argmax(-1)  # scaled, as tanh is 1 far out
  np.testing.assert_array_equal(won, np.flatnonzero(found.argmaxable))
  assert not set(mapped.argmax(-1)) & set(np.flatnonzero(~found.argmaxable))


def test_a_mixture_of_softmaxes_makes_no_class_argmaxable_that_its_kernel_does_not():
  # If w_i = sum_j l_j w_j and b_i <= sum_j l_j b_j with weights l, then p_i <= prod_j p_j^l_j <=
  # sum_j l_j p_j in every softmax, hence in their mixture too, which is no more than the largest.
  _, w, b = factors(2, classes=60)
  rng = np.random.default_rng(0)
  prior, contexts = rng.normal(size=(4000, 5)), 3 * rng.normal(size=(4000, 5, 2))
  logs = np.asarray(ops.mixture_log_probs(prior, contexts, w, b))
  never = np.flatnonzero(~rank.argmaxable(w, b).argmaxable)
  assert len(never) > 10 and not set(logs.argmax(-1)) & set(never)
  # It does change orders: of single rows no linear layer with this kernel has the same one.
  one = ops.mixed_contexts(prior, contexts) @ w + b[None]
  assert (np.argsort(logs, -1) != np.argsort(one, -1)).any(-1).mean() > 0.9


def test_two_dimensions_match_every_mode():
  classes, contexts = 500, 1000
  angles = 2 * np.pi * np.arange(classes) / classes
  w = np.stack([np.cos(angles), np.sin(angles)])
  modes = np.random.default_rng(0).integers(0, classes, contexts)
  logs = np.asarray(ops.log_softmax(10.0 * w.T[modes] @ w))
  np.testing.assert_array_equal(logs.argmax(-1), modes)
  assert press(logs) == 3
