"""Ridge regression from streamed sums: against scikit-learn, whatever the rank of the inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from rankbias import rank

N, D, K = 90, 12, 3
STRENGTHS = np.array([1e-4, 1e-2, 1.0])
UPDATE = jax.jit(rank.spectrum_update)


def problem(used=D, seed=0, n=N):
  """Inputs of rank `used` far from the origin, one of them constant, and one-hot targets."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, used)) @ rng.normal(size=(used, D)) + 3
  x[:, 4] = 7
  return x.astype("f4"), np.eye(K, dtype="f4")[rng.integers(0, K, n)]


def state_of(x, y, method="gram"):
  return UPDATE(rank.spectrum_init(D + K, method=method), np.hstack([x, y]))


def predictions(maps, x):
  """Of every strength, [s, n, k]."""
  return np.stack(
    [np.asarray(maps._replace(kernel=kernel)(jnp.asarray(x))) for kernel in maps.kernel]
  )


def expected(x, y, strength):
  x = x.astype(float)
  unit = np.sum((x - x.mean(0)) ** 2) / D
  return Ridge(alpha=strength * unit, solver="svd").fit(x, y).predict(x)


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("used", [D, 4, 1])
def test_it_is_ridge_regression_at_any_rank(used, method):
  x, y = problem(used)
  found = predictions(rank.ridge(state_of(x, y, method), STRENGTHS, targets=K), x)
  for i, strength in enumerate(STRENGTHS):
    # Of float32 only the inputs' own rounding in "gram", some 1e-7 |x| |W|; all steps in "qr".
    np.testing.assert_allclose(
      found[i], expected(x, y, strength), atol=2e-6 * (1 + 9 * (method == "qr"))
    )


def test_no_strength_is_the_pseudo_inverse():
  rng = np.random.default_rng(1)
  x, y = problem()
  x = rng.integers(-3, 4, (N, 4)) @ rng.integers(-2, 3, (4, D)).astype("f4")  # exactly of rank 4
  found = rank.ridge(state_of(x.astype("f4"), y), np.zeros(3), targets=K)
  centered = x - x.mean(0)
  kernel = np.linalg.pinv(centered, rcond=1e-10) @ (y - y.mean(0))
  assert np.linalg.matrix_rank(centered) == 4
  np.testing.assert_allclose(found.kernel[0], kernel, atol=1e-6)


def test_fewer_rows_than_inputs_are_fitted_exactly_without_strength():
  x, y = problem(n=8)
  found = rank.ridge(state_of(x, y), np.zeros(3), targets=K)
  np.testing.assert_allclose(predictions(found, x)[0], y, atol=1e-5)


def test_the_answers_do_not_depend_on_the_scale_of_the_inputs():
  x, y = problem(5)
  one = predictions(rank.ridge(state_of(x, y), STRENGTHS, targets=K), x)
  for scale in (2.0**-20, 2.0**20):  # powers of two scale without rounding
    other = predictions(rank.ridge(state_of(x * scale, y), STRENGTHS, targets=K), x * scale)
    np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_dead_inputs_give_the_mean_target(method):
  _, y = problem()
  found = rank.ridge(state_of(np.full((N, D), 2, "f4"), y, method), STRENGTHS, targets=K)
  np.testing.assert_array_equal(found.kernel, 0)
  np.testing.assert_allclose(found.bias, y.mean(0), rtol=1e-6)


def test_parts_merge_to_the_whole():
  x, y = problem(6)
  parts = rank.spectrum_merge(state_of(x[:45], y[:45]), state_of(x[45:], y[45:]))
  one = rank.ridge(state_of(x, y), STRENGTHS, targets=K)
  for leaf, other in zip(one, rank.ridge(parts, STRENGTHS, targets=K), strict=True):
    np.testing.assert_allclose(leaf, other, atol=1e-6)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_the_error_on_other_rows_comes_from_their_sums(method):
  (x, y), (other, targets) = problem(6), problem(6, seed=3)
  maps = rank.ridge(state_of(x, y, method), STRENGTHS, targets=K)
  found = rank.squared_error(state_of(other + 1, targets, method), maps)
  expected = np.sum((predictions(maps, other + 1) - targets[None]) ** 2, axis=(1, 2))
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert found.dtype == jnp.float32


def test_members_under_vmap_are_as_one_by_one():
  xs, ys = (np.stack(a) for a in zip(*[problem(r, seed=r) for r in (3, 12)], strict=True))
  rows = np.concatenate([xs, ys], -1)

  def member(rows):
    return rank.ridge(UPDATE(rank.spectrum_init(D + K), rows), STRENGTHS, targets=K)

  together = jax.jit(jax.vmap(member))(rows)
  for i in range(2):
    for leaf, other in zip(member(rows[i]), together, strict=True):
      np.testing.assert_allclose(leaf, other[i], rtol=1e-5, atol=1e-6)


def test_wrong_numbers_of_targets_are_named():
  state = rank.spectrum_init(D + K)
  for targets in (0, D + K):
    with pytest.raises(ValueError, match=rf"targets = {targets} of the 15 columns"):
      rank.ridge(state, STRENGTHS, targets=targets)


def test_a_narrowed_state_is_refused():
  x, y = problem()
  narrow = jax.tree.map(partial(jnp.asarray, dtype="float32"), jax.device_get(state_of(x, y)))
  with pytest.raises(ValueError, match="the state is float32 and must be float64"):
    rank.ridge(narrow, STRENGTHS, targets=K)
