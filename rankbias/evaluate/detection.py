"""How well does a score tell two kinds of examples apart? Ranking measures, exact under ties.

Scores are compared with each other and nothing else, so any increasing function of them gives the
same numbers. Equal scores are one threshold: no order among them is invented.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


class Thresholds(NamedTuple):
  """How many examples score at least as high as each score that occurs, from the highest on."""

  positives: Float[np.ndarray, "k"]
  negatives: Float[np.ndarray, "k"]


def auroc(score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float:
  """The probability that a positive scores above a negative, ties counted half.

  The area under the curve of the true against the false positive rate. NaN where there are no
  positives or no negatives, or where a score is NaN.

  Raises:
    ValueError: score and positive are not one number and one boolean an example.

  Example: auroc(np.array([1., 2., 2.]), np.array([False, False, True])) is 0.75.
  Source: Mann & Whitney 1947, Annals of Mathematical Statistics 18(1).
  """
  score, positive = _checked(score, positive)
  count, total = int(positive.sum()), len(positive)
  if count in (0, total):
    return float("nan")
  ranks = rankdata(score)[positive].sum() - count * (count + 1) / 2
  return float(ranks / (count * (total - count)))


def aupr(
  score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], *, trapezoid: bool = False
) -> float:
  """The area under the curve of precision against recall: the average precision.

  sum_k precision_k (recall_k - recall_(k - 1))  over the thresholds k, from the highest on

  A score that says nothing gets the share of positives. NaN as in `auroc`.

  Args:
    trapezoid: joins the points by lines, from precision 1 at recall 0 on, as some public code does.
      Precision is not linear in recall, so this is too high: (1 + share) / 2 for a constant score.

  Raises:
    ValueError: as `auroc`.

  Example: aupr(np.zeros(4), np.array([True, False, False, False])) is 0.25.
  Source: Davis & Goadrich 2006, "The relationship between precision-recall and ROC curves".
  """
  score, positive = _checked(score, positive)
  if _without_answer(score, positive):
    return float("nan")
  above = thresholds(score, positive)
  recall = np.concatenate([[0.0], above.positives / above.positives[-1]])
  precision = above.positives / (above.positives + above.negatives)
  if trapezoid:
    precision = (np.concatenate([[1.0], precision[:-1]]) + precision) / 2
  return float(np.sum(np.diff(recall) * precision))


def false_positive_rate(
  score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], *, recall: float = 0.95
) -> float:
  """The share of negatives that are accepted where at least `recall` of the positives are.

  The threshold is the highest score that accepts so many positives, those equal to it included:
  #{negatives >= t} / #negatives  with  t = max{t : #{positives >= t} >= recall #positives}.
  NaN as in `auroc`. A score that says nothing gets 1.

  Raises:
    ValueError: as `auroc`; recall is not in (0, 1].

  Example: false_positive_rate(np.array([1., 2., 3.]), np.array([True, False, True])) is 1.0.
  Source: Liang, Li & Srikant 2018, arXiv:1706.02690 (ODIN), with data in distribution as positive.
  """
  if not 0 < recall <= 1:
    raise ValueError(f"recall={recall} must be above 0 and at most 1, such as 0.95")
  score, positive = _checked(score, positive)
  if _without_answer(score, positive):
    return float("nan")
  above = thresholds(score, positive)
  needed = math.ceil(recall * above.positives[-1] - 1e-9)  # 0.95 * 40 is 38, rounding or not
  first = int(np.searchsorted(above.positives, needed))
  return float(above.negatives[first] / above.negatives[-1])


def thresholds(score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> Thresholds:
  """Counts positives and negatives at or above every score that occurs, the highest first."""
  order = np.argsort(-score, kind="stable")
  ordered = score[order]
  last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of every group of equals
  found = np.cumsum(positive[order])[last]
  return Thresholds(found.astype(float), (last + 1 - found).astype(float))


def detection(inside: Float[np.ndarray, "n"], outside: Float[np.ndarray, "m"]) -> dict[str, float]:
  """Measures scores of data in distribution against those of others, the higher the more inside.

  Returns:
    "auroc"; "aupr_in" and "aupr_out", the average precision with data in distribution, and with the
    others, as the positives; "fpr95", the share of the others accepted where 95 % of the data in
    distribution are; "fpr95_out", the share of the data in distribution that is rejected where 95 %
    of the others are.

  Example: detection(np.array([1., 2.]), np.array([0.])) is 1 but for the last two, which are 0.
  """
  score = np.concatenate([inside, outside])
  own = np.arange(len(score)) < len(inside)
  return {
    "auroc": auroc(score, own),
    "aupr_in": aupr(score, own),
    "aupr_out": aupr(-score, ~own),
    "fpr95": false_positive_rate(score, own),
    "fpr95_out": false_positive_rate(-score, ~own),
  }


def _checked(score, positive):
  score, positive = np.asarray(score), np.asarray(positive)
  if score.ndim != 1 or score.shape != positive.shape or positive.dtype != bool:
    raise ValueError(
      f"score of shape {score.shape} and positive of shape {positive.shape} and {positive.dtype}: "
      "give one number and one boolean an example"
    )
  return score, positive


def _without_answer(score, positive):
  return positive.all() or not positive.any() or np.isnan(score).any()
