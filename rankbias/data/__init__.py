"""Image sets in memory: `load(name)` gives a `Source`."""

import difflib
from functools import partial

from rankbias.data.digits import load_digits
from rankbias.data.errors import DataFileError, DatasetUnavailable
from rankbias.data.images import load_images
from rankbias.data.source import Source

__all__ = ["DATASETS", "DataFileError", "DatasetUnavailable", "Source", "load"]

DATASETS = {
  "digits": load_digits,
  "cifar10": partial(load_images, "cifar10"),
  "cifar100": partial(load_images, "cifar100"),
  "svhn": partial(load_images, "svhn"),
  "mnist": partial(load_images, "mnist"),
  "fashion_mnist": partial(load_images, "fashion_mnist"),
}


def load(
  name: str, *, dir: str | None = None, download: bool = True, limit: int | None = None
) -> Source:
  """Loads a data set by name.

  Args:
    dir: the folder to look in and to download to; see `rankbias.data.images.load_images`.
    limit: keep the first images of each split only, for short trials.

  Raises:
    ValueError: there is no data set of this name.
    DatasetUnavailable: it is neither in the folder nor can it be downloaded.
    DataFileError: it is in the folder, but incomplete or damaged.

  Example: load("digits").batch("train", 0, size=128, seed=0)["x"] is uint8 [128, 8, 8, 1].
  """
  if name not in DATASETS:
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"data set {name!r} is unknown; known are {', '.join(DATASETS)}.{hint}")
  return DATASETS[name](dir=dir, download=download).first(limit)
