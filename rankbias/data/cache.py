"""Keeps the decoded images of a prepared TFDS set beside it: decoding takes seconds each time."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rankbias.data.errors import DataFileError

Splits = dict[str, dict[str, np.ndarray]]
FORMAT = 1  # to be raised when what `read` returns changes


def cached(version: Path, read: Callable[[], Splits]) -> Splits:
  """Returns `read()`, from the second time on out of <name>/.rankbias-<version>-<key>.npz.

  The key is a hash of the name, size and modification time of every file in `version`, so a set
  that was prepared again, truncated or replaced is read afresh. A folder without write permission
  is read each time.

  Raises:
    DataFileError: the cache is damaged.
  """
  path = version.parent / f".rankbias-{version.name}-{_key(version)}.npz"
  if path.is_file():
    return _load(path)
  splits = read()
  if os.access(version.parent, os.W_OK):
    _save(path, splits)
    for stale in version.parent.glob(f".rankbias-{version.name}-*.npz"):
      if stale != path:
        stale.unlink()
  return splits


def _key(version: Path) -> str:
  files = sorted(path for path in version.rglob("*") if path.is_file())
  stats = [(str(f.relative_to(version)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
  return hashlib.sha256(json.dumps([FORMAT, stats]).encode()).hexdigest()[:16]


def _load(path: Path) -> Splits:
  splits: Splits = {}
  try:
    with np.load(path, allow_pickle=False) as arrays:
      for name in arrays.files:
        split, key = name.split("/")
        splits.setdefault(split, {})[key] = arrays[name]
  except Exception as error:  # a damaged zip raises almost anything
    raise DataFileError(f"{path}: damaged ({error}). Delete this file.") from error
  return splits


def _save(path: Path, splits: Splits) -> None:
  part = path.with_suffix(f".{os.getpid()}.part")
  arrays = {f"{split}/{k}": array for split, pair in splits.items() for k, array in pair.items()}
  try:
    with part.open("wb") as file:
      np.savez(file, **arrays)
    os.replace(part, path)
  except OSError as error:  # a full disk is no reason to stop: the images are in memory
    part.unlink(missing_ok=True)
    print(f"the images are not cached: {error}", file=sys.stderr)
