"""Tests of label sets a multi-label classifier can reach: brute force, sign changes, counts."""

import pathlib

import numpy as np
import pytest

from rankbias import rank

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/sigmoid_bottleneck.npz")
CASES = ["gale_N7_D3", "gale_N7_D5", "random_N7_D3", "random_N8_D4"]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
  kernel = GOLDEN[f"feasible_subsets/{case}/W"].T
  labels = GOLDEN[f"feasible_subsets/{case}/patterns"] == 1
  result = rank.label_set_argmaxable(kernel, labels, box=1e5)
  expected = GOLDEN[f"feasible_subsets/{case}/feasible"]
  np.testing.assert_array_equal(result.argmaxable, expected)
  radius = GOLDEN[f"feasible_subsets/{case}/lp_radius"]
  np.testing.assert_allclose(result.radius[expected], radius[expected], rtol=1e-4)
  logits = result.witness @ kernel
  np.testing.assert_array_equal(logits[expected] > 0, labels[expected])
  assert expected.sum() == rank.feasible_label_sets_bound(*kernel.shape[::-1])
  assert np.isnan(result.witness[~expected]).all()


@pytest.mark.parametrize("case", ["gale_N7_D3", "gale_N7_D5"])
def test_a_cyclic_polytope_reaches_the_sets_of_few_sign_changes(case):
  kernel = GOLDEN[f"feasible_subsets/{case}/W"].T
  labels = GOLDEN[f"feasible_subsets/{case}/patterns"] == 1
  changes = (labels[:, 1:] != labels[:, :-1]).sum(1)
  found = rank.label_set_argmaxable(kernel, labels).argmaxable
  np.testing.assert_array_equal(found, changes < kernel.shape[0])


def test_golden_counts():
  for (n, d), count in zip(GOLDEN["counts/n_d"], GOLDEN["counts/num_feasible_labels"], strict=True):
    assert rank.feasible_label_sets_bound(int(n), int(d)) == count


def test_counts_are_exact_integers():
  assert rank.feasible_label_sets_bound(300, 300) == 2**300
  assert rank.feasible_label_sets_bound(300, 10**6) == 2**300
  assert rank.feasible_label_sets_bound(4, 2) == 8  # four lines cut the plane into eight sectors
  with pytest.raises(ValueError, match="n = 0 labels and d = 2 inputs must be at least 1 and 0"):
    rank.feasible_label_sets_bound(0, 2)


def test_a_bias_lifts_the_symmetry():
  kernel = np.array([[1.0, -1.0]])
  labels = np.array([[[True, True], [True, False]], [[False, True], [False, False]]])
  result = rank.label_set_argmaxable(kernel, labels)
  np.testing.assert_array_equal(result.argmaxable, [[False, True], [True, False]])
  assert result.witness.shape == (2, 2, 1)
  result = rank.label_set_argmaxable(kernel, labels, np.array([1.0, 1.0]))
  np.testing.assert_array_equal(result.argmaxable, [[True, True], [True, False]])
  assert result.radius[0, 0] == pytest.approx(1)  # -1 < x < 1


def test_columns_of_zeros_have_the_sign_of_their_bias():
  kernel, bias = np.array([[1.0, 0], [2, 0]]), np.array([0, -1.0])
  labels = np.array([[True, False], [True, True]])
  np.testing.assert_array_equal(
    rank.label_set_argmaxable(kernel, labels, bias).argmaxable, [True, False]
  )
  assert not rank.label_set_argmaxable(kernel, labels).argmaxable.any()


def test_more_inputs_than_labels_reach_every_set():
  labels = (np.arange(16)[:, None] >> np.arange(4)) % 2 == 1
  assert rank.label_set_argmaxable(RNG.normal(size=(6, 4)), labels).argmaxable.all()
