"""The best non-decreasing steps: against all others, bins that would fall, bins that coincide."""

import itertools

import numpy as np

from rankbias import ops
from rankbias.ops import monotone


def test_the_sequence_is_the_best_of_all_that_do_not_fall():
  rng = np.random.default_rng(0)
  for scores in [*rng.normal(size=(20, 4, 5)), *rng.integers(0, 3, size=(30, 4, 5))]:
    rising = list(itertools.combinations_with_replacement(range(5), 4))
    sums = [sum(scores[b, k] for b, k in enumerate(columns)) for columns in rising]
    best = [c for c, s in zip(rising, sums, strict=True) if s > max(sums) - 1e-9]
    chosen = tuple(monotone.best_monotone(scores))
    assert chosen in best
    assert chosen == min(best, key=lambda c: c[::-1])  # of equals the least sharp, from the end


def test_a_curve_that_would_fall_becomes_one_number_with_the_best_sum():
  h = np.repeat([0.2, 2.0], 10)
  falling = np.where(h[:, None] < 1, [0.0, 0.5, 0.9], [0.8, 0.5, 0.0])
  curve = ops.fit_to_scores(h, falling, grid=[1.0, 2.0, 3.0], bins=2)
  np.testing.assert_array_equal(curve.values, [2, 2])  # 1.0 against 0.8 and 0.9
  rising = ops.fit_to_scores(h, falling[::-1], grid=[1.0, 2.0, 3.0], bins=2)
  np.testing.assert_array_equal(rising.values, [1, 3])


def test_equal_entropies_share_a_knot():
  h = np.r_[np.zeros(20), np.ones(12)]
  scores = np.where(h[:, None] > 0, [0.0, 1.0], [1.0, 0.0])
  curve = ops.fit_to_scores(h, scores, grid=[1.0, 2.0], bins=4)
  assert (np.diff(curve.entropies) > 0).all()
  assert curve.values[0] == 1 and curve.values[-1] == 2
