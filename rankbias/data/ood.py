"""Data of another distribution beside a data set: classes held out of it, or another data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rankbias.data.source import Source

OPTIONS = ("name", "classes", "test_only")
TRAIN_TO_TEST = 4  # where test images alone are divided: four of a class for one


def add_ood(source: Source, options: Mapping[str, Any], load: Callable[[str], Source]) -> Source:
  """Adds the splits "ood_train" and "ood_test", with labels 0..K-1 of their own.

  Args:
    options: {"classes": [8, 9]} holds these classes out of the set itself; {"name": "cifar100"}
      takes another set, of all its classes or of "classes". Class number k of the list becomes
      label k. "test_only": True takes the test images of the other set alone, wherever it lies.
    load: loads the other set by name, with "test" and, where it can be had, "train".

  Raises:
    ValueError: an option is unknown, classes are unknown, repeated, missing from a split or too
      many, the other set has images of another shape, or there are no images to begin with.

  Example: add_ood(load("digits"), {"classes": [8, 9]}, load) has 8 classes and 2 others.
  """
  for option in options:
    if option not in OPTIONS:
      raise ValueError(f"data.ood.{option} is unknown; use {', '.join(OPTIONS)}")
  if type(source) is not Source:
    raise ValueError(
      f"data.ood={dict(options)} with data.name={source.name!r}: it needs a set of labelled "
      "images, and this one is drawn or text. Remove data.ood."
    )
  name, classes = options.get("name"), options.get("classes")
  if name:
    if name == source.name:
      raise ValueError(
        f"data.ood.name={name!r} is the data set itself: give another one, or classes alone to "
        "hold them out."
      )
    return beside(source, load(name), classes, test_only=options.get("test_only", False))
  if classes is None or "test_only" in options:
    raise ValueError(
      f"data.ood={dict(options)}: give classes to hold out, or the name of another data set"
    )
  return hold_out(source, classes)


def hold_out(source: Source, classes: Sequence[int]) -> Source:
  """Moves classes from "train" and "test" to "ood_train" and "ood_test".

  The remaining classes are renumbered in their order; mean and deviation are those of the
  remaining training images.

  Raises:
    ValueError: as `add_ood`; fewer than two classes remain.
  """
  classes = _checked(classes, source)
  remaining = [c for c in range(source.num_classes) if c not in classes]
  if len(remaining) < 2:
    raise ValueError(
      f"data.ood.classes={classes} leave {len(remaining)} of the {source.num_classes} classes of "
      f"{source.name}: hold fewer out, at least 2 must remain"
    )
  own = {name: _select(source.splits[name], remaining) for name in ("train", "test")}
  others = {f"ood_{name}": _select(source.splits[name], classes) for name in ("train", "test")}
  _check_present(others, len(classes), source.name)
  names = ", ".join(source.class_names[c] for c in classes)
  return source._replace(
    splits=own | others,
    num_classes=len(remaining),
    class_names=tuple(source.class_names[c] for c in remaining),
    origin=f"{source.origin}; held out: {names} ({_counted(others)})",
    ood_classes=len(classes),
  )


def beside(
  source: Source, other: Source, classes: Sequence[int] | None = None, *, test_only: bool = False
) -> Source:
  """Adds the images of another set as "ood_train" and "ood_test".

  Where it has no training images, or they are not wanted, its test images are divided: of every
  class the fifth, tenth ... go to "ood_test".

  Raises:
    ValueError: as `add_ood`.
  """
  if other.shape != source.shape:
    raise ValueError(
      f"data.ood.name={other.name!r} has images of shape {other.shape}, {source.name} of "
      f"{source.shape}: a network takes one shape, choose another set"
    )
  chosen = range(other.num_classes) if classes is None else _checked(classes, other)
  parts, how = other.splits, ""
  if test_only or "train" not in parts:
    parts, how = divide(parts["test"]), f", its test images divided {TRAIN_TO_TEST}:1"
  splits = {f"ood_{name}": _select(parts[name], chosen) for name in ("train", "test")}
  _check_present(splits, len(chosen), other.name)
  return source._replace(
    splits=source.splits | splits,
    origin=f"{source.origin}; beside it {len(chosen)} classes of {other.origin}{how} "
    f"({_counted(splits)})",
    ood_classes=len(chosen),
  )


def divide(split: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """Divides images into "train" and "test", 4:1 in every class, in their order: no chance in it."""
  order = np.argsort(split["y"], kind="stable")
  ordered = split["y"][order]
  place = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # within the class
  test = np.zeros(len(order), bool)
  test[order] = place % (TRAIN_TO_TEST + 1) == TRAIN_TO_TEST
  return {
    name: {key: array[rows] for key, array in split.items()}
    for name, rows in (("train", ~test), ("test", test))
  }


def _checked(classes: Any, source: Source) -> list[int]:
  """The class numbers as a list; raises where they are none of the set's, or repeated."""
  known = f"{source.name} has the classes 0 to {source.num_classes - 1}"
  if isinstance(classes, str) or not isinstance(classes, Sequence) or not len(classes):
    raise ValueError(f"data.ood.classes={classes!r} must be a list of class numbers; {known}")
  for c in classes:
    if isinstance(c, bool) or not isinstance(c, int) or not 0 <= c < source.num_classes:
      raise ValueError(f"data.ood.classes={list(classes)}: {c!r} is no class; {known}")
  if len(set(classes)) < len(classes):
    raise ValueError(f"data.ood.classes={list(classes)}: name every class once")
  return list(classes)


def _select(split: Mapping[str, np.ndarray], classes: Sequence[int]) -> dict[str, np.ndarray]:
  """The images of some classes in their order, with the place in `classes` as label."""
  label = np.full(max(split["y"].max(initial=0), *classes) + 1, -1, np.int32)
  label[list(classes)] = np.arange(len(classes))
  y = label[split["y"]]
  return {"x": split["x"][y >= 0], "y": y[y >= 0]}


def _check_present(splits: Mapping[str, Mapping], count: int, name: str) -> None:
  """Raises where a split has no image of a class."""
  for split, arrays in splits.items():
    missing = sorted(set(range(count)) - set(arrays["y"].tolist()))
    if missing:
      raise ValueError(
        f"data.ood: {split!r} has no image of {len(missing)} of the {count} classes taken from "
        f"{name} (place {', '.join(map(str, missing[:5]))} in the list); leave them out"
      )


def _counted(splits: Mapping[str, Mapping]) -> str:
  return " and ".join(f"{len(arrays['y'])} {split}" for split, arrays in splits.items())
