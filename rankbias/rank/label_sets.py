"""Which sets of labels a multi-label classifier can answer with, and how many at most."""

from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Real

from rankbias.rank.argmax import finite
from rankbias.rank.halfspaces import SMALLEST_RADIUS, largest_ball


class ArgmaxableSets(NamedTuple):
  """What `label_set_argmaxable` found; NumPy arrays."""

  argmaxable: Bool[np.ndarray, "*batch"]
  witness: Float[np.ndarray, "*batch d"]  # an x with exactly these labels, NaN where there is none
  radius: Float[np.ndarray, "*batch"]  # of the largest ball of such x, NaN where there is none


def feasible_label_sets_bound(n: int, d: int) -> int:
  """Counts the label sets that a classifier of n labels and d inputs, no bias, can reach at most.

  2 sum_{i<d} C(n - 1, i): the cells into which n hyperplanes in general position cut the space,
  reached wherever no d columns are dependent; of 2^n sets in all.

  Raises:
    ValueError: n < 1 or d < 0.

  Example: feasible_label_sets_bound(4, 2) is 8 of the 16 sets.
  Source: Cover 1965, IEEE Transactions on Electronic Computers 14; Grivas, Vergari & Lopez 2024,
  arXiv:2310.10443.
  """
  if n < 1 or d < 0:
    raise ValueError(f"n = {n} labels and d = {d} inputs must be at least 1 and 0.")
  return 2 * sum(comb(n - 1, i) for i in range(min(d, n)))


def label_set_argmaxable(
  kernel: Real[ArrayLike, "d N"],
  labels: Bool[ArrayLike, "*batch N"],
  bias: Real[ArrayLike, "N"] | None = None,
  *,
  box: float = 100.0,
) -> ArgmaxableSets:
  """Tells of every set of labels whether some x has exactly these logits x W + b above zero.

  Solves  max r  subject to  y_j (w_j x + b_j) >= |w_j| r,  y_j = 1 for a label and -1 for the
  others: argmaxable from a radius of 1e-8. Without a bias x has any scale.

  Args:
    labels: True for the labels of a set.
    box: x must satisfy |x_i| <= box.

  Raises:
    ValueError: an entry is not finite.
    RuntimeError: the solver of the linear programs failed.

  Example: label_set_argmaxable([[1., -1.]], [[True, True], [True, False]])[0] is [False, True].
  Source: Grivas, Vergari & Lopez 2024, arXiv:2310.10443.
  """
  kernel = finite("kernel", kernel)
  d, n = kernel.shape
  bias = np.zeros(n) if bias is None else finite("bias", bias)
  labels = np.asarray(labels)
  signs = np.where(labels, 1.0, -1.0)
  batch = labels.shape[:-1]
  witness, radius = np.full((*batch, d), np.nan), np.full(batch, np.nan)
  for at in np.ndindex(batch):
    start = np.clip(kernel @ signs[at], -box, box)
    x, r = largest_ball(-signs[at][:, None] * kernel.T, signs[at] * bias, box=box, start=start)
    if r >= SMALLEST_RADIUS:
      witness[at], radius[at] = x, r
  return ArgmaxableSets(np.asarray(~np.isnan(radius)), witness, radius)
