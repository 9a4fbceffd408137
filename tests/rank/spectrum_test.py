"""Tests of singular_values: accuracy, shapes, scales, dtypes, failures."""

import pathlib
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankbias import rank
from rankbias.rank import spectrum

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/rank.npz")
CASES = [key.removeprefix("x/") for key in GOLDEN.files if key.startswith("x/")]
METHODS = ["gram", "qr", "svd"]
RNG = np.random.default_rng(0)


def reference(x, center=False):
  x = np.asarray(x, np.float64)
  return np.linalg.svd(x - x.mean(-2, keepdims=True) * center, compute_uv=False)


@pytest.mark.parametrize("method", [None, *METHODS])
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case, bits, method):
  with jax.enable_x64(bits == "f64"):
    x = jnp.asarray(GOLDEN[f"x/{case}"], f"float{bits[1:]}")
    expected = GOLDEN[f"{case}/{bits}/singular_values"]
    values = np.asarray(rank.singular_values(x, method=method))
    assert values.dtype == x.dtype
    # A Gram matrix knows the null space of float64 data to 2e-8 only, hence QR by default there.
    loose = 1e-4 if bits == "f32" else 2e-8 if method == "gram" else 1e-13
    np.testing.assert_allclose(values, expected, rtol=0, atol=loose * max(expected[0], 1e-300))


@pytest.mark.parametrize(("n", "d"), [(20_000, 512), (700, 400), (300, 900)])
def test_float32_data_with_singular_values_from_1_to_1e_6(n, d, graded):
  x, truth = graded(n, d)
  exact = np.asarray(rank.singular_values(x, dtype=np.float64))
  assert np.abs(exact - truth).max() <= 1e-9 * truth[0]
  rounded = np.asarray(rank.singular_values(x))
  assert rounded.dtype == np.float32
  np.testing.assert_allclose(rounded, exact.astype(np.float32), rtol=2e-7)
  for rtol in (1e-3, 1e-4, 1e-5):
    expected = (truth > rtol * truth[0]).sum()
    assert rank.numerical_rank(rounded, rtol=rtol) == expected
    assert rank.numerical_rank(exact, rtol=rtol) == expected


def test_a_float32_svd_is_not_as_good(graded):
  x, truth = graded(2000, 256)
  error = {m: np.abs(rank.singular_values(x, method=m) - truth)[128:].max() for m in METHODS}
  assert error["gram"] < error["svd"] / 10
  assert error["gram"] < error["qr"] / 10


def test_the_gram_matrix_of_float64_data_loses_the_null_space():
  with jax.enable_x64(True):
    left = np.linalg.qr(RNG.normal(size=(60, 9)))[0]
    right = np.linalg.qr(RNG.normal(size=(9, 9)))[0]
    x = jnp.asarray((left * np.geomspace(1, 1e-12, 9)) @ right.T)
    assert rank.default_method(x.dtype) == "qr"
    np.testing.assert_allclose(rank.singular_values(x)[-1], 1e-12, rtol=1e-2)
    assert abs(rank.singular_values(x, method="gram")[-1] / 1e-12 - 1) > 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
  "shape", [(40, 5), (5, 40), (6, 6), (1, 4), (4, 1), (1, 1), (2000, 3), (3, 2000)]
)
def test_tall_wide_and_one_row(shape, center, method):
  x = RNG.normal(size=shape).astype(np.float32) + 3
  values = rank.singular_values(x, method=method, center=center)
  assert values.shape == (min(shape),) and values.dtype == jnp.float32
  truth = reference(x, center)
  np.testing.assert_allclose(values, truth, rtol=1e-5, atol=2e-6 * reference(x)[0])
  assert (np.diff(values) <= 0).all() and (values >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_zero_empty_and_deficient(method):
  singular_values = partial(rank.singular_values, method=method)
  np.testing.assert_array_equal(singular_values(np.zeros((7, 4), np.float32)), 0)
  for shape in [(0, 4), (4, 0), (3, 0, 2)]:
    assert singular_values(np.zeros(shape)).shape == (*shape[:-2], min(shape[-2:]))
  x = (RNG.normal(size=(50, 3)) @ RNG.normal(size=(3, 20))).astype(np.float32)
  values = singular_values(x)
  assert rank.numerical_rank(values, rtol=1e-5) == 3
  assert (values[3:] < 1e-6 * values[0]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_badly_scaled(scale, method):
  x = RNG.normal(size=(30, 8))
  values = np.asarray(rank.singular_values((x * scale).astype(np.float32), method=method))
  np.testing.assert_allclose(values / scale, reference(x), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_columns_of_very_different_size(method):
  x = RNG.normal(size=(200, 6)) * np.array([1e6, 1e4, 1e2, 1, 1e-2, 1])
  x = x.astype(np.float32)
  values = np.asarray(rank.singular_values(x, method=method, dtype=np.float64))
  np.testing.assert_allclose(values, reference(x), atol=1e-8 * reference(x)[0])


@pytest.mark.parametrize("center", [False, True])
def test_far_from_the_origin(center):
  x = (RNG.normal(size=(500, 7)) + 1e4).astype(np.float32)
  np.testing.assert_allclose(
    rank.singular_values(x, center=center), reference(x, center), rtol=1e-6
  )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.int32])
def test_narrow_dtypes_are_converted_exactly(dtype, method):
  x = jnp.asarray(RNG.normal(size=(64, 8)) * 10).astype(dtype)
  values = rank.singular_values(x, method=method)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, reference(x.astype(jnp.float32)), rtol=1e-6)


def test_batches_jit_vmap_scan_and_pmap():
  x = RNG.normal(size=(2, 4, 20, 6)).astype(np.float32)
  truth = reference(x)
  np.testing.assert_allclose(rank.singular_values(x), truth, rtol=1e-6)
  np.testing.assert_allclose(jax.vmap(jax.jit(rank.singular_values))(x), truth, rtol=1e-6)
  np.testing.assert_allclose(jax.pmap(rank.singular_values)(x), truth, rtol=1e-6)
  _, scanned = jax.lax.scan(lambda c, y: (c, rank.singular_values(y)), 0, x[0])
  np.testing.assert_allclose(scanned, truth[0], rtol=1e-6)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.sampled_from(METHODS))
@settings(max_examples=15, deadline=None)
def test_orthogonal_invariance_and_energy(n, d, seed, method):
  rng = np.random.default_rng(seed)
  x, q = rng.normal(size=(n, d)), np.linalg.qr(rng.normal(size=(d, d)))[0]
  values = rank.singular_values(x.astype(np.float32), method=method)
  turned = rank.singular_values((x @ q).astype(np.float32), method=method)
  np.testing.assert_allclose(values, turned, atol=2e-6 * values[0])
  np.testing.assert_allclose((values**2).sum(), (x**2).sum(), rtol=1e-5)


def test_nan_stays_visible():
  x = np.ones((3, 6, 4), np.float32)
  x[1, 2, 3] = np.nan
  for method in METHODS:
    values = rank.singular_values(x, method=method)
    assert jnp.isnan(values[1]).all() and jnp.isfinite(values[jnp.array([0, 2])]).all()


def test_failures(monkeypatch):
  with pytest.raises(ValueError, match="method = 'grm' is unknown: use None or one of gram, qr"):
    spectrum.checked_method("grm", jnp.float32)
  monkeypatch.setattr(spectrum, "delivers_float64", lambda: False)
  assert rank.default_method() == "qr"
  with pytest.raises(ValueError, match="method = 'gram' needs float64.*use method='qr'"):
    rank.singular_values(np.eye(2), method="gram")


def test_a_32_bit_program_sees_no_warning():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    x = RNG.normal(size=(9, 4))
    assert rank.singular_values(x).dtype == jnp.float32
    exact = rank.singular_values(x.astype(np.float32), dtype=np.float64)
    assert np.asarray(exact).dtype == np.float64
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_linear_in_the_rows(method):
  x = jax.ShapeDtypeStruct((100_000, 16), jnp.float32)
  compute = jax.jit(partial(rank.singular_values, method=method))
  memory = compute.lower(x).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 3 * memory.argument_size_in_bytes
