"""Reads an image set that TFDS has prepared, in either record format, without TensorFlow."""

import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankbias.data.errors import DataFileError
from rankbias.data.facts import Facts

VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(folder: Path, facts: Facts) -> Path | None:
  """Returns the newest prepared version of the set at or below `folder`, or None.

  It is <folder>/<name>/<version>; `folder` may also be <name> or <version> itself.
  """
  places = [*folder.glob(f"{facts.tfds_name}/*"), *folder.glob("*"), folder]
  versions = [p for p in places if VERSION.fullmatch(p.name) and _name(p) == facts.tfds_name]
  return max(versions, key=lambda p: tuple(map(int, p.name.split("."))), default=None)


def _name(version: Path) -> str | None:
  info = version / "dataset_info.json"
  if not info.is_file():
    return None
  try:
    return json.loads(info.read_text())["name"]
  except (ValueError, KeyError, TypeError) as error:
    raise DataFileError.unreadable(
      str(info), f"no description of a TFDS set: {error!r}", found=info.stat().st_size
    ) from error


def read(version: Path, facts: Facts) -> dict[str, dict[str, np.ndarray]]:
  """Reads the train and test images of a prepared set, in the order of the original files.

  TFDS stores records sorted by a hash of their key. Undoing that gives one order, hence one
  training run, whatever form a data set was read from.

  Raises:
    DataFileError: a file is missing, truncated or damaged, or the set is incomplete.
  """
  import tensorflow_datasets as tfds  # half a second, and only this form needs it

  builder = tfds.builder_from_directory(version)
  return {split: _read_split(tfds, builder, facts, split) for split in facts.counts}


def _read_split(tfds, builder, facts: Facts, split: str) -> dict[str, np.ndarray]:
  count = facts.counts[split]
  info = builder.info.splits.get(split)
  if info is None or info.num_examples != count:
    raise DataFileError(
      f"{builder.data_dir}: expected {count} {split} images, its dataset_info.json says "
      f"{info.num_examples if info else 0}. Prepare the set again."
    )
  images = np.empty((count, *facts.shape), np.uint8)
  labels = np.empty(count, np.int32)
  ids = []
  skip = {"image": tfds.decode.SkipDecoding()}
  for position, record in enumerate(_records(tfds, builder, split)):
    try:
      example = builder.info.features.deserialize_example_np(record, decoders=skip)
      images[position] = _decode(example["image"], facts.shape)
      labels[position] = example["label"]
    except Exception as error:  # a damaged record raises almost anything
      raise DataFileError(
        f"{builder.data_dir}: {split} record {position} is damaged: {error}. Prepare the set again."
      ) from error
    ids.append(example.get("id"))
  if len(ids) != count:
    raise DataFileError(
      f"{builder.data_dir}: expected {count} {split} images, found {len(ids)}. "
      "Prepare the set again."
    )
  order = _original_order(tfds, builder, split, ids)
  return {"x": images[order], "y": labels[order]}


def _original_order(tfds, builder, split: str, ids: list[bytes | None]) -> np.ndarray:
  """Positions of the records in the order of the original files: by id, or by undoing the hash."""
  if ids[0] is not None:
    return np.argsort(np.array(ids))
  if builder.info.disable_shuffling:
    return np.arange(len(ids))
  hasher = tfds.core.hashing.Hasher(split)
  stored = sorted(range(len(ids)), key=hasher.hash_key)  # the key at each stored position
  return np.argsort(stored)


def _decode(png: bytes, shape: tuple[int, int, int]) -> np.ndarray:
  from PIL import Image

  return np.asarray(Image.open(io.BytesIO(png))).reshape(shape)


def _records(tfds, builder, split: str) -> Iterator[bytes]:
  """The serialised examples of a split in stored order."""
  kind = builder.info.file_format.value
  paths = [Path(path) for path in builder.info.splits[split].filepaths]
  for path in paths:
    if not path.is_file():
      raise DataFileError(f"{path}: missing. Prepare the set again.")
  if kind == "tfrecord":
    for path in paths:
      yield from _tfrecords(path)
  elif kind == "array_record":
    yield from _array_records(tfds, builder, split, paths)
  else:
    raise DataFileError(
      f"{builder.data_dir}: prepared as {kind!r}; readable are array_record and tfrecord"
    )


def _array_records(tfds, builder, split: str, paths: list[Path]) -> Iterator[bytes]:
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    source = builder.as_data_source(split, deserialize_method=raw)
    for start in range(0, len(source), 1000):
      yield from source.__getitems__(list(range(start, min(start + 1000, len(source)))))
  except (RuntimeError, ValueError, IndexError) as error:
    sizes = ", ".join(f"{path.name} {path.stat().st_size}" for path in paths)
    raise DataFileError(
      f"{builder.data_dir}: unreadable {split} records: {error} (files and bytes: {sizes}). "
      "Prepare the set again."
    ) from error


def _tfrecords(path: Path) -> Iterator[bytes]:
  """A record is its length (8 bytes), a checksum (4), the data and a checksum (4)."""
  data = path.read_bytes()
  position = 0
  while position < len(data):
    length = struct.unpack_from("<Q", data, position)[0] if len(data) - position >= 8 else 0
    end = position + 16 + length
    if end > len(data):
      raise DataFileError.unreadable(str(path), "truncated", expected=end, found=len(data))
    yield data[position + 12 : end - 4]
    position = end
