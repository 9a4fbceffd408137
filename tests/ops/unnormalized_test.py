"""Tests of softmax_plus_n, softpick and sigmoid_weights: public values, extremes, gradients."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/attention_variants.npz")
CASES = ["random", "ties", "large", "tiny", "all_negative", "single", "masked_neginf", "all_masked"]
CASES += ["all_zero", "some_zero", "all_neg_small", "very_negative", "very_positive"]
Z = np.random.default_rng(0).normal(size=(3, 5)) * 2


def compare(f, prefix, case, bits, loose, steep=None):
  """Asserts value and gradient where the origin has a finite one; ours must be finite anywhere.

  The gradient to `steep`, if it is given.
  """
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN[f"x/{case}"], f"float{bits[1:]}")
    y, pull = jax.vjp(f, x)
    (gradient,) = pull(jnp.asarray(GOLDEN[f"cotangent/{case}"], x.dtype))
    assert y.dtype == x.dtype and np.isfinite(y).all() and np.isfinite(gradient).all()
    for ours, key, limit in ((y, "y", loose), (gradient, "grad_x", steep or loose)):
      theirs = GOLDEN[f"{prefix}/{case}/{bits}/{key}"]
      known = np.isfinite(theirs)
      scale = np.maximum(1, np.abs(theirs[known]))
      np.testing.assert_array_less(np.abs(np.asarray(ours)[known] - theirs[known]) / scale, limit)


@pytest.mark.parametrize("case", [case for case in CASES if case != "masked_neginf"])
def test_softpick_of_its_authors(case):
  # Theirs subtracts exponentials that differ by 3e-7 in `tiny`: of the 16 digits 6 are lost, in the
  # gradient by every one of its four factors, and all in float32. Where the maximum is tied, theirs
  # moves eps = 1e-8 with one of them, which a slope below 1/4 makes 2.5e-9 of the gradient.
  steep = {"tiny": 4 * 2**-53 / 2e-7, "ties": 2.5e-9, "large": 2.5e-9}.get(case)
  compare(ops.softpick, "softpick", case, "f64", 1e-10, steep)
  if case != "tiny":
    compare(ops.softpick, "softpick", case, "f32", 1e-3 if case == "large" else 1e-5)


@pytest.mark.parametrize("n", ["0", "0.5", "1", "2"])
@pytest.mark.parametrize("case", [c for c in CASES if f"softmax_n/n1/{c}/f32/y" in GOLDEN.files])
def test_softmax_plus_n_of_others(case, n):
  f = partial(ops.softmax_plus_n, n=float(n))
  compare(f, f"softmax_n/n{n}", case, "f32", 1e-3 if case == "large" else 1e-5)
  compare(f, f"softmax_n/n{n}", case, "f64", 1e-10)


@pytest.mark.parametrize("bits", ["f32", "f64"])
def test_sigmoid_of_its_authors(bits):
  loose = 1e-5 if bits == "f32" else 1e-10
  sigmoid = partial(ops.sigmoid_weights, bias=0)
  compare(sigmoid, "apple_activation/sigmoid", "scores_2x2x5x5", bits, loose)


def test_softmax_plus_n_is_softmax_with_one_more_logit():
  n = np.array([[0.0], [0.5], [30.0]])
  with np.errstate(divide="ignore"):
    expected = scipy.special.softmax(np.hstack([Z, np.log(n)]), -1)[:, :-1]
  np.testing.assert_allclose(ops.softmax_plus_n(Z, n=n), expected, atol=1e-6)
  traced = jax.jit(lambda n: ops.softmax_plus_n(Z, n=n))(0)
  np.testing.assert_allclose(traced, ops.softmax(Z), atol=1e-7)


def test_softmax_plus_n_far_from_zero():
  z = np.array([[-1e4, -9999.0], [1e4, 9999.0], [-3e38, -3e38]], np.float32)
  p = np.array([scipy.special.softmax(row) for row in z.astype(np.float64)])
  np.testing.assert_allclose(ops.softmax_plus_n(z, n=0), p, atol=1e-7)
  np.testing.assert_allclose(ops.softmax_plus_n(z, n=1), p * [[0], [1], [0]], atol=1e-7)
  tiny = ops.softmax_plus_n(np.float32([-60, -70]), n=np.float32(1e-30))
  np.testing.assert_allclose(tiny, np.exp([-60.0, -70]) / (1e-30 + np.exp([-60.0, -70]).sum()))


def test_softmax_plus_n_derivative_in_n():
  # 1 / sum e^z overflows for a row far below zero, and it is 1 / 0 for a row without an entry.
  z = np.array([[-200.0, -201.0], [-np.inf, -np.inf], [0.0, 1.0]], np.float32)
  slope = jax.jacobian(lambda n: ops.softmax_plus_n(z, n=n))(0.0)
  assert np.isfinite(slope).all() and (slope[0] < -1e37).all() and (slope[1] == 0).all()
  np.testing.assert_allclose(slope[2], -np.exp([0, 1]) / (1 + np.e) ** 2, rtol=1e-6)


def test_softpick_is_exact_close_to_zero():
  z = np.array([[1e-6, -3e-6, 5e-7], [3e-4, 1e-4, -2e-4]], np.float32)
  sizes = np.expm1(z.astype(np.float64))
  expected = np.maximum(sizes, 0) / (np.abs(sizes).sum(-1, keepdims=True) + 1e-8 * np.exp(z.max()))
  np.testing.assert_allclose(ops.softpick(z), expected, rtol=1e-6)


def test_softpick_leaves_masked_entries_out_of_the_sum():
  z = np.array([1.0, 2.0, -1.0])
  longer = ops.softpick(np.append(z, -np.inf))
  np.testing.assert_allclose(longer, np.append(ops.softpick(z), 0), atol=1e-7)
  np.testing.assert_allclose(
    ops.softpick(np.append(z, 7.0), where=np.arange(4) < 3), longer, atol=1e-7
  )


@pytest.mark.parametrize("top", [0.0, -1e-6, -1.0, -90.0, -1e4])
def test_softpick_without_a_positive_logit_is_zero_and_flat(top):
  z = jnp.asarray([top, top, top - 1], jnp.float32)
  assert (ops.softpick(z) == 0).all()
  assert (jax.jacobian(ops.softpick)(z) == 0).all()


def test_softpick_derivative_at_zero_is_zero():
  # Between the one-sided ones: -1 and 1 for its part of the sum, 0 and 1 for its own weight.
  rows = jax.jacobian(ops.softpick)(jnp.asarray([0.0, 1.0, -1.0]))
  assert (rows[:, 0] == 0).all() and rows[1, 1] > 0 and rows[1, 2] > 0


def test_sigmoid_weights_bias():
  where = np.arange(5) < np.array([[5], [2], [0]])
  expected = scipy.special.expit(Z - np.log([[5], [2], [1]])) * where
  np.testing.assert_allclose(ops.sigmoid_weights(Z, where=where), expected, atol=1e-7)
  per_entry = np.linspace(-1, 1, 5)
  out = jax.jit(lambda b: ops.sigmoid_weights(Z, bias=b))(per_entry)
  np.testing.assert_allclose(out, scipy.special.expit(Z + per_entry), atol=1e-7)
  far = ops.sigmoid_weights(np.float32([-80, 80]), bias=0)
  np.testing.assert_allclose(far, [np.exp(-80.0), 1], rtol=1e-5)


@pytest.mark.slow
def test_gradients_with_respect_to_own_arguments():
  with jax.enable_x64(True):
    z, rows = jnp.asarray(Z), jnp.asarray([[0.5], [1.0], [30.0]])

    def constant(z, n):
      return ops.softmax_plus_n(z, n=n)

    def picked(z, eps):
      return ops.softpick(z, eps=eps)

    def biased(z, bias):
      return ops.sigmoid_weights(z, bias=bias)

    both = ("fwd", "rev")
    check_grads(constant, (z, rows), 2, both, atol=1e-6, rtol=1e-6, eps=1e-5)
    check_grads(picked, (z, jnp.asarray(0.3)), 2, both, atol=1e-6, rtol=1e-6, eps=1e-5)
    check_grads(biased, (z, -rows), 2, both, atol=1e-6, rtol=1e-6, eps=1e-5)


def test_static_mistakes():
  with pytest.raises(ValueError, match=r"n = -1 must not be negative: 0 is softmax"):
    ops.softmax_plus_n(Z, n=-1)
  with pytest.raises(ValueError, match=r"n of shape \(5,\) varies along axis = -1.*size 1"):
    ops.softmax_plus_n(Z, n=np.ones(5))
  with pytest.raises(ValueError, match=r"eps = 0 must be positive: .* Pass 1e-8"):
    ops.softpick(Z, eps=0)
