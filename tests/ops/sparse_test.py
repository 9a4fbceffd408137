"""Tests of sparsemax and entmax: golden values, a float64 reference, alpha, hard rows, failures."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops
from rankbias.ops import tsallis

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/entmax.npz")
RNG = np.random.default_rng(0)
ALPHAS = [1, 1.05, 1.25, 1.3, 1.5, 1.75, 1.9, 2]
CASES = ("random", "ties", "large", "tiny", "all_negative", "single", "masked_neginf")
MAPS = {
  "sparsemax": ops.sparsemax,
  "entmax15": ops.entmax15,
  **{
    f"entmax_bisect/alpha{a}": partial(ops.entmax, alpha=a)
    for a in (1.05, 1.25, 1.333, 1.5, 1.75, 2, 2.5, 4)
  },
}


def bisected(z, alpha):
  """The weights in float64, by 200 halvings of the shift."""
  z, a = np.float64(z) - np.max(z, -1, keepdims=True), alpha - 1

  def weights(shift):
    x = np.maximum(a * (z - shift), -1)
    with np.errstate(divide="ignore"):
      return np.exp(z - shift) if a == 0 else np.exp(np.log1p(x) / a)

  low = np.zeros((*z.shape[:-1], 1))
  high = low + (np.log(z.shape[-1]) if a == 0 else -np.expm1(-a * np.log(z.shape[-1])) / a)
  for _ in range(200):
    middle = (low + high) / 2
    above = weights(middle).sum(-1, keepdims=True) >= 1
    low, high = np.where(above, middle, low), np.where(above, high, middle)
  return weights(low) / weights(low).sum(-1, keepdims=True)


def hard_rows(n):
  """Rows that are hard for a search: ties, a kink beside the solution, heavy tails, ladders."""
  return {
    "scales": RNG.normal(size=(6, n)) * np.array([[1e-6], [0.01], [0.3], [1], [10], [1e4]]),
    "ties": RNG.integers(0, 3, size=(6, n)),
    "two levels": np.where(RNG.random((6, n)) < 0.01, 0, -0.3),
    "one above": np.eye(n)[:6] * np.array([[0.01], [0.1], [0.5], [1], [2], [30]]),
    "cauchy": RNG.standard_cauchy(size=(6, n)),
    "logarithms": -np.log1p(np.arange(n)) * np.array([[0.01], [0.1], [0.5], [1], [2], [3]]),
    "ladders": -np.arange(n) * np.array([[1e-6], [1e-4], [0.01], [1], [0], [0.1]]),
  }


def stacked(name, bits):
  """All rows of the cases that a map was run on, padded to 8 by -inf, and their cotangents."""
  cases = [case for case in CASES if f"{name}/{case}/{bits}/y" in GOLDEN]

  def padded(key, fill):
    rows = [GOLDEN[f"{key}/{case}"] for case in cases]
    rows = [np.pad(x, [(0, 0), (0, 8 - x.shape[1])], constant_values=fill) for x in rows]
    return jnp.asarray(np.concatenate(rows), f"float{bits[1:]}")

  return cases, padded("x", -np.inf), padded("cotangent", 0)


QUICK = ("sparsemax", "entmax15", "entmax_bisect/alpha1.25")


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MAPS]
)
def test_golden_values_and_gradients(name):
  pulled = jax.jit(lambda z, cotangent: (MAPS[name](z), *jax.vjp(MAPS[name], z)[1](cotangent)))
  for bits, loose in (("f64", 1e-8 if "bisect" in name else 1e-10), ("f32", 1e-5)):
    with jax.enable_x64(bits == "f64"):
      cases, z, cotangent = stacked(name, bits)
      results = [np.asarray(x) for x in pulled(z, cotangent)]
    for case in cases:
      limit = 5e-4 if case == "large" and bits == "f32" else loose
      for i, key in enumerate(("y", "grad_x")):
        theirs = GOLDEN[f"{name}/{case}/{bits}/{key}"]
        ours, results[i] = np.split(results[i], [len(theirs)])
        ours = ours[:, : theirs.shape[1]]
        np.testing.assert_array_less(
          np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)), limit, err_msg=f"{key} of {case}"
        )


@pytest.mark.parametrize(("bits", "loose"), [("f32", 1e-5), ("f64", 1e-10)])
def test_golden_sparsemax_of_columns(bits, loose):
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN["x/random"], f"float{bits[1:]}")
    y, back = jax.vjp(partial(ops.sparsemax, axis=0), x)
    (gradient,) = back(jnp.asarray(GOLDEN["cotangent/random"], x.dtype))
  for ours, key in ((y, "y"), (gradient, "grad_x")):
    np.testing.assert_allclose(
      ours, GOLDEN[f"sparsemax_dim0/random/{bits}/{key}"], atol=loose, rtol=0
    )


@pytest.mark.slow
def test_golden_gradient_in_alpha():
  """One number for all rows there, the sum of ours."""
  with jax.enable_x64(True):
    cases, z, cotangent = stacked("entmax_bisect/alpha1.5", "f64")

    @jax.jit
    def per_row(alpha):
      return jax.vjp(lambda a: ops.entmax(z, alpha=a), alpha)[1](cotangent)[0][:, 0]

    for alpha in (1.05, 1.25, 1.333, 1.5, 1.75, 2, 2.5, 4):
      gradient = np.asarray(per_row(jnp.full((len(z), 1), float(alpha))))
      for case in cases:
        mine, gradient = np.split(gradient, [len(GOLDEN[f"x/{case}"])])
        key = f"entmax_bisect/alpha{alpha}/{case}/f64/grad_alpha"
        if key in GOLDEN:
          np.testing.assert_allclose(mine.sum(), GOLDEN[key], rtol=1e-8, atol=1e-8, err_msg=key)


def test_golden_alpha_of_each_row():
  name = "entmax_bisect/alpha_per_row"
  with jax.enable_x64(True):
    alpha = jnp.asarray(GOLDEN[f"{name}/param_alpha"])
    y, back = jax.vjp(lambda z, a: ops.entmax(z, alpha=a), jnp.asarray(GOLDEN["x/random"]), alpha)
    gradient, in_alpha = back(jnp.asarray(GOLDEN["cotangent/random"]))
  for ours, key in ((y, "y"), (gradient, "grad_x"), (in_alpha, "grad_alpha")):
    np.testing.assert_allclose(ours, GOLDEN[f"{name}/random/f64/{key}"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("n", [40, 1000])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_hard_rows_against_bisection(alpha, n):
  for name, z in hard_rows(n).items():
    z = z.astype(np.float32)
    exact = bisected(z, alpha)
    # A rounding of (alpha - 1) z - tau moves each weight by p^(2 - alpha), and the sum by all.
    slope = np.where(exact > 0, np.where(exact > 0, exact, 1) ** (2 - alpha), 1)
    bound = 5e-7 + np.finfo(np.float32).eps * (slope + exact * slope.sum(-1, keepdims=True))
    for p in (ops.entmax(z, alpha=alpha), ops.entmax(z, alpha=jnp.full((6, 1), float(alpha)))):
      np.testing.assert_array_less(np.abs(p - exact), bound, err_msg=name)


@pytest.mark.parametrize("alpha", [1.25, 1.5, 1.75, 1.9, 2])
def test_a_second_entry_that_just_enters_the_support(alpha):
  """The search begins there, with a slope far too steep: a short step is no sign of its end."""
  z = np.full((200, 20), -9 / (alpha - 1), np.float32)
  z[:, 0], z[:, 1] = 0, (np.geomspace(1e-7, 0.1, 200) - 1) / (alpha - 1)
  np.testing.assert_allclose(ops.entmax(z, alpha=alpha), bisected(z, alpha), atol=3e-7)


def test_sparsemax_is_right_to_half_a_digit():
  z = RNG.normal(size=(2048, 1000)).astype(np.float32)
  exact = bisected(z, 2)
  rounding = np.finfo(np.float32).eps / 2  # of (alpha - 1) z - max z, and of the threshold
  np.testing.assert_allclose(ops.sparsemax(z), exact, rtol=0, atol=rounding)


def test_float64_is_exact():
  with jax.enable_x64(True):
    for z in hard_rows(300).values():
      for alpha in (1.25, 1.6, 2.0, 3.0):
        exact = bisected(z, alpha)
        np.testing.assert_allclose(ops.entmax(jnp.float64(z), alpha=alpha), exact, atol=1e-11)


def test_a_few_passes_are_enough():
  """The claim behind the speed: about six passes, not the fifty of a bisection."""
  z = jnp.asarray(RNG.normal(size=(64, 1000)), jnp.float32)
  for a in (0.1, 0.25, 0.5, 0.75, 1.0):
    passes = []
    search = tsallis._search

    def counted(*arguments, search=search, passes=passes):
      state = search(*arguments)
      passes.append(int(state.passes))
      return state

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(tsallis, "_search", counted)
      tsallis._solve(z, a, -1)
    blocks, whole = passes
    assert blocks <= 11 and whole - 1 <= 7  # the state of `whole` begins at one


def test_alpha_one_is_softmax_and_continuous_there():
  z = jnp.asarray(RNG.normal(size=(5, 20)) * 3, jnp.float32)
  softmax = ops.softmax(z)
  np.testing.assert_allclose(ops.entmax(z, alpha=1), softmax, atol=1e-7)
  for alpha in (1.0, 1 + 1e-6, 1 + 1e-5):
    np.testing.assert_allclose(ops.entmax(z, alpha=jnp.float32(alpha)), softmax, atol=1e-4)
  np.testing.assert_allclose(ops.entmax(z, alpha=jnp.float32(1)), softmax, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 1.0005, 1.1, 1.5, 1.9, 2.6])
def test_derivative_in_alpha_against_differences(alpha):
  with jax.enable_x64(True):
    z = jnp.asarray(RNG.normal(size=(3, 6)))

    def f(a):
      return ops.entmax(z, alpha=a)

    step = 1e-5
    if alpha == 1:  # one-sided: below 1 there is no map
      expected = (
        (-3 * f(jnp.float64(1)) + 4 * f(jnp.float64(1 + step)) - f(1 + 2 * step)) / 2 / step
      )
    else:
      expected = (f(jnp.float64(alpha + step)) - f(jnp.float64(alpha - step))) / (2 * step)
    found = jax.jvp(f, (jnp.float64(alpha),), (jnp.float64(1),))[1]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("alpha", [1.25, 1.4])
def test_second_derivatives(alpha):
  with jax.enable_x64(True):
    z = jnp.asarray(RNG.normal(size=(2, 5)))
    check_grads(partial(ops.entmax, alpha=alpha), (z,), order=2, modes=["fwd", "rev"])
    check_grads(lambda z, a: ops.entmax(z, alpha=a), (z, jnp.float64(alpha)), order=1)


def test_support_of_a_known_row():
  np.testing.assert_allclose(ops.sparsemax(jnp.array([-2.0, 0.0, 0.5])), [0, 0.25, 0.75], atol=1e-7)
  p = ops.entmax15(jnp.array([-2.0, 0.0, 0.5]))
  assert p[0] == 0 and np.isclose(p[1], 0.3260, atol=5e-5)
  p = ops.entmax(jnp.array([-2.0, 0.0, 0.5]), alpha=1.25)
  np.testing.assert_allclose(p, [0.0053, 0.3521, 0.6426], atol=5e-5)


@pytest.mark.parametrize("alpha", [0.5, np.array([[1.5], [0.9]]), -1])
def test_alpha_below_one_raises(alpha):
  with pytest.raises(
    ValueError, match=r"(?s)alpha = .* must be at least 1: 1 is softmax, 2 sparsemax"
  ):
    ops.entmax(np.zeros((2, 3)), alpha=alpha)


def test_a_traced_alpha_below_one_gives_nan():
  p = jax.jit(lambda a: ops.entmax(jnp.zeros((2, 3)), alpha=a))(jnp.array([[1.5], [0.9]]))
  assert jnp.isfinite(p[0]).all() and jnp.isnan(p[1]).all()


def test_alpha_along_the_axis_raises():
  with pytest.raises(ValueError, match=r"alpha of shape \(3,\) varies along axis = -1"):
    ops.entmax(np.zeros((3, 3)), alpha=np.ones(3))
