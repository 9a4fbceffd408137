"""Tests of argmaxable classes: golden booleans, hulls, theory, ties, witnesses."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from rankbias import ops, rank
from rankbias.rank import argmax

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/unargmaxable.npz")
CASES = sorted(
  key.removesuffix("/lp_is_bounded")
  for key in GOLDEN.files
  if key.endswith("/lp_is_bounded") and not key.startswith("C_below_d")
)
METHODS = ["search+linear_program", "search", "linear_program"]
RNG = np.random.default_rng(0)


def read(case):
  bias = GOLDEN[f"{case}/b"][:, 0] if f"{case}/b" in GOLDEN.files else None
  return GOLDEN[f"{case}/W"].T, bias


def assert_witnessed(kernel, bias, result):
  """Every argmaxable class has a witness that makes it the only maximum, and no other has one."""
  logits = result.witness @ kernel + (0 if bias is None else bias)
  for i in range(kernel.shape[1]):
    if result.argmaxable[i]:
      assert logits[i, i] > np.delete(logits[i], i).max(initial=-np.inf)
    else:
      assert np.isnan(result.witness[i]).all() and np.isnan(result.radius[i])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_golden(case, method):
  kernel, bias = read(case)
  result = rank.argmaxable(kernel, bias, method=method)
  expected = ~GOLDEN[f"{case}/lp_is_bounded"]
  assert_witnessed(kernel, bias, result)
  if method == "search":  # finds some, never a wrong one
    assert not (result.argmaxable & ~expected).any()
    assert result.argmaxable.sum() >= expected.sum() - 1
    assert set(result.decided_by) <= {"search", "nothing"}
    return
  np.testing.assert_array_equal(result.argmaxable, expected)
  if method == "linear_program":
    radius = GOLDEN[f"{case}/lp_radius"][expected]
    np.testing.assert_allclose(result.radius[expected], radius, rtol=1e-4)
    assert set(result.decided_by) == {"linear_program"}


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("d", [2, 3])
def test_argmaxable_classes_are_the_vertices_of_the_convex_hull(d, method):
  kernel = RNG.normal(size=(d, 60)) + 5  # an offset of all columns changes nothing
  expected = np.isin(np.arange(60), ConvexHull(kernel.T).vertices)
  result = rank.argmaxable(kernel, method=method)
  assert not (result.argmaxable & ~expected).any()
  if method == "linear_program":
    np.testing.assert_array_equal(result.argmaxable, expected)


def test_expected_count_of_random_classifiers():
  # Of n Gaussian points in the plane sum_k = 4 sqrt(pi) C(n, 2) int Phi^(n-2) phi^2 are vertices.
  from scipy.integrate import quad
  from scipy.stats import norm

  n, draws = 20, 200
  integral = quad(lambda t: norm.cdf(t) ** (n - 2) * norm.pdf(t) ** 2, -9, 9)[0]
  expected = 2 * np.sqrt(np.pi) * n * (n - 1) * integral
  assert expected == pytest.approx(6.8, abs=0.5)  # Renyi & Sulanke: about 2 sqrt(2 pi log n)
  found = [rank.argmaxable(k, method="search") for k in RNG.normal(size=(draws, 2, n))]
  counts = [result.argmaxable.sum() for result in found]
  assert np.mean(counts) == pytest.approx(expected, abs=4 * np.std(counts) / np.sqrt(draws) + 0.1)


def test_more_dimensions_than_classes_need():
  for d, v in [(4, 5), (7, 3), (1, 1), (3, 1)]:
    kernel = RNG.normal(size=(d, v))
    for method in METHODS:
      result = rank.argmaxable(kernel, method=method)
      assert result.argmaxable.all()
      assert_witnessed(kernel, None, result)


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension(method):
  for bias in (None, np.array([0.0, 3, 0, 0, 0])):
    result = rank.argmaxable(np.array([[-2.0, 0, 1, 3, 0.5]]), bias, method=method)
    np.testing.assert_array_equal(result.argmaxable, [True, bias is not None, False, True, False])


@pytest.mark.parametrize("method", METHODS)
def test_equal_columns_are_never_a_strict_argmax(method):
  kernel = np.array([[1.0, 1, -1, 0, 0.3], [0, 0, 0, 2, 0.1]])
  result = rank.argmaxable(kernel, method=method)
  np.testing.assert_array_equal(result.argmaxable, [False, False, True, True, False])
  # A larger bias parts the twins; the other can never win.
  result = rank.argmaxable(kernel, np.array([0, 1e-3, 0, 0, 0]), method=method)
  np.testing.assert_array_equal(result.argmaxable, [False, True, True, True, False])
  assert not rank.argmaxable(np.ones((3, 4)), method=method).argmaxable.any()
  assert not rank.argmaxable(np.zeros((2, 2)), method=method).argmaxable.any()


def test_a_class_on_an_edge_of_the_hull_is_not_strict():
  kernel = np.array([[0.0, 2, 1, 0, 2], [0, 0, 0, 2, 2]])  # the third lies between two others
  for method in METHODS:
    result = rank.argmaxable(kernel, method=method)
    np.testing.assert_array_equal(result.argmaxable, [True, True, False, True, True])


@pytest.mark.parametrize("bias", [False, True])
def test_linear_maps_of_the_input_and_dependent_rows_change_nothing(bias):
  kernel = RNG.normal(size=(3, 30))
  bias = 2 * RNG.normal(size=30) if bias else None
  plain = rank.argmaxable(kernel, bias)
  for matrix in (np.diag([1, 0.03, 20]), RNG.normal(size=(5, 3))):
    moved = rank.argmaxable(matrix @ kernel, bias, box=1e4)
    np.testing.assert_array_equal(moved.argmaxable, plain.argmaxable)
    assert_witnessed(matrix @ kernel, bias, moved)


def test_the_box_limits_classifiers_with_a_bias():
  kernel, bias = np.array([[0.0, 1, 2]]), np.array([0.0, 0.0, -300])  # the last wins from x = 300
  np.testing.assert_array_equal(rank.argmaxable(kernel, bias).argmaxable, [True, True, False])
  assert rank.argmaxable(kernel, bias, box=500.0).argmaxable.all()
  assert rank.argmaxable(kernel, bias, box=500.0, method="search").argmaxable.all()


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([2, 9]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_search_never_claims_what_the_linear_program_denies(seed, d, v, with_bias):
  rng = np.random.default_rng(seed)
  kernel = rng.integers(-2, 3, size=(d, v)).astype(float)  # ties, dependent and equal columns
  bias = rng.integers(-1, 2, size=v).astype(float) if with_bias else None
  found = rank.argmaxable(kernel, bias, method="search")
  exact = rank.argmaxable(kernel, bias, method="linear_program")
  assert not (found.argmaxable & ~exact.argmaxable).any()
  assert_witnessed(kernel, bias, found)
  assert_witnessed(kernel, bias, exact)


def test_thousands_of_classes_in_many_dimensions_are_all_found_by_the_search():
  kernel = RNG.normal(size=(60, 3000)).astype(np.float32)
  assert rank.argmaxable(kernel, method="search").argmaxable.all()


def test_all_small_label_sets_of_the_dft_head_are_argmaxable():
  kernel = np.asarray(ops.dft_kernel(2, 7), np.float64)
  patterns = (np.arange(128)[:, None] >> np.arange(7)) % 2 == 1
  found = rank.label_set_argmaxable(kernel, patterns).argmaxable
  assert found[patterns.sum(1) <= 2].all() and not found.all()
  assert found.sum() == rank.feasible_label_sets_bound(7, 5)


def test_failures():
  with pytest.raises(ValueError, match="method = 'hull' is unknown: use one of search.linear_prog"):
    argmax.checked_method("hull")
  with pytest.raises(ValueError, match="kernel has entries that are not finite"):
    rank.argmaxable(np.array([[1.0, np.nan]]))
  with pytest.raises(ValueError, match="bias has entries that are not finite"):
    rank.argmaxable(np.ones((1, 2)), np.array([0, np.inf]))
