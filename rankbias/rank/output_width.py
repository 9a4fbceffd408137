"""The width of a last linear layer, from nothing but the log-probabilities that a model gives."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Real

SEARCHED = 0.75  # of the spectrum: at its end the values of mere rounding lie far apart too


class OutputWidth(NamedTuple):
  """What `width_from_outputs` found; width is None where there is no clear gap."""

  width: int | None
  gap: float  # sigma_w / sigma_(w + 1), the largest of the searched ones
  next_gap: float  # the second largest
  reason: str  # in words, why there is a width or none
  singular_values: Float[np.ndarray, "k"]


def width_from_outputs(
  log_probs: Real[ArrayLike, "queries classes"], *, clear: float = 10.0
) -> OutputWidth:
  """Estimates the width of a model's last layer from its answers to some queries.

  With log p = H W + b - lse, rows minus their means lose lse, and columns minus theirs lose b:

      C_Q log p C_V = C_Q H W C_V,   C_n = I - 1 1^T / n

  has rank d, with or without a bias. So its singular values fall by a factor after the d-th, down
  to the rounding of the answers; the width is where they fall by the largest factor. It is the
  number of directions that the features use over these queries: one less than the width where the
  last layer is fed by a layer norm that centres, and fewer where units are dead.

  There is a width only where that factor is at least `clear`. A map of the logits that bends
  within their range and a mixture of softmaxes have no such gap; a map that hardly bends, such as a
  cap far above the logits, still has one, and gives the width away. Answers rounded to multiples
  of u have a floor of about u (sqrt(queries) + sqrt(classes)) / sqrt(12), and hide what is not
  `clear` times above it.

  Args:
    log_probs: of the same classes for every query: all or some of them, in any float type, rounded
      or not; logits do as well. More of both than 4/3 of the width.
    clear: the least factor that counts as a gap.

  Raises:
    ValueError: an entry is not finite, there are fewer than 4 queries or classes, or clear <= 1.

  Example: width_from_outputs(log_softmax(h @ w)).width is 8 for random h [100, 8] and w [8, 50].
  Source: Carlini et al. 2024, arXiv:2403.06634; Finlayson et al. 2024, arXiv:2403.09539 (the gap,
  of uncentred answers); centring both ways, which makes a bias harmless, and `clear` set here.
  """
  outputs = np.asarray(log_probs, np.float64)
  if not np.isfinite(outputs).all():
    raise ValueError(
      "log_probs has entries that are not finite: leave out classes of probability 0, the same for "
      "every query."
    )
  if outputs.ndim != 2 or min(outputs.shape) < 4:
    raise ValueError(
      f"log_probs of shape {outputs.shape} must be [queries, classes], at least 4 of each and more "
      "than 4/3 of the width that is looked for."
    )
  if not clear > 1:
    raise ValueError(f"clear = {clear} must be above 1: it is a ratio of singular values.")
  noise = max(np.finfo(np.float64).eps * np.linalg.norm(outputs), np.finfo(np.float64).tiny)
  outputs = outputs - outputs.mean(1, keepdims=True)
  outputs = outputs - outputs.mean(0)
  values = np.linalg.svd(outputs, compute_uv=False)[: min(outputs.shape) - 1]
  if values[0] <= noise:
    return OutputWidth(None, np.nan, np.nan, "all queries have the same answer", values)
  return _decided(values, np.maximum(values, noise), clear)


def _decided(values, above_noise, clear):
  gaps = (above_noise[:-1] / above_noise[1:])[: max(int(SEARCHED * (len(values) + 1)), 2)]
  width = int(np.argmax(gaps)) + 1
  gap, next_gap = gaps[width - 1], np.delete(gaps, width - 1).max(initial=1)
  found = f"largest gap {gap:.3g} after {width}, the next {next_gap:.3g}"
  if gap < clear:
    reason = f"no gap of {clear:g}: {found}; not linear, rounded, or too few queries or classes"
    return OutputWidth(None, float(gap), float(next_gap), reason, values)
  return OutputWidth(width, float(gap), float(next_gap), found, values)
