"""Tests of the adaptive temperature: the published table, public implementations, gradients."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/adaptive_temperature.npz")
CASES = [key.removeprefix("x/") for key in GOLDEN.files if key.startswith("x/")]
STOPPED = "jtaylor_no_gradient_through_entropy"


@pytest.mark.parametrize(
  ("logits", "beta", "result"),
  [
    (np.zeros(2), 1, 1 / 2),
    (np.zeros(3), 1.41879, 1 / 3),
    (np.zeros(16), 2.22651, 1 / 16),
    (np.zeros(256), 1.78308, 1 / 256),
    (np.zeros(380), 1.01096, 1 / 380),
    (np.zeros(382), 1, 1 / 382),
    (np.array([1.0, 2, 3, 4]), 1.18241, [0.02015, 0.06574, 0.21447, 0.69964]),
    (np.array([0.0, 0, 0, 2]), 1.13088, [0.07936] * 3 + [0.76190]),
  ],
)
def test_table(logits, beta, result):
  assert ops.entropy_polynomial(ops.entropy(logits)) == pytest.approx(beta, abs=1e-4)
  np.testing.assert_allclose(ops.adaptive_temperature_softmax(logits), result, atol=1e-5)


def test_polynomial_is_read_highest_power_first():
  # At H = 1 both orders give 1.27; at 3 the wrong one gives -31.6, hence 1.
  np.testing.assert_allclose(ops.entropy_polynomial(np.array([1.0, 3.0])), [1.27, 2.25], atol=1e-5)


@pytest.mark.parametrize("name", ["awni00", STOPPED])
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_public_implementations(case, bits, name):
  wide = bits == "f64"
  loose = {"awni00": (1e-7 if wide else 1e-5), STOPPED: 1e-6 if wide else 1e-5}[name]
  loose = 1e-3 if case == "large" and not wide else loose
  if name == STOPPED and case in ("masked_neginf", "all_masked"):
    pytest.skip("the public code falls back to plain softmax where a row holds -inf")
  with jax.enable_x64(wide):
    x = jnp.asarray(GOLDEN[f"x/{case}"], f"float{bits[1:]}")
    cotangent = jnp.asarray(GOLDEN[f"cotangent/{case}"], x.dtype)
    y, pull = jax.vjp(
      lambda x: ops.adaptive_temperature_softmax(x, stop_gradient=name == STOPPED), x
    )
    (gradient,) = pull(cotangent)
    assert y.dtype == x.dtype and np.isfinite(y).all() and np.isfinite(gradient).all()
    for ours, key in ((y, "y"), (gradient, "grad_x")):
      theirs = GOLDEN[f"{name}/{case}/{bits}/{key}"]
      known = np.isfinite(theirs)  # a fully masked row is NaN there and 0 here
      scale = np.maximum(1, np.abs(theirs[known]))
      np.testing.assert_array_less(np.abs(np.asarray(ours)[known] - theirs[known]) / scale, loose)


@pytest.mark.parametrize("case", [c for c in CASES if c != "all_masked"])
def test_entropy_against_scipy(case):
  with jax.enable_x64(True):
    ours = ops.entropy(jnp.asarray(GOLDEN[f"x/{case}"], jnp.float64))
    np.testing.assert_allclose(ours, GOLDEN[f"scipy_entropy/{case}/entropy"], atol=1e-12)


def test_own_inverse_temperature_sees_entropy_and_count():
  seen = []

  def log_count(entropy, count):
    seen.append((entropy, count))
    return jnp.log(count)

  z = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
  where = np.arange(8) < np.array([8, 3, 0])[:, None]
  out = ops.adaptive_temperature_softmax(z, inverse_temperature=log_count, where=where)
  entropy, count = seen[0]
  np.testing.assert_array_equal(count, [[8], [3], [1]])
  np.testing.assert_allclose(entropy[:, 0], ops.entropy(z, where=where), atol=1e-7)
  expected = ops.softmax(z * np.log([[8], [3], [1]]).astype(np.float32), where=where)
  np.testing.assert_allclose(out, expected, atol=1e-6)


def test_sharpens_and_keeps_the_order():
  z = np.random.default_rng(1).normal(size=(64, 40)) * np.linspace(0, 4, 64)[:, None]
  z = z.astype(np.float32)
  before, after = ops.softmax(z), ops.adaptive_temperature_softmax(z)
  assert (after.max(-1) >= before.max(-1) - 1e-6).all()
  np.testing.assert_array_equal(np.argmax(after, -1)[1:], np.argmax(before, -1)[1:])
  np.testing.assert_allclose(ops.adaptive_temperature_softmax(z + 7), after, atol=1e-5)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_gradients(stop_gradient):
  with jax.enable_x64(True):
    z = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6)))
    where = np.arange(6) < np.array([[6], [3], [1], [0]])
    adaptive = partial(ops.adaptive_temperature_softmax, where=where)
    check_grads(adaptive, (z,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)
    beta = ops.entropy_polynomial(ops.entropy(z, where=where))[:, None]
    frozen = jax.jacobian(lambda z: ops.softmax(beta * z, where=where))(z)
    stopped = jax.jacobian(partial(adaptive, stop_gradient=stop_gradient))(z)
    assert bool(jnp.allclose(stopped, frozen, atol=1e-12)) == stop_gradient


def test_learned_inverse_temperature_gets_a_gradient():
  z = jnp.asarray([[0.0, 1.0, 2.0]])

  def peak(scale):
    p = ops.adaptive_temperature_softmax(z, inverse_temperature=lambda h, n: 1 + scale * h)
    return p.max()

  assert jax.jit(jax.grad(peak))(0.5) > 0
