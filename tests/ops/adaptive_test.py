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
VARIANTS = np.load(pathlib.Path(__file__).parents[1] / "golden/attention_variants.npz")
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
@pytest.mark.slow
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
    np.testing.assert_allclose(ours, GOLDEN[f"scipy_entropy/{case}/entropy"], 1e-12, 1e-12)


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


@jax.jit
def scaled(x, scale, bias, cotangent):
  y, pull = jax.vjp(lambda x: ops.scalable_softmax(x, scale=scale, bias=bias), x)
  return y, pull(cotangent)[0]


@pytest.mark.parametrize("bias", ["0", "0.3"])
@pytest.mark.parametrize("scale", ["0.1", "0.43", "1"])
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize(
  "case", ["random", "ties", "large", "tiny", "all_negative", "single", "masked_neginf"]
)
def test_scalable_softmax_of_others(case, bits, scale, bias):
  loose = {"f32": 1e-3 if case == "large" else 1e-5, "f64": 1e-10}[bits]
  setting = f"s{scale}_bias{bias}"
  scale, bias = float(np.float32(scale)), float(np.float32(bias))
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(VARIANTS[f"x/{case}"], f"float{bits[1:]}")
    if case == "masked_neginf":  # theirs counts every entry, so theirs is ours without a mask
      bias, scale = bias + scale * np.log(x.shape[-1]), 0.0
    own = (jnp.asarray(number, x.dtype) for number in (scale, bias))
    y, gradient = scaled(x, *own, jnp.asarray(VARIANTS[f"cotangent/{case}"], x.dtype))
    for ours, key in ((y, "y"), (gradient, "grad_x")):
      theirs = VARIANTS[f"ssmax/{setting}/{case}/{bits}/{key}"]
      known = np.isfinite(theirs)
      assert np.isfinite(ours).all()
      distance = np.abs(np.asarray(ours)[known] - theirs[known])
      np.testing.assert_array_less(distance / np.maximum(1, np.abs(theirs[known])), loose)


def test_scalable_softmax_counts_unmasked_entries_per_head():
  z = np.random.default_rng(3).normal(size=(2, 3, 4, 4)).astype(np.float32)
  causal = np.tri(4, dtype=bool)
  scale, bias = np.float32([0.0, 0.5, 2.0]).reshape(3, 1, 1), np.float32([1.0, 0.0, -1.0])
  bias = bias.reshape(3, 1, 1)
  beta = scale * np.log([[1], [2], [3], [4]]).astype(np.float32) + bias
  expected = ops.softmax(z * beta, where=causal)
  out = jax.jit(lambda s, b: ops.scalable_softmax(z, scale=s, bias=b, where=causal))(scale, bias)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  np.testing.assert_array_equal(
    ops.scalable_softmax(jnp.where(causal, z, -jnp.inf), scale=scale, bias=bias), out
  )


def test_scalable_softmax_keeps_attending_as_the_row_grows():
  # One logit of 3 among logits of -2: softmax fades, n^(0.43 * 5) outgrows n.
  top = [
    [f(jnp.full(n, -2.0).at[0].set(3.0))[0] for n in (10, 1000, 100000)]
    for f in (ops.softmax, ops.scalable_softmax)
  ]
  assert top[0][0] > 0.9 and top[0][2] < 0.01
  assert top[1][2] > top[1][1] > top[1][0] > 0.9


def test_scalable_softmax_gradients():
  with jax.enable_x64(True):
    z = jnp.asarray(np.random.default_rng(4).normal(size=(3, 4)))
    where = np.arange(4) < np.array([[4], [2], [0]])

    def scaled(z, scale, bias):
      return ops.scalable_softmax(z, scale=scale, bias=bias, where=where)

    own = jnp.asarray([[0.4], [-0.5], [1.0]]), jnp.asarray(0.2)
    check_grads(scaled, (z, *own), 2, ("fwd", "rev"), atol=1e-6, rtol=1e-6, eps=1e-5)


def test_scale_along_the_row_is_refused():
  with pytest.raises(ValueError, match=r"scale of shape \(4,\) varies along axis = -1"):
    ops.scalable_softmax(np.zeros((2, 4)), scale=np.ones(4))
