"""Readers of the published file formats: bytes of files in, images and labels out."""

import gzip
import io
import zlib
from typing import NamedTuple

import numpy as np

from rankbias.data.errors import DataFileError
from rankbias.data.pickles import load_arrays


class File(NamedTuple):
  """The content of a file, the path it was read at, and its published size."""

  path: str
  data: bytes
  published: int | None = None

  def bad(self, cause: str) -> DataFileError:
    return DataFileError.unreadable(self.path, cause, expected=self.published, found=len(self.data))


class Part(NamedTuple):
  """Some images of one split, uint8 [n, H, W, C], and their labels, int32 [n].

  `coarse` are the superclasses of CIFAR-100, where the file has them.
  """

  images: np.ndarray
  labels: np.ndarray
  coarse: np.ndarray | None = None


def _planar(pixels: np.ndarray) -> np.ndarray:
  """[n, 3072], all red, then green, then blue, each in rows -> [n, 32, 32, 3]."""
  return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_cifar_pickle(files: tuple[File], count: int) -> Part:
  """A batch of cifar-10-batches-py or a split of cifar-100-python (its fine labels)."""
  (file,) = files
  try:
    content = load_arrays(file.data)
  except Exception as error:  # a damaged pickle raises almost anything
    raise file.bad(f"not a readable CIFAR pickle: {error}") from error
  labels = content.get("labels", content.get("fine_labels"))
  pixels = content.get("data")
  if labels is None or getattr(pixels, "dtype", None) != np.uint8:
    raise file.bad(f"not a CIFAR batch, it holds {sorted(map(str, content))}")
  if pixels.shape != (count, 3072) or len(labels) != count:
    raise file.bad(
      f"expected {count} images of 3072 bytes with labels, found shape {pixels.shape} "
      f"and {len(labels)} labels"
    )
  return Part(_planar(pixels), np.asarray(labels, np.int32))


def _read_cifar_binary(file: File, count: int, label_bytes: int) -> Part:
  row = label_bytes + 3072
  if len(file.data) != count * row:
    raise file._replace(published=count * row).bad(f"truncated or not {count} rows of {row} bytes")
  rows = np.frombuffer(file.data, np.uint8).reshape(count, row)
  labels = rows[:, :label_bytes].astype(np.int32)
  coarse = labels[:, 0] if label_bytes == 2 else None
  return Part(_planar(rows[:, label_bytes:]), labels[:, -1], coarse)


def read_cifar10_binary(files: tuple[File], count: int) -> Part:
  """A batch of cifar-10-batches-bin: rows of one label byte and 3072 pixels."""
  return _read_cifar_binary(files[0], count, label_bytes=1)


def read_cifar100_binary(files: tuple[File], count: int) -> Part:
  """A split of cifar-100-binary: rows of a coarse label, the fine label and 3072 pixels."""
  return _read_cifar_binary(files[0], count, label_bytes=2)


def _gunzip(file: File) -> File:
  if not file.data.startswith(b"\x1f\x8b"):
    return file._replace(published=None)
  try:
    return File(f"{file.path} (unpacked)", gzip.decompress(file.data))
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise file.bad(f"truncated or damaged gzip: {error}") from error


def _read_idx(file: File, magic: int, count: int) -> np.ndarray:
  """An idx file of bytes: big-endian magic and dimensions, then the values."""
  file = _gunzip(file)
  rank = magic % 256
  head = 4 * (1 + rank)
  header = np.frombuffer(file.data[: head - head % 4], ">i4") if len(file.data) >= head else [0]
  if header[0] != magic:
    raise file.bad(f"not an idx{rank}-ubyte file, it starts with {file.data[:4].hex()!r}")
  dims = tuple(int(n) for n in header[1:])
  expected = head + int(np.prod(dims))
  if len(file.data) != expected:
    raise file._replace(published=expected).bad("truncated or too long")
  if dims[0] != count:
    raise file.bad(f"expected {count} entries, found {dims[0]}")
  return np.frombuffer(file.data, np.uint8, offset=head).reshape(dims)


def read_idx(files: tuple[File, File], count: int) -> Part:
  """An images file and a labels file of the MNIST format, compressed or not."""
  images, labels = files
  return Part(
    _read_idx(images, 0x803, count)[..., None], _read_idx(labels, 0x801, count).astype(np.int32)
  )


def read_svhn(files: tuple[File], count: int) -> Part:
  """A split of the cropped SVHN: X [32, 32, 3, n] and y with 10 for the digit 0."""
  from scipy.io import loadmat

  (file,) = files
  try:
    content = loadmat(io.BytesIO(file.data), variable_names=["X", "y"])
    pixels, labels = content["X"], content["y"]
  except Exception as error:  # a damaged .mat raises almost anything
    raise file.bad(f"not a readable SVHN .mat file: {error!r}") from error
  if pixels.shape != (32, 32, 3, count) or labels.size != count:
    raise file.bad(
      f"expected X [32, 32, 3, {count}], found {pixels.shape} and {labels.size} labels"
    )
  return Part(
    np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels.reshape(-1).astype(np.int32) % 10
  )


def _is_balanced(labels: np.ndarray) -> bool:
  return len(np.unique(np.bincount(labels))) == 1


def check_is_mnist(labels: np.ndarray, path: str) -> None:
  """MNIST and Fashion-MNIST have the same file names, but only the latter is balanced."""
  if _is_balanced(labels):
    raise DataFileError(
      f"{path}: not MNIST: all classes are equally frequent, as in Fashion-MNIST. "
      "Keep the two in folders named mnist and fashion_mnist."
    )


def check_is_fashion_mnist(labels: np.ndarray, path: str) -> None:
  """The reverse of `check_is_mnist`."""
  if not _is_balanced(labels):
    raise DataFileError(
      f"{path}: not Fashion-MNIST: its classes are equally frequent, these are not (as in MNIST). "
      "Keep the two in folders named mnist and fashion_mnist."
    )
