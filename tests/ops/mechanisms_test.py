"""Tests of PLSoftMax, the exponential and the power mechanism: exact values, guarantees, ties."""

import itertools
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
LINEAR = np.load(FOLDER / "plsoftmax_derived.npz")
PRIVATE = np.load(FOLDER / "exponential_mechanism.npz")
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 7)).astype(np.float32)
MASK = np.arange(7) < np.array([7, 4, 1, 0, 6])[:, None]
MAPS = {
  "linear": partial(ops.piecewise_linear_softmax, delta=1.5),
  "exponential": partial(ops.exponential_mechanism, epsilon=3.0),
  "power": lambda z, **own: ops.power_mechanism(jnp.abs(z), alpha=2.5, **own),
}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("key", [key for key in LINEAR.files if key.endswith("/y")])
def test_piecewise_linear_against_rational_arithmetic(key, bits):
  prefix, case, _ = key.split("/")
  with jax.enable_x64(bits == 64):
    x = jnp.asarray(LINEAR[f"x/{case}"], f"float{bits}")
    y = ops.piecewise_linear_softmax(x, delta=float(prefix.removeprefix("delta")))
    np.testing.assert_allclose(y, LINEAR[key], rtol=0, atol=1e-14 if bits == 64 else 1e-6)
    # Their support holds entries at exactly delta below the maximum, whose weight is 0.
    last = x == x.max(-1, keepdims=True) - float(prefix.removeprefix("delta"))
    np.testing.assert_array_equal((y > 0).sum(-1) + last.sum(-1), LINEAR[f"{prefix}/{case}/k"])


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("key", [key for key in PRIVATE.files if key.endswith("/y")])
def test_public_mechanisms(key, bits):
  name, setting, case, _ = key.split("/")
  with jax.enable_x64(bits == 64):
    x = jnp.asarray(PRIVATE[f"x/{case}"], f"float{bits}")
    if name == "power_via_scipy":
      y = ops.power_mechanism(x, alpha=float(setting.removeprefix("a")))
    else:
      epsilon = float(setting.split("_")[0].removeprefix("epsilon"))
      y = ops.exponential_mechanism(x, epsilon=epsilon, monotonic=setting.endswith("monotonic"))
    np.testing.assert_allclose(y, PRIVATE[key], rtol=0, atol=1e-14 if bits == 64 else 1e-6)


def test_closed_forms_and_limits():
  linear = ops.piecewise_linear_softmax
  np.testing.assert_allclose(linear(np.array([0, -0.5, -1])), [0.75, 0.25, 0], atol=1e-7)
  np.testing.assert_allclose(linear(LOGITS, delta=np.inf), 1 / 7, atol=1e-6)
  top = LOGITS.max(-1, keepdims=True) == LOGITS
  np.testing.assert_allclose(linear(LOGITS, delta=1e-5), top, atol=1e-6)
  p = ops.exponential_mechanism(LOGITS, epsilon=2.0, sensitivity=0.5, where=MASK)
  np.testing.assert_allclose(p, ops.softmax(2 * LOGITS, where=MASK), atol=1e-6)
  p = ops.exponential_mechanism(LOGITS, epsilon=0.0, where=MASK)
  np.testing.assert_allclose(p[1, :4], 1 / 4, atol=1e-7)
  p = ops.power_mechanism(np.array([[0.0, 1, 3], [0, 0, 0]], np.float32), alpha=2.0)
  np.testing.assert_allclose(p, [[0, 0.1, 0.9], [0, 0, 0]], atol=1e-6)
  p = ops.power_mechanism(np.array([2, 2, 4]), alpha=1)  # integers
  np.testing.assert_allclose(p, [0.25, 0.25, 0.5], atol=1e-6)


def test_guarantees_of_piecewise_linear():
  x = RNG.normal(size=(200, 7)) * 2
  y = x + RNG.normal(size=x.shape) * RNG.choice([1e-3, 0.1, 2], size=(200, 1))
  x, y = x.astype(np.float32), y.astype(np.float32)
  p, q = MAPS["linear"](x), MAPS["linear"](y)
  np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
  np.testing.assert_array_equal(p > 0, x > x.max(-1, keepdims=True) - 1.5)
  bound = 2 / 1.5 * np.abs(x - y).sum(-1)
  assert (np.abs(p - q).sum(-1) <= bound * (1 + 1e-4) + 1e-6).all()


def test_privacy_of_the_exponential_mechanism():
  u = LOGITS
  v = u + RNG.uniform(-1, 1, size=u.shape).astype(np.float32)  # utilities moved by at most one
  ratio = jnp.log(ops.exponential_mechanism(u, epsilon=0.7))
  ratio -= jnp.log(ops.exponential_mechanism(v, epsilon=0.7))
  assert 0.2 < jnp.abs(ratio).max() <= 0.7 + 1e-5


def test_invariances():
  for name in ("linear", "exponential"):
    np.testing.assert_allclose(MAPS[name](LOGITS + 3), MAPS[name](LOGITS), atol=2e-6)
  for scale in (1e-30, 1e-6, 1e4, 1e30):
    scaled = MAPS["power"](LOGITS * np.float32(scale))
    np.testing.assert_allclose(scaled, MAPS["power"](LOGITS), atol=2e-6)
  logs = ops.softmax(2.5 * np.log(np.abs(LOGITS)))
  np.testing.assert_allclose(MAPS["power"](LOGITS), logs, atol=2e-6)


@pytest.mark.parametrize("name", ["linear", "exponential"])
def test_large_close_and_equal_logits(name):
  for scale in (1e4, 1e-6):
    z = LOGITS * np.float32(scale)
    with jax.enable_x64(True):
      exact = MAPS[name](z.astype(np.float64))
    np.testing.assert_allclose(MAPS[name](z), exact, atol=1e-5)
  np.testing.assert_allclose(MAPS[name](np.full((2, 5), 1e4, np.float32)), 1 / 5, atol=1e-6)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.slow
def test_masks_empty_rows_and_what_they_hold(name):
  f = MAPS[name]
  p = f(LOGITS, where=MASK)
  assert (p[~MASK] == 0).all() and (p[3] == 0).all() and p[2, 0] == 1
  np.testing.assert_allclose(p[4, :6], f(LOGITS[4, :6]), atol=1e-6)
  if name != "power":
    np.testing.assert_array_equal(f(np.where(MASK, LOGITS, -np.inf)), p)
  weights = RNG.normal(size=p.shape).astype(np.float32)
  for hidden in (-np.inf, np.nan, np.inf):
    z = np.where(MASK, LOGITS, np.float32(hidden))
    np.testing.assert_array_equal(f(z, where=MASK), p)
    gradient = jax.grad(lambda z: jnp.sum(weights * f(z, where=MASK)))(z)
    assert (gradient[~MASK] == 0).all() and jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[0]).max() > 0
  for bad in (np.nan, np.inf):
    assert jnp.isnan(f(np.array([1.0, bad, 0.5], np.float32))).all()


@pytest.mark.parametrize("axis", [0, (0, 1), None])
def test_axes_and_one_number_a_row(axis):
  rows = LOGITS.T if axis == 0 else LOGITS.reshape(1, -1)
  own = np.linspace(0.5, 3, len(rows), dtype=np.float32)
  shape = (1, 7) if axis == 0 else (1, 1)
  for f in (
    lambda z, v, **k: ops.piecewise_linear_softmax(z, delta=v, **k),
    lambda z, v, **k: ops.exponential_mechanism(z, epsilon=v, sensitivity=v**2, **k),
    lambda z, v, **k: ops.power_mechanism(jnp.exp(z), alpha=v, **k),
  ):
    expected = np.array([f(row, v) for row, v in zip(rows, own, strict=True)])
    expected = expected.T if axis == 0 else expected.reshape(LOGITS.shape)
    np.testing.assert_allclose(f(LOGITS, own.reshape(shape), axis=axis), expected, atol=1e-6)
    traced = jax.jit(partial(f, axis=axis))(LOGITS, own.reshape(shape))
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    if axis == 0:
      mapped = jax.vmap(f, (1, 0), 1)(LOGITS, own)
      np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_gradients(name):
  f = {
    "linear": lambda z, v: ops.piecewise_linear_softmax(z, delta=v, where=MASK),
    "exponential": lambda z, v: ops.exponential_mechanism(
      z, epsilon=v, sensitivity=1 + v**2, where=MASK
    ),
    "power": lambda z, v: ops.power_mechanism(jnp.abs(z), alpha=v, where=MASK),
  }[name]
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS, jnp.float64)
    own = jnp.linspace(0.6, 2.4, 5)[:, None]
    order = 1 if name == "linear" else 2  # the second derivative is 0
    check_grads(jax.jit(f), (z, own), order=order, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_derivative_of_piecewise_linear_at_ties_is_the_mean_over_orders():
  with jax.enable_x64(True):
    f = partial(ops.piecewise_linear_softmax, delta=1.1)
    for row, ties in (
      ([1.5, 1.2, 2.0, 1.5, 1.2, -3.0, 1.5], [[0, 3, 6], [1, 4]]),
      ([0.3, 0.1, 0.3, 0.3], [[0, 2, 3]]),  # the maximum too is one of them in turn
    ):
      z, moved = jnp.array(row), []
      for orders in itertools.product(*(itertools.permutations(tie) for tie in ties)):
        apart = np.zeros(len(row))
        for order in orders:
          apart[list(order)] = np.arange(len(order)) * 1e-9
        moved.append(jax.jacobian(f)(z + apart))
      ours = jax.jacobian(f)(z)
      np.testing.assert_allclose(ours, np.mean(moved, 0), atol=1e-6)
      np.testing.assert_allclose(jax.jacfwd(f)(z), ours, atol=1e-14)
    smooth = jnp.array([1.0, 1.0, -4.0])
    check_grads(f, (smooth,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "slope"), [(0.5, 0), (1.0, 1 / 4), (1.5, 0), (2.0, 0)], ids=str)
def test_power_mechanism_at_zero(alpha, slope):
  x = jnp.array([0.0, 1.0, 3.0])
  jacobian = jax.jacobian(lambda x: ops.power_mechanism(x, alpha=alpha))(x)
  assert jnp.isfinite(jacobian).all()
  np.testing.assert_allclose(jacobian[0, 0], slope, atol=1e-6)
  np.testing.assert_allclose(jacobian.sum(0), 0, atol=1e-6)
  own = jax.grad(lambda a: ops.power_mechanism(x, alpha=a)[0])(alpha)
  assert own == 0
  empty = jax.jacobian(lambda x: ops.power_mechanism(x, alpha=alpha))(jnp.zeros(3))
  assert jnp.isfinite(empty).all()


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda z: ops.piecewise_linear_softmax(z, delta=0.0), "delta = 0.0 must be positive.*Pass"),
    (lambda z: ops.piecewise_linear_softmax(z, delta=np.ones(7)), r"delta of shape \(7,\) varies"),
    (lambda z: ops.exponential_mechanism(z, epsilon=-1.0), "epsilon = -1.0 must be finite and >="),
    (
      lambda z: ops.exponential_mechanism(z, epsilon=1.0, sensitivity=0.0),
      "sensitivity = 0.0 must be positive.*Pass the largest change",
    ),
    (lambda z: ops.power_mechanism(z, alpha=1.0), r"values = [\s\S]* must not be negative.*Mask"),
    (lambda z: ops.power_mechanism(z * z, alpha=0), "alpha = 0 must be positive"),
    (lambda z: ops.power_mechanism(z * z, alpha=np.ones((5, 1)), axis=0), "alpha of shape"),
  ],
)
def test_static_mistakes(call, message):
  with pytest.raises(ValueError, match=message):
    call(LOGITS)


def test_traced_mistakes_are_not_hidden():
  assert jnp.isnan(jax.jit(lambda d: ops.piecewise_linear_softmax(LOGITS, delta=d))(-1.0)).all()
  p = jax.jit(lambda x: ops.power_mechanism(x, alpha=1.0))(np.array([[1.0, -1.0], [1.0, 3.0]]))
  np.testing.assert_array_equal(jnp.isnan(p), [[True, True], [False, False]])
  negative = np.array([1.0, -2.0, 3.0], np.float32)
  p = ops.power_mechanism(negative, alpha=1.0, where=negative > 0)
  np.testing.assert_allclose(p, [0.25, 0, 0.75], atol=1e-6)
