"""Batches as a pure function of the step, and the statistics of a source."""

import numpy as np
import pytest

from rankbias.data import Source, load
from rankbias.data.source import _permutation, channel_moments, stream


def source(count=10, channels=3):
  rng = np.random.default_rng(0)

  def split(n):
    x = rng.integers(0, 256, (n, 4, 4, channels), dtype=np.uint8)
    return {"x": x, "y": np.arange(n, dtype=np.int32) % 2}

  return Source("toy", {"train": split(count), "test": split(4)}, 2, ("a", "b"), "made up")


def test_stream_is_the_permutations_of_the_epochs():
  expected = np.concatenate([np.random.default_rng((7, e)).permutation(10) for e in range(3)])
  s = source()
  got = np.concatenate([s.indices("train", step, size=4, seed=7) for step in range(7)])
  np.testing.assert_array_equal(got, expected[:28])
  assert got.dtype == np.int32


@pytest.mark.parametrize("size", [1, 3, 5, 10, 25])
def test_each_image_once_per_epoch(size):
  s = source()
  steps = 10 * 4 // size
  got = np.concatenate([s.indices("train", step, size=size, seed=0) for step in range(steps)])
  for epoch in range(len(got) // 10):
    assert sorted(got[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_resuming_needs_the_step_alone():
  run = [source().indices("train", step, size=3, seed=1) for step in range(20)]
  _permutation.cache_clear()
  np.testing.assert_array_equal(source().indices("train", 17, size=3, seed=1), run[17])


def test_seeds_and_epochs_differ():
  s = source(100)
  first = s.indices("train", 0, size=100, seed=0)
  assert not np.array_equal(first, s.indices("train", 1, size=100, seed=0))
  assert not np.array_equal(first, s.indices("train", 0, size=100, seed=1))


def test_cached_order_cannot_be_changed_from_outside():
  s = source()
  s.indices("train", 0, size=10, seed=3)[:] = 0
  assert sorted(s.indices("train", 0, size=10, seed=3)) == list(range(10))


def test_batch_gathers():
  s = source()
  batch = s.batch("train", 2, size=6, seed=0)
  np.testing.assert_array_equal(batch["x"], s.splits["train"]["x"][batch["index"]])
  np.testing.assert_array_equal(batch["y"], batch["index"] % 2)
  assert batch["x"].dtype == np.uint8
  assert batch["y"].dtype == batch["index"].dtype == np.int32


def test_moments_are_those_of_float64():
  s = source(50)
  x = s.splits["train"]["x"].astype(np.float64) / 255
  np.testing.assert_allclose(s.mean, x.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(s.std, x.std((0, 1, 2)), rtol=1e-6)
  assert s.mean.dtype == s.std.dtype == np.float32
  assert s.mean.shape == (3,)


def test_constant_channel_has_unit_std():
  mean, std = channel_moments(np.full((2, 3, 3, 1), 51, np.uint8))
  np.testing.assert_allclose(mean, [0.2], rtol=1e-6)
  np.testing.assert_array_equal(std, [1])


def test_stream_can_be_longer_than_an_epoch():
  assert np.bincount(stream(10, 3, 100, 0), minlength=10).sum() == 100
  np.testing.assert_array_equal(stream(10, 3, 30, 0), stream(10, 0, 33, 0)[3:])


def test_limit_keeps_the_first_and_says_so():
  whole, part = load("digits"), load("digits", limit=30)
  for split in ("train", "test"):
    np.testing.assert_array_equal(part.splits[split]["x"], whole.splits[split]["x"][:30])
  assert "first 30" in part.origin
  assert isinstance(part, Source)


def test_failures_name_the_value():
  s = source()
  with pytest.raises(ValueError, match=r"split='valid': toy has \['test', 'train'\]"):
    s.indices("valid", 0, size=1, seed=0)
  with pytest.raises(ValueError, match="size=0"):
    s.indices("train", 0, size=0, seed=0)
  with pytest.raises(ValueError, match="limit=0: must be at least 1"):
    load("digits", limit=0)
