"""Tests of the measures of rank: public implementations, closed forms, edges, derivatives."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from rankbias import rank

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/rank.npz")
# The zero matrix is decided on purpose: 0 here, and 0, 1 or NaN in the public implementations.
CASES = [k.removeprefix("x/") for k in GOLDEN.files if k.startswith("x/") and k != "x/zeros"]
SMOOTH = [rank.effective_rank, rank.rankme, rank.stable_rank, rank.participation_ratio]
COUNTS = [rank.numerical_rank, rank.covariance_rank, lambda s: rank.energy_rank(s, fraction=0.99)]
PUBLIC = {
  "effective_rank_noamrazin": (rank.effective_rank, False),
  "rankme_eps1e-7_components": (rank.rankme, False),
  "stable_rank_weightwatcher": (rank.stable_rank, False),
  "participation_ratio_uncentered_skdim": (rank.participation_ratio, False),
  "participation_ratio_centered_skdim": (rank.participation_ratio, True),
}


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_public_implementations(case, bits, name):
  key = f"{case}/{bits}/{name}"
  if key not in GOLDEN.files:
    assert case == "one_row"  # scikit-dimension refuses a single sample
    return
  measure, center = PUBLIC[name]
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN[f"x/{case}"], f"float{bits[1:]}")
    value = float(measure(rank.singular_values(x, center=center)))
    assert value == pytest.approx(float(GOLDEN[key]), rel=1e-4 if bits == "f32" else 1e-8)


@pytest.mark.parametrize("case", CASES)
def test_numerical_rank_at_the_tolerance_of_numpy(case):
  with jax.enable_x64(True):
    x = GOLDEN[f"x/{case}"]
    rtol = max(x.shape) * np.finfo(np.float64).eps
    ours = rank.numerical_rank(rank.singular_values(jnp.asarray(x)), rtol=rtol)
    assert ours == GOLDEN[f"{case}/f64/numpy_matrix_rank"]


def test_closed_forms():
  s = np.array([2.0, 1, 1, 0])
  assert rank.effective_rank(s) == pytest.approx(np.exp(1.5 * np.log(2)), rel=1e-6)
  assert rank.stable_rank(s) == pytest.approx(6 / 4)
  assert rank.participation_ratio(s) == pytest.approx(36 / 18)
  assert rank.numerical_rank(s) == 3 and rank.numerical_rank(s, rtol=0.5) == 1
  assert rank.covariance_rank(s, rtol=0.3) == 1 and rank.covariance_rank(s, rtol=0.2) == 3
  assert [float(rank.energy_rank(s, fraction=f)) for f in (0.5, 0.67, 0.8, 0.9, 1)] == [
    1,
    2,
    2,
    3,
    3,
  ]


@pytest.mark.parametrize("measure", [*SMOOTH, *COUNTS])
def test_k_equal_values_are_k_dimensions(measure):
  for k in (1, 2, 7):
    spectrum = np.concatenate([np.full(k, 3.0), np.zeros(5)])
    assert measure(spectrum) == pytest.approx(k, rel=2e-5)


def test_covariance_rank_is_numerical_rank_at_the_square_root():
  s = np.geomspace(1, 1e-4, 50)
  assert rank.covariance_rank(s, rtol=1e-3) == (s**2 > 1e-3).sum()
  assert rank.covariance_rank(s, rtol=1e-4) == rank.numerical_rank(s, rtol=1e-2)


def test_a_sweep_of_the_tolerance_follows_the_axes_of_the_batch():
  s = np.stack([np.geomspace(1, 10.0**-k, 40) for k in range(1, 7)]).reshape(2, 3, 40)
  rtol = np.geomspace(1e-5, 1e-1, 9).reshape(3, 3)
  for measure, power in ((rank.numerical_rank, 1), (rank.covariance_rank, 2)):
    swept = measure(s, rtol=rtol)
    assert swept.shape == (2, 3, 3, 3)
    parts = (s / s[..., :1]) ** power
    near = np.abs(np.log(parts[:, :, None, None] / rtol[..., None])).min(-1) < 1e-4
    expected = (parts[:, :, None, None] > rtol[..., None]).sum(-1)
    np.testing.assert_array_equal(np.where(near, 0, swept), np.where(near, 0, expected))
    for i, level in np.ndenumerate(rtol):
      np.testing.assert_array_equal(swept[..., *i], measure(s, rtol=level))
  fractions = np.array([0.5, 0.9])
  assert rank.energy_rank(s, fraction=fractions).shape == (2, 3, 2)


@pytest.mark.parametrize("measure", [*SMOOTH, *COUNTS])
def test_zero_matrix_and_non_finite_spectrum(measure):
  s = np.array([[0.0, 0, 0], [np.nan, 1, 0], [np.inf, 1, 0], [1, 0, 0]], np.float32)
  np.testing.assert_allclose(measure(s), [0, np.nan, np.nan, 1], rtol=1e-5)
  assert measure(np.zeros((2, 0), np.float32)).shape == (2,)


@pytest.mark.parametrize("measure", [*SMOOTH, *COUNTS])
@pytest.mark.parametrize("scale", [1e-34, 1e-12, 1e12, 1e36])
def test_scale_invariant(scale, measure):
  s = np.geomspace(1, 1e-2, 10)
  np.testing.assert_allclose(measure((s * scale).astype(np.float32)), measure(s), rtol=1e-4)


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_order_of_the_measures(spectrum):
  s = np.pad(np.array(spectrum, np.float32), (0, 12 - len(spectrum)))
  stable, ratio, effective = (
    rank.stable_rank(s),
    rank.participation_ratio(s),
    rank.effective_rank(s),
  )
  full = rank.numerical_rank(s, rtol=0)
  assert stable <= full * (1 + 1e-5) and ratio <= full * (1 + 1e-5)
  assert effective <= full * (1 + 1e-5) and effective >= min(1, full) * (1 - 1e-5)
  assert rank.numerical_rank(s) <= full and rank.energy_rank(s, fraction=1) <= full
  np.testing.assert_allclose(rank.effective_rank(s[::-1]), effective, rtol=1e-5)


@pytest.mark.parametrize("measure", SMOOTH)
def test_derivatives(measure):
  with jax.enable_x64(True):
    s = jnp.asarray([[3.0, 2, 1, 0.5], [5, 0.1, 0.02, 0.01]])
    check_grads(measure, (s,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)
  for edge in (jnp.zeros(3), jnp.array([1.0, 0, 0])):
    assert jnp.isfinite(jax.grad(measure)(edge)).all()


def test_transformations():
  s = np.abs(np.random.default_rng(0).normal(size=(5, 8))).astype(np.float32)
  for measure in [*SMOOTH, *COUNTS]:
    whole = measure(s)
    assert whole.shape == (5,) and whole.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(jax.vmap(measure))(s), whole, rtol=1e-6)
  assert jax.jit(lambda s, t: rank.numerical_rank(s, rtol=t))(s, 0.5).shape == (5,)


def test_half_precision_spectra_are_measured_in_float32():
  s = jnp.ones(3000, jnp.bfloat16)
  for measure in [*SMOOTH, *COUNTS[:2]]:
    assert measure(s) == pytest.approx(3000, rel=1e-2)


def test_press_rank_counts_what_is_above_the_rounding_of_the_data():
  m, n, k = 300, 200, 9
  level = 0.5 * np.sqrt(m + n + 1) * np.finfo(np.float32).eps  # 1.3e-6
  s = np.array([1, 0.1, level * 1.01, level * 0.99, 1e-12], np.float32)
  assert rank.press_rank(s, (m, n)) == 3
  assert rank.press_rank(s, (4 * m, 4 * n)) == 2
  assert rank.press_rank(s, (m, n), dtype=jnp.bfloat16) == 2
  np.testing.assert_array_equal(
    rank.press_rank(np.stack([s, 0 * s, np.nan * s]), (m, n)), [3, 0, np.nan]
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(m, k)) @ rng.normal(size=(k, n))
  with jax.enable_x64(True):
    assert rank.press_rank(rank.singular_values(x), x.shape) == k
    rounded = rank.singular_values(x.astype(np.float32).astype(np.float64))
    assert rank.press_rank(rounded, x.shape) == n  # rounding to float32 is noise
    assert rank.press_rank(rounded, x.shape, dtype="float32") == k
    noisy = rank.singular_values(x + 1e-8 * rng.normal(size=(m, n)))
    assert rank.press_rank(noisy, x.shape) == n  # and so is the least noise of any kind,
    assert rank.energy_rank(noisy, fraction=1 - 1e-5) <= k  # which the share of energy ignores


def test_the_effective_rank_of_the_bottleneck_literature_is_the_energy_rank_at_one_minus_eps():
  with jax.enable_x64(True):
    s = np.random.default_rng(0).gamma(0.1, size=400)
    squares = np.sort(s**2)[::-1]
    for eps in (1e-3, 1e-4, 1e-5):
      enough = [k for k in range(1, 401) if squares[:k].sum() >= (1 - eps) * squares.sum()]
      assert rank.energy_rank(s, fraction=1 - eps) == enough[0]


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.5])
def test_the_energy_rank_of_float32_counts_as_that_of_float64(decay):
  """Where all but 1e-5 of the energy is held, a sum from the largest on is off by several."""
  s = (np.arange(1, 4097) ** -decay).astype(np.float32)
  squares = s.astype(float) ** 2
  energy = np.cumsum(squares) / squares.sum()
  eps = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
  found = rank.energy_rank(np.random.default_rng(1).permutation(s), fraction=1 - eps)
  np.testing.assert_array_equal(found, [1 + np.sum(energy < 1 - e) for e in eps])


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (-1, 3)])
def test_press_rank_of_a_wrong_shape_or_type(shape):
  with pytest.raises(ValueError, match="two sizes of the matrix"):
    rank.press_rank(np.ones(3), shape)
  with pytest.raises(ValueError, match="dtype = int32"):
    rank.press_rank(np.ones(3), (3, 4), dtype=jnp.int32)


@pytest.mark.parametrize("rtol", [-1e-3, 1.0, np.nan, np.array([0.1, 2])])
def test_rtol_out_of_range(rtol):
  for measure in (rank.numerical_rank, rank.covariance_rank):
    with pytest.raises(ValueError, match=r"rtol = .* must lie in \[0, 1\).*covariance_rank"):
      measure(np.ones(3), rtol=rtol)


@pytest.mark.parametrize("fraction", [0.0, 1.5, -1, np.nan])
def test_fraction_out_of_range(fraction):
  with pytest.raises(ValueError, match=r"fraction = .* must lie in \(0, 1\]"):
    rank.energy_rank(np.ones(3), fraction=fraction)
