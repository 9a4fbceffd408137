"""Tests of logistic-softmax and sigsoftmax: public implementations, limits, gradients."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
LOGISTIC = np.load(GOLDEN / "logistic_softmax.npz")
SIG = np.load(GOLDEN / "bottleneck_softmaxes.npz")
CASES = ["random", "ties", "large", "tiny", "all_negative", "single", "masked_neginf", "all_masked"]


def compare(f, golden, prefix, case, bits, loose):
  """Asserts value and gradient where the origin has a finite one; ours must be finite anywhere."""
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(golden[f"x/{case}"], f"float{bits[1:]}")
    y, pull = jax.vjp(f, x)
    (gradient,) = pull(jnp.asarray(golden[f"cotangent/{case}"], x.dtype))
    assert y.dtype == x.dtype and np.isfinite(y).all() and np.isfinite(gradient).all()
    for ours, key in ((y, "y"), (gradient, "grad_x")):
      theirs = golden[f"{prefix}/{case}/{bits}/{key}"]
      known = np.isfinite(theirs)
      scale = np.maximum(1, np.abs(theirs[known]))
      np.testing.assert_array_less(np.abs(np.asarray(ours)[known] - theirs[known]) / scale, loose)


@pytest.mark.parametrize("tau", ["0.2", "0.5", "1", "2"])
@pytest.mark.parametrize("case", CASES)
def test_logistic_softmax_of_its_authors(case, tau):
  f = partial(ops.logistic_softmax, temperature=float(tau))
  loose = 1e-3 if case == "large" else 1e-5
  compare(f, LOGISTIC, f"logistic_softmax/tau{tau}", case, "f32", loose)
  # They add up sigmoids, which underflow far below zero: NaN for a row of `large`.
  compare(f, LOGISTIC, f"logistic_softmax/tau{tau}", case, "f64", 1e-10)


@pytest.mark.parametrize("case", CASES)
def test_sigsoftmax_of_others(case):
  naive = "sigsoftmax_naive_quettabit"
  compare(ops.sigsoftmax, SIG, naive, case, "f32", 1e-3 if case == "large" else 1e-5)
  compare(ops.sigsoftmax, SIG, naive, case, "f64", 1e-10)


@pytest.mark.parametrize("case", ["random", "ties", "tiny"])
def test_logarithm_of_sigsoftmax_of_others(case):
  """Theirs adds 1e-8 inside logarithms of sigmoids, which are above 0.1 in these cases."""

  def log(z):
    p = ops.sigsoftmax(z)
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), 0)

  compare(log, SIG, "log_sigsoftmax_dzionek", case, "f32", 1e-5)
  compare(log, SIG, "log_sigsoftmax_dzionek", case, "f64", 1e-6)


def test_far_from_zero_they_are_softmax_or_uniform():
  z = np.array([[1e4, 9998.0, 9999.0], [-1e4, -10002.0, -10001.0]], np.float32)
  p = ops.softmax(z)
  np.testing.assert_allclose(ops.logistic_softmax(z), [[1 / 3] * 3, p[1]], atol=1e-7)
  np.testing.assert_allclose(ops.sigsoftmax(z), [p[0], ops.softmax(2 * z)[1]], atol=1e-7)
  # A sum of the two terms would be -inf here, that is, masked.
  np.testing.assert_array_equal(ops.sigsoftmax(np.array([-3e38, -jnp.inf], np.float32)), [1, 0])


def test_logistic_temperature_per_row_and_traced():
  z = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  rows = np.array([[0.1], [1.0], [10.0]], np.float32)
  sig = 1 / (1 + np.exp(-z.astype(np.float64) / rows))
  out = jax.jit(lambda t: ops.logistic_softmax(z, temperature=t))(rows)
  np.testing.assert_allclose(out, sig / sig.sum(-1, keepdims=True), atol=1e-6)


def test_sigsoftmax_leaves_the_span_of_the_logits():
  # log softmax of rank-d logits has rank d + 1 at most; this is why sigsoftmax exists.
  rng = np.random.default_rng(1)
  with jax.enable_x64(True):
    z = jnp.asarray(rng.normal(size=(40, 3)) @ rng.normal(size=(3, 30)))
    ranks = [np.linalg.matrix_rank(jnp.log(f(z)), 1e-10) for f in (ops.softmax, ops.sigsoftmax)]
  assert ranks[0] == 4 and ranks[1] > 8


@pytest.mark.parametrize("shift", [0.0, -300.0, 300.0])
def test_gradients(shift):
  with jax.enable_x64(True):
    z = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4)) + shift)

    def logistic(z, t):
      return ops.logistic_softmax(z, temperature=t)

    check_grads(logistic, (z, jnp.asarray(0.7)), 2, ("fwd", "rev"), atol=1e-4, rtol=1e-5, eps=1e-5)
    check_grads(ops.sigsoftmax, (z,), 2, ("fwd", "rev"), atol=1e-5, rtol=1e-5, eps=1e-5)


def test_static_temperature_must_be_positive():
  with pytest.raises(ValueError, match=r"temperature = 0 must be positive"):
    ops.logistic_softmax(np.zeros(2), temperature=0)
