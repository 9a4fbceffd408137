"""Where the images of a published data set come from: the folder first, then a download."""

import os
import sys
from pathlib import Path

import numpy as np

from rankbias.data import layouts, prepare, prepared
from rankbias.data.cache import cached
from rankbias.data.errors import DatasetUnavailable, DownloadFailed
from rankbias.data.facts import FACTS, Facts
from rankbias.data.formats import Part
from rankbias.data.source import Source


def load_images(name: str, *, dir: str | None = None, download: bool = True) -> Source:
  """Loads a published image set, from the first of these that has it.

  1. the folder `dir`: a prepared TFDS set, a published layout, or its original archive;
  2. if `download`, the internet: fetched and prepared by TFDS, into the same folder.

  Args:
    dir: the folder; by default that of TFDS_DATA_DIR, else ~/tensorflow_datasets.

  Raises:
    DatasetUnavailable: neither has it.
    DataFileError: the folder has it, but a file is missing, truncated or damaged.
  """
  facts = FACTS[name]
  folder = data_folder(dir)
  source = _from_folder(facts, folder)
  if source is not None:
    return source
  if not download:
    raise unavailable(facts, folder, "A download was not allowed (config.data.download=False).")
  try:
    prepare.prepare(facts, folder)
  except DownloadFailed as error:
    source = _from_folder(facts, folder)  # the files came, but could not be prepared
    if source is None:
      raise unavailable(facts, folder, f"The download failed: {error}.") from error
    print(f"{error}; reading the downloaded files as they are", file=sys.stderr)
    return source
  return _from_folder(facts, folder)


def load_other(name: str, *, dir: str | None = None, download: bool = True) -> Source:
  """Loads a set as data of another distribution: a folder with its test images alone will do.

  Then the source has no "train", is no data set to train on, and nothing is downloaded.

  Raises: as `load_images`.
  """
  facts, folder = FACTS[name], data_folder(dir)
  if layouts.find(folder, facts) is None and prepared.find(folder, facts) is None:
    found = layouts.find(folder, facts, ("test",))
    if found is not None:
      return _source(facts, _arrays(layouts.read(found, facts, ("test",))), found.place)
  return load_images(name, dir=dir, download=download)


def _from_folder(facts: Facts, folder: Path) -> Source | None:
  """The published layouts and archives, which read fastest, then a prepared set; or None."""
  found = layouts.find(folder, facts)
  if found is not None:
    return _source(facts, _arrays(layouts.read(found, facts)), found.place)
  version = prepared.find(folder, facts)
  if version is not None:
    splits = cached(version, lambda: prepared.read(version, facts))
    return _source(facts, splits, version)
  layouts.refuse_incomplete(folder, facts)
  return None


def data_folder(dir: str | os.PathLike | None) -> Path:
  """The folder given, else TFDS_DATA_DIR, else the one that TFDS uses."""
  chosen = dir or os.environ.get("TFDS_DATA_DIR") or Path("~", "tensorflow_datasets")
  return Path(chosen).expanduser()


def unavailable(facts: Facts, folder: Path, reason: str) -> DatasetUnavailable:
  """The error that says what was looked for, why there was no download, and what helps."""
  forms = [name for layout in facts.layouts for name in layout.folders if name]
  archives = [name for layout in facts.layouts for name in layout.archives] or [
    name for parts in facts.layouts[0].parts.values() for part in parts for name in part
  ]
  state = "has none of" if folder.is_dir() else "is no folder; one could hold"
  known = ", ".join([f"a prepared TFDS set {facts.tfds_name}", *forms, *archives])
  return DatasetUnavailable(
    facts.name,
    folder=f"{folder} ({state} {known})",
    reason=reason,
    remedies=(
      f"put {' or '.join(archives)} (from {facts.urls[0].rpartition('/')[0]}) or a folder "
      f"{' or '.join(forms)} into a folder DIR and pass --config.data.dir=DIR "
      "or set TFDS_DATA_DIR; or run once with a network and --config.data.download=True."
    ),
  )


def _arrays(parts: dict[str, Part]) -> dict[str, dict[str, np.ndarray]]:
  return {split: {"x": part.images, "y": part.labels} for split, part in parts.items()}


def _source(facts: Facts, splits: dict[str, dict[str, np.ndarray]], place: Path) -> Source:
  counts = " and ".join(f"{len(arrays['y'])} {split}" for split, arrays in splits.items())
  return Source(
    name=facts.name,
    splits=splits,
    num_classes=len(facts.class_names),
    class_names=facts.class_names,
    origin=f"{facts.name}: {counts} images, from {place}",
  )
