"""Data sets in memory or drawn: `load(name)` gives a `Source`."""

import difflib
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from rankbias.data.digits import load_digits
from rankbias.data.dirichlet import load_dirichlet
from rankbias.data.errors import DataFileError, DatasetUnavailable
from rankbias.data.facts import FACTS
from rankbias.data.images import load_images, load_other
from rankbias.data.language import load_language
from rankbias.data.ood import add_ood
from rankbias.data.sets import load_max_retrieval
from rankbias.data.source import Source
from rankbias.data.text import load_clrs_text

__all__ = ["DATASETS", "DataFileError", "DatasetUnavailable", "Source", "load"]

DATASETS = {
  "digits": load_digits,
  "cifar10": partial(load_images, "cifar10"),
  "cifar100": partial(load_images, "cifar100"),
  "svhn": partial(load_images, "svhn"),
  "mnist": partial(load_images, "mnist"),
  "fashion_mnist": partial(load_images, "fashion_mnist"),
  "max_retrieval": load_max_retrieval,
  "clrs_text": load_clrs_text,
  "dirichlet": load_dirichlet,
  "ptb": partial(load_language, "ptb"),
  "wikitext2": partial(load_language, "wikitext2"),
  "tiny_shakespeare": partial(load_language, "tiny_shakespeare"),
}


def load(
  name: str,
  *,
  dir: str | None = None,
  download: bool = True,
  limit: int | None = None,
  ood: Mapping[str, Any] | None = None,
  **options: Any,
) -> Source:
  """Loads a data set by name.

  Args:
    dir: the folder to look in and to download to; see `rankbias.data.images.load_images`.
    limit: keep the first examples of each split only, for short trials.
    ood: data of another distribution beside it, {"classes": [8, 9]} or {"name": "cifar100"}; see
      `rankbias.data.ood.add_ood`.
    options: what the data set takes beside these, such as the sizes of `max_retrieval`.

  Raises:
    ValueError: there is no data set of this name, it does not take one of the options, or the data
      of another distribution do not go with it.
    DatasetUnavailable: it is neither in the folder nor can it be downloaded.
    DataFileError: it is in the folder, but incomplete or damaged.

  Example: load("digits").batch("train", 0, size=128, seed=0)["x"] is uint8 [128, 8, 8, 1].
  """
  if name not in DATASETS:
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"data set {name!r} is unknown; known are {', '.join(DATASETS)}.{hint}")
  known = set(inspect.signature(DATASETS[name]).parameters) - {"name", "dir", "download"}
  for option in options:
    if option not in known:
      raise ValueError(
        f"data set {name!r} has no option {option!r}; it takes {', '.join(sorted(known)) or 'none'}"
      )
  source = DATASETS[name](dir=dir, download=download, **options)
  if ood:
    source = add_ood(source, ood, partial(_load_other, dir=dir, download=download))
  return source.first(limit)


def _load_other(name: str, *, dir: str | None, download: bool) -> Source:
  """Loads an image set for `data.ood`, of which the test images may be all there is."""
  known = ("digits", *FACTS)
  if name not in known:
    raise ValueError(f"data.ood.name={name!r} is no image set; known are {', '.join(known)}")
  if name == "digits":
    return load_digits()
  return load_other(name, dir=dir, download=download)
