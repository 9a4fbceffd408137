"""A data set in memory, and which of its images each training step sees."""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np


class _Fields(NamedTuple):
  name: str
  splits: dict[str, dict[str, np.ndarray]]
  num_classes: int
  class_names: tuple[str, ...]
  origin: str


class Source(_Fields):
  """A labelled image set held as uint8, whose batches are a pure function of the step.

  The order of training images is one endless stream: the permutation of epoch 0, then that of
  epoch 1, and so on, with epoch e drawn as `numpy.random.default_rng((seed, e)).permutation(N)`.
  Step s reads the positions [s size, (s + 1) size). A batch may span epochs, every image comes
  exactly once per epoch, and resuming needs the integer s alone.

  Fields:
    name: "digits", "cifar10", ...
    splits: {"train": {"x": uint8 [N, H, W, C], "y": int32 [N]}, "test": {...}}
    num_classes, class_names: the classes in label order.
    origin: one line for the log: where the images were read from, and how many.
  """

  def indices(self, split: str, step: int, *, size: int, seed: int) -> np.ndarray:
    """Returns the int32 positions in `split` that batch number `step` consists of."""
    count = len(self._split(split)["y"])
    if size < 1 or step < 0 or seed < 0:
      raise ValueError(
        f"size={size}, step={step}, seed={seed}: size must be at least 1, step and seed at least 0"
      )
    return stream(count, step * size, size, seed)

  def batch(self, split: str, step: int, *, size: int, seed: int) -> dict[str, np.ndarray]:
    """Returns batch number `step`: "x" uint8 [size, ...], "y" and "index" int32 [size]."""
    index = self.indices(split, step, size=size, seed=seed)
    arrays = self._split(split)
    return {"x": arrays["x"][index], "y": arrays["y"][index], "index": index}

  @property
  def shape(self) -> tuple[int, ...]:
    """Height, width and channels of one image."""
    return self.splits["train"]["x"].shape[1:]

  @property
  def mean(self) -> np.ndarray:
    """Mean of each channel over the training images, in units where 255 is 1; float32 [C]."""
    return self._moments[0]

  @property
  def std(self) -> np.ndarray:
    """Standard deviation of each channel (1 where a channel is constant), as `mean`."""
    return self._moments[1]

  @cached_property
  def _moments(self) -> tuple[np.ndarray, np.ndarray]:
    return channel_moments(self.splits["train"]["x"])

  def _split(self, split: str) -> dict[str, np.ndarray]:
    if split not in self.splits:
      raise ValueError(f"split={split!r}: {self.name} has {sorted(self.splits)}")
    return self.splits[split]

  def first(self, limit: int | None) -> "Source":
    """Keeps the first `limit` images of every split; all of them when `limit` is None."""
    if limit is None:
      return self
    if limit < 1:
      raise ValueError(f"limit={limit}: must be at least 1, or None for all images")
    splits = {
      name: {key: array[:limit] for key, array in arrays.items()}
      for name, arrays in self.splits.items()
    }
    return self._replace(splits=splits, origin=f"{self.origin}; first {limit} of each split")


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation per channel of uint8 images [..., C], exact, with 255 as 1."""
  channels = images.shape[-1]
  pixels = images.reshape(-1, channels)
  counts = np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(channels)])
  value = np.arange(256) / 255
  mean = counts @ value / len(pixels)
  variance = (counts * (value - mean[:, None]) ** 2).sum(1) / len(pixels)
  std = np.where(variance > 0, np.sqrt(variance), 1.0)
  return mean.astype(np.float32), std.astype(np.float32)


def stream(count: int, start: int, length: int, seed: int) -> np.ndarray:
  """Positions [start, start + length) of the endless stream of permutations of range(count)."""
  pieces = []
  while length > 0:
    epoch, offset = divmod(start, count)
    piece = _permutation(count, seed, epoch)[offset : offset + length]
    pieces.append(piece)
    start, length = start + len(piece), length - len(piece)
  return np.concatenate(pieces)


@lru_cache(maxsize=128)  # two epochs for each of the members that train together
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
  order = np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)
  order.setflags(write=False)
  return order
