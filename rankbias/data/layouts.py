"""Finds a published layout or its archive below a folder and reads it, without extracting."""

import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rankbias.data.errors import DataFileError
from rankbias.data.facts import Facts, Layout
from rankbias.data.formats import File


class Found(NamedTuple):
  """A layout and the folder, or the archive, that it was found in."""

  layout: Layout
  place: Path


def roots(folder: Path, name: str) -> tuple[Path, ...]:
  """The folders in which layouts are looked for."""
  return (folder, folder / name, folder / "downloads" / "manual")


def find(folder: Path, facts: Facts) -> Found | None:
  """Returns the first complete layout below `folder`, folders before archives, or None.

  Raises:
    DataFileError: there is none, but one with some of its files missing.
  """
  incomplete = []
  for layout in facts.layouts:
    for place in _folders(folder, facts.name, layout):
      missing = [name for name in _names(layout) if _file(place, name) is None]
      if not missing:
        return Found(layout, place)
      if len(missing) < len(_names(layout)):
        incomplete.append((place, missing))
  for layout in facts.layouts:
    for root in roots(folder, facts.name):
      for archive in layout.archives:
        if (root / archive).is_file():
          return Found(layout, root / archive)
  if incomplete:
    place, missing = incomplete[0]
    raise DataFileError(
      f"{place}: {facts.name} is incomplete, missing {', '.join(missing)}. Add the missing files "
      "(training and test images are both needed) or remove the folder."
    )
  return None


def read(found: Found, facts: Facts) -> dict[str, dict[str, np.ndarray]]:
  """Reads all splits of a layout.

  Raises:
    DataFileError: a file is truncated, damaged or not of this data set.
  """
  layout, place = found
  wanted = _names(layout)
  opened = _open_archive if place.is_file() else _open_folder
  files = {Path(file.path).name: file for file in opened(place, wanted, facts.sizes)}
  return {split: _read_split(layout, files, facts, split) for split in layout.parts}


def _read_split(layout: Layout, files: dict[str, File], facts: Facts, split: str):
  parts = layout.parts[split]
  rows = facts.counts[split] // len(parts)
  read = [layout.read(tuple(files[name] for name in part), rows) for part in parts]
  images = np.concatenate([part.images for part in read])
  labels = np.concatenate([part.labels for part in read])
  path = files[parts[0][-1]].path
  if labels.min() < 0 or labels.max() >= len(facts.class_names):
    raise DataFileError(
      f"{path}: labels reach from {labels.min()} to {labels.max()}, but {facts.name} has "
      f"{len(facts.class_names)} classes. Copy or download this file again."
    )
  if images.shape[1:] != facts.shape:
    raise DataFileError(f"{path}: images of {images.shape[1:]}, but {facts.name} has {facts.shape}")
  facts.check(labels, path)
  return {"x": images, "y": labels}


def _names(layout: Layout) -> list[str]:
  return [name for parts in layout.parts.values() for part in parts for name in part]


def _folders(folder: Path, name: str, layout: Layout) -> Iterable[Path]:
  """Where the files may lie: `folder` itself if so named, or the layout's folder below a root."""
  if any(
    inner and folder.parts[-inner.count("/") - 1 :] == Path(inner).parts for inner in layout.folders
  ):
    yield folder
  for root in roots(folder, name):
    for inner in layout.folders:
      yield root / inner


def _file(folder: Path, name: str) -> Path | None:
  """The file, or the unpacked one beside it where only that exists."""
  for candidate in (folder / name, folder / name.removesuffix(".gz")):
    if candidate.is_file():
      return candidate
  return None


def _open_folder(folder: Path, wanted: list[str], sizes: dict[str, int]) -> Iterable[File]:
  for name in wanted:
    path = _file(folder, name)
    published = sizes.get(name) if path.name == name else None
    yield File(str(path.with_name(name)), path.read_bytes(), published)


def _open_archive(archive: Path, wanted: list[str], sizes: dict[str, int]) -> Iterable[File]:
  """Reads the wanted members of a .tar.gz in one pass."""
  missing = set(wanted)
  try:
    with tarfile.open(archive, "r:gz") as tar:
      for member in tar:
        name = Path(member.name).name
        if member.isfile() and name in missing:
          missing.remove(name)
          data = tar.extractfile(member).read()
          yield File(f"{archive}:{member.name}", data, sizes.get(name, member.size))
        if not missing:
          return
  except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
    raise DataFileError.unreadable(
      str(archive),
      f"truncated or damaged archive: {error}",
      expected=sizes.get(archive.name),
      found=archive.stat().st_size,
    ) from error
  raise DataFileError.unreadable(
    str(archive),
    f"does not contain {', '.join(sorted(missing))}",
    expected=sizes.get(archive.name),
    found=archive.stat().st_size,
  )
