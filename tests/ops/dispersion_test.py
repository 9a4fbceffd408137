"""The bounds of dispersion as functions: known numbers, extremes, traced arguments, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops


@pytest.mark.parametrize(("count", "spread"), [(16, 4.91), (1024, 9.13), (16384, 11.90)])
def test_spread_that_one_weight_of_nine_tenths_needs(count, spread):
  assert ops.required_spread(count, 0.9) == pytest.approx(spread, abs=0.005)
  assert ops.weight_bounds(count, spread)[1] == pytest.approx(0.9, abs=0.001)


def test_longest_row_in_which_one_of_the_measured_heads_can_hold_half_of_the_weight():
  lengths = np.array([296, 298, 337, 339])
  _, upper = ops.weight_bounds(lengths, np.array([5.69, 5.69, 5.82, 5.82]))
  np.testing.assert_array_equal(upper > 0.5, [True, False, True, False])


def test_equal_logits_leave_no_room():
  for sharp in (True, False):
    for bound in ops.weight_bounds(np.array([1, 2, 50]), 0.0, sharp=sharp):
      np.testing.assert_allclose(bound, [1, 0.5, 0.02], rtol=1e-6)
    found = ops.entropy_bound(np.array([1, 2, 50]), 0.0, sharp=sharp)
    np.testing.assert_allclose(found, np.log([1, 2, 50]), rtol=1e-6)


def test_formulas_in_float64():
  n, delta, t = np.array([2.0, 7, 1e6]), np.array([0.5, 3, 9]), 1.5
  x = delta / t
  with jax.enable_x64(True):
    lower, upper = ops.weight_bounds(n, delta, t)
    np.testing.assert_allclose(lower, 1 / (1 + (n - 1) * np.exp(x)), rtol=1e-14)
    np.testing.assert_allclose(upper, 1 / (1 + (n - 1) * np.exp(-x)), rtol=1e-14)
    np.testing.assert_allclose(ops.entropy_bound(n, delta, t), -np.log(upper), rtol=1e-9)
    np.testing.assert_allclose(ops.required_spread(n, upper), x, rtol=1e-12)
    lower, upper = ops.weight_bounds(n, delta, t, sharp=False)
    np.testing.assert_allclose(lower, np.exp(-x) / n, rtol=1e-14)
    np.testing.assert_allclose(upper, np.minimum(np.exp(x) / n, 1), rtol=1e-14)
    simple = ops.entropy_bound(n, delta, t, sharp=False)
    np.testing.assert_allclose(simple, np.maximum(np.log(n) - x, 0), rtol=1e-14)


@pytest.mark.parametrize("sharp", [True, False])
def test_large_spreads_neither_overflow_nor_hide_the_gradient(sharp):
  spread = jnp.array([0.0, 100.0, 1e4, 1e30])
  lower, upper = ops.weight_bounds(16384, spread, 0.5, sharp=sharp)
  np.testing.assert_allclose(upper[1:], 1, rtol=1e-6)
  assert (lower[1:] < 1e-30).all() and (lower >= 0).all()
  np.testing.assert_array_equal(ops.entropy_bound(16384, spread, sharp=sharp)[2:], 0)

  def both(x):
    return sum(ops.weight_bounds(16384, x, sharp=sharp)) + ops.entropy_bound(16384, x, sharp=sharp)

  assert np.isfinite(jax.vmap(jax.grad(both))(spread)).all()


def test_traced_counts_and_broadcasting():
  count, spread = np.arange(1, 6)[:, None], np.linspace(0, 4, 3)[None]
  eager = ops.weight_bounds(count, spread)
  traced = jax.jit(ops.weight_bounds)(count, spread, 1.0)
  assert eager[0].shape == (5, 3)
  np.testing.assert_allclose(traced, eager, rtol=1e-6)
  assert ops.weight_bounds(4, jnp.bfloat16(1))[0].dtype == jnp.float32


def test_bound_of_the_projections():
  rng = np.random.default_rng(0)
  q, k = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
  y, x = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 7, 5))
  norms = np.linalg.norm(y, axis=-1) * np.linalg.norm(x, axis=-1).max(-1, keepdims=True)
  expected = 2 * np.linalg.svd(q)[1][0] * np.linalg.svd(k)[1][0] * norms
  np.testing.assert_allclose(ops.spread_bound(q, k, y, x), expected, rtol=1e-5)
  np.testing.assert_allclose(ops.spread_bound(q.T, k.T, y, x), expected, rtol=1e-5)
  half = ops.spread_bound(*(jnp.asarray(a, jnp.bfloat16) for a in (q, k, y, x)))
  np.testing.assert_allclose(half, expected, rtol=2e-2)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.weight_bounds(0, 1.0), "count = 0 must be 1 or more"),
    (lambda: ops.entropy_bound(np.array([3, 0]), 1.0), r"count = \[3 0\] must be 1 or more"),
    (lambda: ops.weight_bounds(4, -1.0), "spread = -1.0 must not be negative"),
    (lambda: ops.weight_bounds(4, float("nan")), "spread = nan must not be negative"),
    (lambda: ops.weight_bounds(4, 1.0, 0.0), "temperature = 0.0 must be positive"),
    (lambda: ops.required_spread(4, 1.0), "weight = 1.0 must lie between 0 and 1"),
    (lambda: ops.required_spread(0, 0.5), "count = 0 must be 1 or more"),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()
