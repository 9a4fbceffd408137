"""Tests of top-k, t- and r-softmax: the public implementation, ties, rates, masks."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/rsoftmax.npz")
RUNS = sorted(key.removesuffix("/f64/y") for key in GOLDEN.files if key.endswith("/f64/y"))
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 7)).astype(np.float32) * 2
MASK = np.arange(7) < np.array([7, 4, 1, 0, 6])[:, None]
MAPS = {
  "topk": partial(ops.topk_softmax, k=3),
  "t": partial(ops.t_softmax, t=1.5),
  "r": partial(ops.r_softmax, rate=0.4),
}


def published(run, dtype):
  """The input, the cotangent, the parameter and the published results of a stored run."""
  prefix, case = run.rsplit("/", 1)
  x, cotangent = (jnp.asarray(GOLDEN[f"{k}/{case}"], dtype) for k in ("x", "cotangent"))
  own = GOLDEN[next(key for key in GOLDEN.files if key.startswith(f"{prefix}/param_"))]
  results = f"{run}/f{jnp.finfo(dtype).bits}"
  y, dx = (GOLDEN[f"{results}/{key}"] for key in ("y", "grad_x"))
  dt = GOLDEN[f"{results}/grad_t"] if prefix.startswith("tsoftmax") else None
  return x, cotangent, jnp.asarray(own, dtype), y, dx, dt


def close(ours, theirs, loose):
  known = np.isfinite(theirs)
  error = np.abs(np.asarray(ours) - theirs) / np.maximum(1, np.abs(theirs))
  assert error[known].max(initial=0) < loose


def single_maximum(x):
  return np.sum(x == np.max(x, -1, keepdims=True), -1) == 1  # torch gives a tie to one entry


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("run", [run for run in RUNS if run.startswith("tsoftmax")])
def test_published_t_softmax(run, dtype):
  with jax.enable_x64(dtype == np.float64):
    x, cotangent, t, y, dx, dt = published(run, dtype)
    loose = 1e-10 if dtype == np.float64 else 1e-3 if run.endswith("large") else 1e-5
    ours, pull = jax.vjp(lambda x, t: ops.t_softmax(x, t=t), x, t)
    ours_dx, ours_dt = pull(cotangent)
    single = single_maximum(x)
    close(ours, y, loose)
    close(ours_dx[single], dx[single], loose)
    close(ours_dt, dt, loose)
    assert jnp.isfinite(ours).all() and jnp.isfinite(ours_dx).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
  "run",
  # The 1e-8 that the public code adds to the threshold is not small for tiny logits.
  [run for run in RUNS if run.startswith("rsoftmax") and not run.endswith("tiny")],
)
@pytest.mark.slow
def test_published_r_softmax(run, dtype):
  with jax.enable_x64(dtype == np.float64):
    x, cotangent, rate, y, dx, _ = published(run, dtype)
    # Where exp underflows, the public code counts entries as zero and then as the maximum.
    whole = np.exp(np.asarray(x - x.max(-1, keepdims=True))).min(-1) > 0
    loose = 1e-5 if dtype == np.float32 else 1e-8
    ours, pull = jax.vjp(lambda x: ops.r_softmax(x, rate=rate), x)
    close(ours[whole], y[whole], loose)
    # In float64 an entry on the threshold keeps 1e-8 there, and the derivative of what is kept.
    whole &= single_maximum(x) & ~((y > 0) & (y < 1e-7)).any(-1)
    close(pull(cotangent)[0][whole], dx[whole], 1e-5 if dtype == np.float32 else 2e-7)


@pytest.mark.parametrize("run", [run for run in RUNS if run.startswith("rsoftmax")])
def test_published_r_softmax_with_its_own_threshold(run):
  with jax.enable_x64(True):
    x, cotangent, rate, y, dx, _ = published(run, np.float64)
    shifted = np.asarray(x - x.max(-1, keepdims=True))
    whole = np.exp(shifted).min(-1) > 0
    rates = np.broadcast_to(np.asarray(rate), (len(x), 1))[:, 0]
    t = np.array([[1e-8 - np.quantile(s, r)] for s, r in zip(shifted, rates, strict=True)])
    ours, pull = jax.vjp(lambda x: ops.t_softmax(x, t=t), x)
    close(ours[whole], y[whole], 1e-10)
    whole &= single_maximum(x)
    close(pull(cotangent)[0][whole], dx[whole], 1e-10)


@pytest.mark.parametrize(
  ("f", "row", "result"),
  [
    (partial(ops.topk_softmax, k=1), [1, 3, 2], [0, 1, 0]),
    (partial(ops.topk_softmax, k=2), [0, 0, -1, -2], [1 / 2, 1 / 2, 0, 0]),
    (partial(ops.topk_softmax, k=2), [2, 1, 1, 0], np.array([np.e, 1, 1, 0]) / (np.e + 2)),
    (partial(ops.t_softmax, t=2.0), [0, -1, -2], np.array([2 * np.e, 1, 0]) / (2 * np.e + 1)),
    (partial(ops.t_softmax, t=1e-6), [0, 0, -1], [1 / 2, 1 / 2, 0]),
    (partial(ops.r_softmax, rate=1 / 3), [0, -1, -2, -3], [2 / (2 + 1 / np.e), 0.1553624, 0, 0]),
    (partial(ops.r_softmax, rate=0), [0, -1, -1, -2], np.r_[2 * np.e, 1, 1, 0] / (2 * np.e + 2)),
    (partial(ops.r_softmax, rate=1), [0, 0, -1], [1 / 2, 1 / 2, 0]),
    (partial(ops.r_softmax, rate=0.2), [4, 4, 4], [1 / 3, 1 / 3, 1 / 3]),
    (partial(ops.r_softmax, rate=0.5), [1, 0, 0, 0], [1, 0, 0, 0]),
  ],
)
def test_closed_forms(f, row, result):
  np.testing.assert_allclose(f(np.array(row, np.float32)), result, atol=1e-6)


def test_limits():
  softmax = ops.softmax(LOGITS, where=MASK)
  for f in (
    partial(ops.topk_softmax, k=7),
    partial(ops.topk_softmax, k=100),
    partial(ops.t_softmax, t=np.inf),
  ):
    np.testing.assert_allclose(f(LOGITS, where=MASK), softmax, atol=1e-6)
  assert jnp.abs(ops.r_softmax(LOGITS, rate=0) - ops.softmax(LOGITS)).max() > 1e-3
  derivative = jax.grad(lambda t: ops.t_softmax(LOGITS, t=t)[0, 0])(jnp.inf)
  assert derivative == 0


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_topk_keeps_all_ties_and_nothing_else(row, k):
  row = np.pad(np.array(row, np.float32), (0, 8 - len(row)), constant_values=-np.inf)
  place = np.sort(row)[::-1][min(k, 8) - 1]
  expected = ops.softmax(row, where=row >= place)
  np.testing.assert_array_equal(ops.topk_softmax(row, k=k), expected)


@pytest.mark.parametrize("n", [2, 11, 64])
def test_r_softmax_sets_the_rate_to_zero(n):
  z = np.random.default_rng(n).permutation(2 * n).astype(np.float32) / n
  where = np.arange(2 * n) < n
  for rate in np.float32([0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]):
    p = ops.r_softmax(z, rate=rate, where=where)
    # 0.7 * 10 must be the seventh place although 0.7 is rounded.
    assert np.sum(p[:n] == 0) == np.floor(round(float(rate) * (n - 1), 5)) + 1
    t = z[:n].max() - np.quantile(z[:n], rate)
    np.testing.assert_allclose(p, ops.t_softmax(z, t=t, where=where), atol=2e-6)
  np.testing.assert_array_equal(ops.r_softmax(z, rate=1.0, where=where) > 0, z == z[:n].max())


def test_one_number_a_row():
  rows = np.arange(1, 6).reshape(5, 1)
  for f, values in (
    (lambda z, v: ops.topk_softmax(z, k=v), rows),
    (lambda z, v: ops.t_softmax(z, t=v), rows.astype(np.float32)),
    (lambda z, v: ops.r_softmax(z, rate=v), rows.astype(np.float32) / 5),
  ):
    one_by_one = [f(LOGITS[i], values[i, 0]) for i in range(5)]
    np.testing.assert_allclose(f(LOGITS, values), one_by_one, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(f)(LOGITS, values[:, 0]), one_by_one, atol=1e-6)
    np.testing.assert_allclose(jax.jit(f)(LOGITS, values), one_by_one, atol=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_masks_empty_rows_and_what_they_hold(name):
  f = MAPS[name]
  p = f(LOGITS, where=MASK)
  assert (p[~MASK] == 0).all() and (p[3] == 0).all() and p[2, 0] == 1
  np.testing.assert_allclose(p[4, :6], f(LOGITS[4, :6]), atol=1e-6)
  np.testing.assert_array_equal(f(np.where(MASK, LOGITS, -np.inf)), p)
  np.testing.assert_array_equal(f(np.where(MASK, LOGITS, np.nan), where=MASK), p)
  weights = RNG.normal(size=p.shape).astype(np.float32)
  for hidden in (-np.inf, np.nan, np.inf):
    z = np.where(MASK, LOGITS, np.float32(hidden))
    gradient = jax.grad(lambda z: jnp.sum(weights * f(z, where=MASK)))(z)
    assert (gradient[~MASK] == 0).all() and jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[0]).max() > 0
  for bad in (np.nan, np.inf):
    assert jnp.isnan(f(np.array([1.0, bad, 0.0], np.float32))).all()


@pytest.mark.parametrize("name", MAPS)
def test_large_close_and_equal_logits(name):
  f = MAPS[name]
  for scale in (1e4, 1e-6):
    z = LOGITS * np.float32(scale)
    with jax.enable_x64(True):
      exact = f(z.astype(np.float64))
    np.testing.assert_allclose(f(z), exact, atol=1e-5)
  np.testing.assert_allclose(f(np.full((2, 5), 1e4, np.float32)), 1 / 5, atol=1e-6)


@pytest.mark.parametrize("t", [0.7, 2.5, 1e4])
@pytest.mark.slow
def test_gradients_of_t_softmax(t):
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS, jnp.float64).at[1, :2].set(3.0)  # two maxima share the derivative

    def f(z, t):
      return ops.t_softmax(z, t=t, where=MASK)

    rows = jnp.full((5, 1), t)
    check_grads(jax.jit(f), (z, rows), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)
    if t == 2.5:
      z = z.at[1, 0].set(2.5)
      own = jnp.asarray(t)
      check_grads(jax.jit(f), (z, own), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_threshold_of_r_softmax_is_a_constant():
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS, jnp.float64)
    t = (z.max(-1) - np.quantile(z, 0.4, -1))[:, None]
    ours = jax.jacobian(MAPS["r"])(z)
    np.testing.assert_allclose(ours, jax.jacobian(lambda z: ops.t_softmax(z, t=t))(z), atol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(MAPS["r"])(z), ours, atol=1e-12)
  assert jax.grad(lambda r: ops.r_softmax(LOGITS, rate=r)[0, 0])(0.4) == 0


def test_gradient_of_topk_is_that_of_softmax_on_what_is_kept():
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS, jnp.float64)
    kept = z >= np.sort(z, -1)[:, -3:][:, :1]
    ours = jax.jacobian(MAPS["topk"])(z)
    np.testing.assert_allclose(ours, jax.jacobian(lambda z: ops.softmax(z, where=kept))(z))
    check_grads(MAPS["topk"], (z,), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda z: ops.topk_softmax(z, k=0), "k = 0 must be an integer >= 1.*Pass k=1"),
    (lambda z: ops.t_softmax(z, t=0.0), "t = 0.0 must be positive.*Pass jnp.inf"),
    (lambda z: ops.t_softmax(z, t=np.nan), "t = nan must be positive"),
    (lambda z: ops.r_softmax(z, rate=1.5), r"rate = 1.5 must lie in \[0, 1\]"),
    (lambda z: ops.t_softmax(z, t=np.ones(7)), r"t of shape \(7,\) varies along axis = -1.*\[:, N"),
    (lambda z: ops.r_softmax(z, rate=np.ones((5, 1)), axis=0), r"rate of shape \(5, 1\) varies"),
    (lambda z: ops.topk_softmax(z, k=np.ones((5, 7), int), axis=None), "k of shape .* varies"),
  ],
)
def test_static_mistakes(call, message):
  with pytest.raises(ValueError, match=message):
    call(LOGITS)


def test_traced_mistakes_are_not_hidden():
  assert jnp.isnan(jax.jit(lambda t: ops.t_softmax(LOGITS, t=t))(-1.0)).all()
  assert jnp.isnan(jax.jit(lambda r: ops.r_softmax(LOGITS, rate=r))(1.5)).all()
