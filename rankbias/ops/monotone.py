"""The non-decreasing steps over bins of entropy that have the largest sum of scores."""

import numpy as np

LEAST_ROWS = 8  # of a bin


def bins_of(entropies, bins):
  """Returns the rows of every bin, by increasing entropy; raises where a bin has too few.

  A number of bins asks for equally many rows in each; otherwise they are the edges.
  """
  if np.ndim(bins) == 0:
    if bins < 1:
      raise ValueError(f"bins = {bins} must be 1 or more.")
    rows = np.array_split(np.argsort(entropies, kind="stable"), bins)
  else:
    edges = np.asarray(bins, np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
      raise ValueError(f"bins = {bins} must be a number, or two or more edges that increase.")
    place = np.searchsorted(edges, entropies, "right") - (entropies == edges[-1])
    rows = [np.flatnonzero(place == k) for k in range(1, len(edges))]
  fewest = min(len(r) for r in rows)
  if fewest < LEAST_ROWS:
    raise ValueError(
      f"bins = {bins} leaves a bin with {fewest} of {len(entropies)} rows and each needs "
      f"{LEAST_ROWS}: take fewer bins or more rows."
    )
  return _merged(entropies, rows)


def _merged(entropies, rows):
  """Joins bins whose mean entropies are one number in float32, so that the curve is a function."""
  joined = [rows[0]]
  for row in rows[1:]:
    if np.float32(entropies[row].mean()) > np.float32(entropies[joined[-1]].mean()):
      joined.append(row)
    else:
      joined[-1] = np.concatenate([joined[-1], row])
  return joined


def best_monotone(scores):
  """Returns the non-decreasing columns k_b with the largest sum of scores[b, k_b].

  The smallest of those that are equally good; whole numbers compare without rounding.
  """
  columns = np.arange(scores.shape[1])
  best, choices = scores[0], []
  for score in scores[1:]:
    reached = np.maximum.accumulate(best)
    rises = np.append(True, best[1:] > reached[:-1])
    choices.append(np.maximum.accumulate(np.where(rises, columns, 0)))
    best = score + reached
  chosen = [int(np.argmax(best))]
  for choice in reversed(choices):
    chosen.append(int(choice[chosen[-1]]))
  return np.array(chosen[::-1])
