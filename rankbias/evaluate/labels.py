"""Has every class an example where an evaluation needs one? Asked before anything is trained."""

from collections.abc import Iterator
from typing import Any

import numpy as np

# Split, the labels that are seen of it, and how many classes must be among them (0 for none).
Seen = tuple[str, np.ndarray, int]


def check_labels(name: str, split: str, labels: np.ndarray, classes: int) -> None:
  """Raises unless labels are one class an example, and each class from 0 on has an example.

  Args:
    name: of the evaluation.
    labels: those of the split that it sees.
    classes: that must have an example; 0 asks for an example of any.
  """
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"evaluate.{name}: labels of {split!r} have shape {labels.shape} and type {labels.dtype}; it "
      f"needs one class an example; remove evaluate.{name}"
    )
  if not len(labels):
    raise ValueError(f"evaluate.{name}: {split!r} has no image; raise data.limit")
  missing = sorted(set(range(classes)) - set(labels.tolist()))
  if missing:
    first = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    raise ValueError(
      f"evaluate.{name}: {split!r} has no image of {len(missing)} of {classes} classes ({first}) "
      f"among its first {len(labels)}; raise evaluate.{name}.images or data.limit, or choose "
      "another split or other classes"
    )


def first_labels(source: Any, split: str, images: int | None) -> np.ndarray:
  """The labels of the first images of a split, all for None; raises where there is no split."""
  if split not in source.splits:
    raise ValueError(f"split={split!r}: the data have {', '.join(source.splits)}")
  return source.splits[split]["y"][:images]


def labels_of_cuts(source: Any, *, cuts: bool = False, **_: Any) -> Iterator[Seen]:
  """What the probes of a cut network see: all training images."""
  if cuts:
    yield "train", first_labels(source, "train", None), source.num_classes
