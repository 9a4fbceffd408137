"""Effective depth and drop, by hand."""

import math

import numpy as np
import pytest

from rankbias.evaluate import effective_depth, ood_drop


@pytest.mark.parametrize(
  ("accuracies", "threshold", "depth"),
  [
    ([0.5, 0.96, 0.9, 1.0], 0.95, 0.5),
    ([0.5, 0.96, 0.9, 1.0], 0.99, 1.0),
    ([0.5, 0.96, 0.9, 1.0], 0.5, 0.25),
    ([0.9, 0.8, 0.7], 0.99, 1 / 3),  # better than the last from the first layer on
    ([0.7], 0.95, 1.0),
    ([0.0, 0.0], 0.95, 0.5),  # nothing is learned anywhere: the first layer is as good
    ([0.0, 0.2], 1, 1.0),
  ],
)
def test_depth_is_where_the_last_accuracy_is_nearly_reached(accuracies, threshold, depth):
  assert effective_depth(accuracies, threshold=threshold) == pytest.approx(depth)


def test_the_threshold_is_a_part_of_the_accuracy_of_the_last_layer():
  """Not of 1, nor of the best: 0.57 is 95 % of 0.6."""
  assert effective_depth([0.5, 0.58, 0.8, 0.6]) == 0.5
  assert effective_depth(np.array([0.5, 0.56, 0.8, 0.6], "f4")) == 0.75


@pytest.mark.parametrize(
  ("accuracies", "drop"), [([0.5, 0.8, 0.6], 0.25), ([0.1, 0.2, 0.4], 0), ([0.4, 0], 1)]
)
def test_drop_is_relative_to_the_best_layer(accuracies, drop):
  assert ood_drop(accuracies) == pytest.approx(drop)


def test_what_is_undefined_is_nan():
  assert math.isnan(ood_drop([0.0, 0.0]))
  for measure in (effective_depth, ood_drop):
    for accuracies in ([math.nan, 0.5], [0.5, math.nan]):
      assert math.isnan(measure(accuracies))


def test_impossible_questions_are_named():
  for measure in (effective_depth, ood_drop):
    with pytest.raises(ValueError, match=r"accuracies of shape \(0,\): give one number for each"):
      measure([])
  for threshold in (0, 1.5):
    with pytest.raises(ValueError, match=rf"threshold={threshold}: a part of the last accuracy"):
      effective_depth([0.5], threshold=threshold)
