"""Finds a published layout or its archive below a folder and reads it, without extracting."""

import tarfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rankbias.data.errors import DataFileError
from rankbias.data.facts import Facts, Layout
from rankbias.data.formats import File, Part


class Found(NamedTuple):
  """A layout and the folder, or the archive, that it was found in."""

  layout: Layout
  place: Path


def roots(folder: Path, name: str) -> tuple[Path, ...]:
  """The folders in which layouts are looked for."""
  manual = folder / "downloads" / "manual"
  return (folder, folder / name, manual / name, manual)


def find(folder: Path, facts: Facts, splits: Collection[str] | None = None) -> Found | None:
  """Returns the first complete layout below `folder`, folders before archives, or None.

  Args:
    splits: those that must be complete; None for all.
  """
  for layout in facts.layouts:
    for place in _folders(folder, facts.name, layout):
      if not _missing(place, layout, splits):
        return Found(layout, place)
  for layout in facts.layouts:
    for root in roots(folder, facts.name):
      for archive in layout.archives:
        if (root / archive).is_file():
          return Found(layout, root / archive)
  return None


def refuse_incomplete(folder: Path, facts: Facts) -> None:
  """Raises DataFileError where `find` found nothing because some files of a layout are missing.

  A download that was cut short is not meant: it goes on where it ended.
  """
  for layout in facts.layouts:
    for place in _folders(folder, facts.name, layout):
      missing = _missing(place, layout)
      if folder / "downloads" not in place.parents and len(missing) < len(_names(layout)):
        raise DataFileError(
          f"{place}: {facts.name} is incomplete, missing {', '.join(missing)}. Add these files "
          "(training and test images are both needed, but for data.ood, which can do with the test "
          "images) or choose another folder."
        )


def read(found: Found, facts: Facts, splits: Collection[str] | None = None) -> dict[str, Part]:
  """Reads the splits of a layout, all of them where `splits` is None.

  Raises:
    DataFileError: a file is truncated, damaged or not of this data set.
  """
  layout, place = found
  opened = _open_archive if place.is_file() else _open_folder
  return _read(layout, opened(place, _names(layout, splits), facts.sizes), facts, splits)


def read_downloads(paths: list[Path], facts: Facts) -> dict[str, Part]:
  """Reads all splits from the files of `facts.urls`, which may bear other names here."""
  names = [url.rpartition("/")[2] for url in facts.urls]
  layout = next(x for x in facts.layouts if not x.archives or names[0] in x.archives)
  if layout.archives:
    return _read(layout, _open_archive(paths[0], _names(layout), facts.sizes), facts)
  files = [
    File(str(path.with_name(name)), path.read_bytes(), facts.sizes.get(name))
    for name, path in zip(names, paths, strict=True)
  ]
  return _read(layout, files, facts)


def _read(
  layout: Layout, files: Iterable[File], facts: Facts, splits: Collection[str] | None = None
) -> dict[str, Part]:
  named = {Path(file.path).name: file for file in files}
  return {split: _read_split(layout, named, facts, split) for split in splits or layout.parts}


def _read_split(layout: Layout, files: dict[str, File], facts: Facts, split: str) -> Part:
  parts = layout.parts[split]
  rows = facts.counts[split] // len(parts)
  read = [layout.read(tuple(files[name] for name in part), rows) for part in parts]
  columns = zip(*read, strict=True)
  whole = Part(*(None if column[0] is None else np.concatenate(column) for column in columns))
  path = files[parts[0][-1]].path
  low, high, classes = whole.labels.min(), whole.labels.max(), len(facts.class_names)
  if low < 0 or high >= classes:
    raise DataFileError(
      f"{path}: labels reach from {low} to {high}, but {facts.name} has {classes} classes. "
      "Copy or download this file again."
    )
  if whole.images.shape[1:] != facts.shape:
    raise DataFileError(
      f"{path}: images of shape {whole.images.shape[1:]}, but {facts.name} has {facts.shape}"
    )
  facts.check(whole.labels, path)
  return whole


def _names(layout: Layout, splits: Collection[str] | None = None) -> list[str]:
  chosen = [layout.parts[split] for split in splits or layout.parts]
  return [name for parts in chosen for part in parts for name in part]


def _missing(folder: Path, layout: Layout, splits: Collection[str] | None = None) -> list[str]:
  return [name for name in _names(layout, splits) if _file(folder, name) is None]


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
