"""Tests of soft_decay: the authors' values and gradients, ties, missing ranks, limits."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/svt_softdecay.npz")
RNG = np.random.default_rng(0)


def rebuild(x, alpha):
  """The definition in NumPy and float64."""
  u, s, vt = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
  f = -np.log(1 - alpha * (s + alpha)) / alpha
  return (u * (f * s[0] / f[0])) @ vt


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", ["token_uniform", "tall"])
def test_golden(case, bits):
  loose = 1e-4 if bits == "f32" else 1e-7
  with jax.enable_x64(bits == "f64"):
    x, cotangent = (
      jnp.asarray(GOLDEN[f"layer/{case}/{k}"], f"float{bits[1:]}") for k in ("x", "cotangent")
    )
    theirs = {k: GOLDEN[f"layer/{case}/{bits}/{k}"] for k in ("y", "grad_x", "grad_alpha", "alpha")}

    def f(x, alpha):
      return ops.soft_decay(x, alpha=alpha, eps=1e-7)

    y, pull = jax.vjp(f, x, jnp.asarray(theirs["alpha"], x.dtype))
    grad_x, grad_alpha = pull(cotangent)
    for ours, name in ((y, "y"), (grad_x, "grad_x"), (grad_alpha, "grad_alpha")):
      np.testing.assert_allclose(ours, theirs[name], rtol=loose, atol=loose)


@pytest.mark.parametrize("bits", ["f32", "f64"])
def test_golden_fixed_alpha(bits):
  loose = 1e-4 if bits == "f32" else 1e-7
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN["layer/token_uniform/x"], f"float{bits[1:]}")
    y = ops.soft_decay(x, alpha=-0.6, eps=1e-7)
    expected = GOLDEN[f"soft_expand_alpha-0.6/token_uniform/{bits}/y"]
    np.testing.assert_allclose(y, expected, rtol=loose, atol=loose)


@pytest.mark.parametrize("bits", ["f32", "f64"])
def test_golden_missing_rank_as_published(bits):
  loose = 1e-4 if bits == "f32" else 1e-7
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN["layer/rank_deficient/x"], f"float{bits[1:]}")
    alpha = float(GOLDEN[f"layer/rank_deficient/{bits}/alpha"])
    y = ops.soft_decay(x, alpha=alpha, eps=1e-7, zero_tolerance=0.0)
    values = np.linalg.svd(np.asarray(y, np.float64), compute_uv=False)
    expected = GOLDEN[f"layer/rank_deficient/{bits}/singular_values_out"]
    np.testing.assert_allclose(values, expected, rtol=loose, atol=loose)
    assert (values[:, -1] > 0.05).all()  # from nothing, along arbitrary vectors


def test_what_is_zero_stays_zero():
  x = jnp.asarray(GOLDEN["layer/rank_deficient/x"], jnp.float32)
  values = np.linalg.svd(np.asarray(ops.soft_decay(x), np.float64), compute_uv=False)
  assert (values[:, -1] < 1e-5).all() and (values[:, -2] > 1).all()
  thin = RNG.normal(size=(7, 2)) @ RNG.normal(size=(2, 5)) * 3
  np.testing.assert_allclose(ops.soft_decay(thin), ops.soft_decay(thin + 1e-9), atol=1e-4)
  np.testing.assert_array_equal(ops.soft_decay(jnp.zeros((3, 4))), 0)
  np.testing.assert_array_equal(jax.grad(lambda x: ops.soft_decay(x)[0, 0])(jnp.zeros((3, 4))), 0)


def test_closed_form_and_effective_rank():
  out = ops.soft_decay(np.diag([4.0, 1]))
  np.testing.assert_allclose(out, np.diag([4, 4 * np.log(1.16) / np.log(1.76)]), rtol=1e-6)
  x = RNG.normal(size=(9, 6)) + 5  # tokens that are nearly alike
  before, after = (np.linalg.svd(m, compute_uv=False) for m in (x, np.asarray(ops.soft_decay(x))))
  assert after[0] == pytest.approx(before[0], rel=1e-5)
  assert (after[1:] > before[1:]).all()


def test_alpha_of_zero_is_the_identity_and_the_limit():
  with jax.enable_x64(True):
    x = jnp.asarray(RNG.normal(size=(5, 4)))
    np.testing.assert_allclose(ops.soft_decay(x, alpha=0.0), x, atol=1e-14)
    for alpha in (1e-9, -1e-9):
      np.testing.assert_allclose(ops.soft_decay(x, alpha=alpha), x, atol=1e-7)

    def f(alpha):
      return ops.soft_decay(x, alpha=alpha)[1, 2]

    slope = (f(1e-5) - f(-1e-5)) / 2e-5
    assert float(jax.grad(f)(0.0)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(
  ("shape", "alpha"), [((6, 4), -0.2), ((4, 6), -0.9), ((5, 5), 0.03), ((1, 3), -0.2)]
)
@pytest.mark.slow
def test_derivatives_numerically(shape, alpha):
  with jax.enable_x64(True):
    x = jnp.asarray(RNG.normal(size=shape) * 2)

    def f(x, alpha):
      return ops.soft_decay(x, alpha=alpha)

    check_grads(f, (x, alpha), order=1, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_derivative_at_ties():
  with jax.enable_x64(True):
    u, v = (np.linalg.qr(RNG.normal(size=(n, n)))[0] for n in (6, 4))
    direction = RNG.normal(size=(6, 4))
    for values in ([5.0, 2, 2, 2], [5, 3, 3, 1], [4, 2, 2 + 1e-9, 2 - 1e-9]):
      x = u[:, :4] * np.array(values) @ v.T
      _, rate = jax.jvp(ops.soft_decay, (jnp.asarray(x),), (jnp.asarray(direction),))
      step = 1e-5
      moved = [rebuild(x + s * step * direction, -0.2) for s in (1, -1)]
      np.testing.assert_allclose(rate, (moved[0] - moved[1]) / (2 * step), atol=1e-7)
    # A tie of the largest: the scale goes with the mean, whatever vectors LAPACK chose.
    q = u[:, :4] @ v.T * 3
    _, rate = jax.jvp(ops.soft_decay, (jnp.asarray(q),), (jnp.asarray(q),))
    np.testing.assert_allclose(rate, q, atol=1e-12)


def test_derivative_at_a_missing_rank_is_that_within_the_rank():
  with jax.enable_x64(True):
    a, b, da, db = (RNG.normal(size=s) for s in ((6, 2), (2, 5), (6, 2), (2, 5)))
    a, b = 3 * a, b
    x, dx = a @ b, da @ b + a @ db
    _, rate = jax.jvp(ops.soft_decay, (jnp.asarray(x),), (jnp.asarray(dx),))
    step = 1e-6
    moved = [ops.soft_decay((a + s * step * da) @ (b + s * step * db)) for s in (1, -1)]
    np.testing.assert_allclose(rate, (moved[0] - moved[1]) / (2 * step), atol=1e-6)


def test_transformations_and_dtypes():
  x = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32) * 3
  whole = ops.soft_decay(x)
  for i, j in np.ndindex(2, 3):
    np.testing.assert_allclose(whole[i, j], rebuild(x[i, j], -0.2), atol=2e-5)
  np.testing.assert_allclose(jax.jit(jax.vmap(ops.soft_decay))(x), whole, atol=1e-6)
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(ops.soft_decay(x) ** 3)))
  np.testing.assert_allclose(
    jax.vmap(gradient)(x[0]), [gradient(m) for m in x[0]], rtol=1e-3, atol=1e-3
  )
  half = ops.soft_decay(jnp.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), whole, atol=0.1)
  assert ops.soft_decay(jnp.zeros((2, 0, 3))).shape == (2, 0, 3)
  assert np.isnan(ops.soft_decay(jnp.full((2, 2), jnp.nan))).all()


PROGRAM = """
import jax, numpy as np
from rankbias import ops

@jax.jit
@jax.vmap
def layers(xs):
  return [jax.grad(lambda x: ops.soft_decay(x).sum())(x) for x in xs]

x = np.random.default_rng(0).normal(size=(6, 8, 48, 32)).astype(np.float32)
for _ in range(5):
  jax.block_until_ready(layers(x))
"""


def test_independent_batches_do_not_deadlock():
  subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)


def test_failures():
  with pytest.raises(ValueError, match=r"alpha = 1.5 must lie in \(-1, 1\)"):
    ops.soft_decay(jnp.eye(2), alpha=1.5)
  with pytest.raises(ValueError, match=r"zero_tolerance = 2.0 must lie in \[0, 1\)"):
    ops.soft_decay(jnp.eye(2), zero_tolerance=2.0)
  with pytest.raises(NotImplementedError, match="second derivative of soft_decay"):
    jax.hessian(lambda x: ops.soft_decay(x).sum())(jnp.eye(3))
  assert np.isnan(ops.soft_decay(10 * jnp.eye(2), alpha=0.5)).all()
