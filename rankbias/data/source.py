"""A data set in memory, and which of its images each training step sees."""

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from rankbias.data.augment import augment


class _Fields(NamedTuple):
  name: str
  splits: dict[str, dict[str, np.ndarray]]
  num_classes: int
  class_names: tuple[str, ...]
  origin: str
  form: Any = None
  ood_classes: int = 0


class Source(_Fields):
  """A labelled image set held as uint8, whose batches are a pure function of the step.

  The order of training images is one endless stream: the permutation of epoch 0, then that of
  epoch 1, and so on, with epoch e drawn as `numpy.random.default_rng((seed, e)).permutation(N)`.
  Step s reads the positions [s size, (s + 1) size). A batch may span epochs, every image comes
  exactly once per epoch, and resuming needs the integer s alone.

  Data of another kind derive from this class and say otherwise: what a device holds
  (`constants`), what a step makes of it (`pick`, `examples`), what a network gets (`inputs`), and
  in how many static forms a batch comes (`variants`).

  Fields:
    name: "digits", "cifar10", ...
    splits: {"train": {"x": uint8 [N, H, W, C], "y": int32 [N]}, "test": {...}}; with data of
      another distribution also "ood_train" and "ood_test", whose labels are their own.
    num_classes, class_names: the classes in label order.
    origin: one line for the log: where the images were read from, and how many.
    form: what describes examples of another kind than images.
    ood_classes: how many classes "ood_train" and "ood_test" have; 0 where there are none.
  """

  @property
  def variants(self) -> int:
    """Static forms of a batch, each compiled for itself."""
    return 1

  def variant(self, step: int) -> int:
    """Which of the forms the batch of a step has."""
    return 0

  @property
  def epoch(self) -> int | None:
    """Training examples in an epoch; None where every step draws new ones."""
    return len(self._split("train")["y"])

  def constants(self) -> dict[str, np.ndarray]:
    """The arrays that every device holds while training."""
    return self.splits["train"]

  def pick(self, constants: dict[str, Any], rows) -> dict[str, Any]:
    """Gathers a batch of `constants` on the device."""
    return jax.tree.map(lambda array: array[rows], constants)

  def examples(self, batch: dict[str, Any], keys, variant: int, *, dtype, crop: int, flip: bool):
    """What the network is trained on: (inputs, labels, weights of the labels or None).

    Args:
      batch: as `pick` returns it; keys: one random key an example.
    """
    x = augment(batch["x"], keys, pad=crop, flip=flip)
    return self.inputs(x, dtype), batch["y"], None

  def inputs(self, x, dtype) -> jax.Array:
    """Raw images with zero mean and unit variance per channel of the training images."""
    mean, std = (np.asarray(m, dtype).reshape(1, 1, 1, -1) for m in (self.mean, self.std))
    return ((x.astype(dtype) / 255) - mean) / std

  def template(self, count: int) -> jax.ShapeDtypeStruct:
    """The shape and dtype of `count` raw examples."""
    return jax.ShapeDtypeStruct((count, *self.shape), self.splits["test"]["x"].dtype)

  def seen_by(self, seed: int) -> "Source":
    """The data of the member with this seed: the same for all, unless a source says otherwise."""
    return self

  def fixed(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The (x, y) on which a network is measured while it trains: always the same."""
    train = self._split("train")
    chosen = np.random.default_rng(0).permutation(len(train["y"]))[:count]
    return train["x"][chosen], train["y"][chosen]

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
    """The shape of one example: height, width and channels of an image."""
    return self.splits["test"]["x"].shape[1:]

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
