"""Ranking measures: values of public code, counted by hand, and what ties and missing kinds do."""

import pathlib

import numpy as np
import pytest

from rankbias.evaluate.detection import aupr, auroc, detection, false_positive_rate

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/ood_scores.npz"


@pytest.mark.parametrize("case", ["continuous", "with_ties"])
def test_public_code_finds_the_same(case):
  """OpenOOD: its areas under precision and recall join points by lines, its FPR finds OOD."""
  golden = np.load(GOLDEN)
  value = {k: golden[f"metrics/{case}/{k}"] for k in ("conf", "label", "auroc", "aupr_in", "fpr95")}
  score, own = value["conf"], value["label"] != -1
  assert auroc(score, own) == pytest.approx(value["auroc"], abs=1e-12)
  assert aupr(score, own, trapezoid=True) == pytest.approx(value["aupr_in"], abs=1e-12)
  aupr_out = golden[f"metrics/{case}/aupr_out"]
  assert aupr(-score, ~own, trapezoid=True) == pytest.approx(aupr_out, abs=1e-12)
  found = detection(score[own], score[~own])
  assert found["auroc"] == pytest.approx(value["auroc"], abs=1e-12)
  assert found["fpr95_out"] == value["fpr95"]


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_counted_at_every_threshold(seed):
  """Few different scores, so that nearly all are tied."""
  rng = np.random.default_rng(seed)
  score, positive = rng.integers(0, 6, 90).astype(float), rng.random(90) < 0.3
  above = {t: score >= t for t in np.unique(score)[::-1]}
  recalls = [0.0, *(positive[a].sum() / positive.sum() for a in above.values())]
  precisions = [positive[a].mean() for a in above.values()]
  expected = sum(p * (b - a) for p, a, b in zip(precisions, recalls, recalls[1:], strict=False))
  assert aupr(score, positive) == pytest.approx(expected, rel=1e-12)

  wins = score[positive][:, None] > score[~positive]
  ties = score[positive][:, None] == score[~positive]
  assert auroc(score, positive) == pytest.approx(wins.mean() + ties.mean() / 2, rel=1e-12)

  for recall in (0.2, 0.95, 1.0):
    enough = [a for a in above.values() if positive[a].sum() >= recall * positive.sum()]
    rate = (enough[0] & ~positive).sum() / (~positive).sum()
    assert false_positive_rate(score, positive, recall=recall) == rate


def test_order_alone_counts():
  rng = np.random.default_rng(1)
  inside, outside = rng.normal(1, 1, 50), rng.normal(0, 1, 70)
  assert detection(inside, outside) == detection(np.exp(inside), np.exp(outside))
  shuffled = detection(rng.permutation(inside), outside[::-1])
  assert shuffled == detection(inside, outside)
  swapped = detection(-outside, -inside)
  assert swapped["auroc"] == pytest.approx(detection(inside, outside)["auroc"], rel=1e-12)
  assert swapped["fpr95"] == detection(inside, outside)["fpr95_out"]
  assert swapped["aupr_in"] == detection(inside, outside)["aupr_out"]


def test_a_score_that_says_nothing_is_a_coin():
  found = detection(np.full(30, 2.0), np.full(10, 2.0))
  share = {"aupr_in": 0.75, "aupr_out": 0.25}
  assert found == {"auroc": 0.5, "fpr95": 1, "fpr95_out": 1} | share
  assert aupr(np.zeros(4), np.arange(4) == 0, trapezoid=True) == (1 + 0.25) / 2  # as documented


def test_a_perfect_score_and_infinite_ones():
  assert detection(np.array([np.inf, 3.0]), np.array([2.0, -np.inf])) == {
    "auroc": 1,
    "aupr_in": 1,
    "aupr_out": 1,
    "fpr95": 0,
    "fpr95_out": 0,
  }
  assert detection(np.full(3, np.inf), np.full(3, np.inf))["aupr_in"] == 0.5  # a tie like any other


def test_95_percent_of_40_are_38():
  """0.95 times a number of positives is often no whole number in floating point where it is one."""
  for count in range(20, 2001, 20):
    score = np.concatenate([np.arange(count), [count // 20 - 0.5]])
    assert false_positive_rate(score, np.arange(count + 1) < count) == 0, count


@pytest.mark.parametrize("measure", [auroc, aupr, false_positive_rate])
def test_nothing_to_tell_apart_has_no_answer(measure):
  score = np.arange(5.0)
  assert np.isnan(measure(score, np.ones(5, bool)))
  assert np.isnan(measure(score, np.zeros(5, bool)))
  assert np.isnan(measure(np.array([]), np.array([], bool)))
  assert np.isnan(measure(np.array([0.0, np.nan, 1.0]), np.array([True, False, False])))


def test_mistakes_name_the_argument():
  with pytest.raises(ValueError, match=r"score of shape \(3,\) and positive of shape \(2,\)"):
    auroc(np.zeros(3), np.zeros(2, bool))
  with pytest.raises(ValueError, match="positive of shape .* int64: give one number and one bool"):
    aupr(np.zeros(3), np.array([1, 0, 1]))
  with pytest.raises(ValueError, match="recall=95 must be above 0 and at most 1"):
    false_positive_rate(np.zeros(3), np.array([True, False, True]), recall=95)
