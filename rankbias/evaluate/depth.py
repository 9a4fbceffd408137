"""How many layers a network needs, and what its last ones cost: numbers from a probe's accuracies.

The quantities are those of the literature on the tunnel effect (Masarczyk et al. 2023,
arXiv:2305.19753). That a tunnel begins where a probe reaches 95 % of the final accuracy is taken
from public re-implementations; the formulas are choices made here.
"""

from collections.abc import Sequence

import numpy as np


def effective_depth(accuracies: Sequence[float], *, threshold: float = 0.95) -> float:
  """The part of the layers after which a linear probe is nearly as good as after all of them.

  d = l / L with the first layer l (counted from 1) whose accuracy a_l >= threshold a_L. The
  reference is the last hidden layer, not the head, and not the best layer: 1 says that the last
  layer was needed, 1 / L that the first was enough.

  Args:
    accuracies: of a probe on each hidden layer, in forward order, without the logits.

  Returns: a number in (0, 1]; NaN where an accuracy is NaN.

  Raises:
    ValueError: there are no layers, or threshold is not in (0, 1].

  Example: effective_depth([0.5, 0.96, 0.9, 1.0]) is 0.5.
  """
  values = _checked(accuracies)
  if not 0 < threshold <= 1:
    raise ValueError(f"threshold={threshold}: a part of the last accuracy, in (0, 1]")
  if np.isnan(values).any():
    return float("nan")
  return float((np.argmax(values >= threshold * values[-1]) + 1) / len(values))


def ood_drop(accuracies: Sequence[float]) -> float:
  """The part of the best layer's accuracy on other data that the last hidden layer has lost.

  (max_l a_l - a_L) / max_l a_l

  Args:
    accuracies: as in `effective_depth`, of probes trained and tested on the other data.

  Returns: a number in [0, 1]; NaN where an accuracy is NaN or all are 0.

  Raises:
    ValueError: there are no layers.

  Example: ood_drop([0.5, 0.8, 0.6]) is 0.25.
  """
  values = _checked(accuracies)
  best = values.max()  # NaN if any is
  return float((best - values[-1]) / best) if best > 0 else float("nan")


def _checked(accuracies) -> np.ndarray:
  values = np.asarray(accuracies, np.float64)
  if values.ndim != 1 or not values.size:
    raise ValueError(
      f"accuracies of shape {values.shape}: give one number for each hidden layer, at least one"
    )
  return values
