"""Crop and flip: against a loop in NumPy, and independent of how a batch is cut."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.data.augment import augment


def batch(count=16, dtype=np.uint8, shape=(8, 8, 3)):
  images = np.random.default_rng(0).integers(1, 256, (count, *shape)).astype(dtype)
  keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(count))
  return jnp.asarray(images), keys


def candidates(image, pad, flip):
  """Every image that a crop and a flip can make of `image`, by shift and mirror."""
  framed = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  height, width, _ = image.shape
  for row in range(2 * pad + 1):
    for column in range(2 * pad + 1):
      crop = framed[row : row + height, column : column + width]
      yield (row, column, False), crop
      if flip:
        yield (row, column, True), crop[:, ::-1]


@pytest.mark.parametrize(("pad", "flip"), [(4, True), (4, False), (0, True), (2, True)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_image_is_a_shift_or_mirror_of_itself(pad, flip, dtype):
  images, keys = batch(dtype=dtype)
  out = augment(images, keys, pad=pad, flip=flip)
  assert out.dtype == images.dtype
  for image, got in zip(np.asarray(images), np.asarray(out), strict=True):
    assert any(np.array_equal(got, c) for _, c in candidates(image, pad, flip))


def test_draws_are_uniform():
  images, keys = batch(4000, shape=(4, 4, 1))
  out = np.asarray(augment(images, keys, pad=1, flip=True))
  seen = {}
  for image, got in zip(np.asarray(images), out, strict=True):
    hits = [draw for draw, c in candidates(image, 1, True) if np.array_equal(got, c)]
    seen[hits[0]] = seen.get(hits[0], 0) + 1
  counts = np.array(list(seen.values()))
  assert len(counts) == 18
  assert ((counts - 4000 / 18) ** 2 / (4000 / 18)).sum() < 40.8  # chi-square, 17 dof, p = 0.001


def test_identity_when_off():
  images, keys = batch()
  assert augment(images, keys, pad=0, flip=False) is images


def test_independent_of_how_the_batch_is_cut():
  images, keys = batch()
  whole = jax.jit(augment)(images, keys)
  cut = jax.jit(augment)
  parts = [cut(images[i : i + 4], keys[i : i + 4]) for i in range(0, 16, 4)]
  np.testing.assert_array_equal(whole, jnp.concatenate(parts))
  members = jax.jit(jax.vmap(augment))(images.reshape(2, 8, 8, 8, 3), keys.reshape(2, 8))
  np.testing.assert_array_equal(whole, members.reshape(whole.shape))
  over_devices = jax.pmap(augment)(images.reshape(4, 4, 8, 8, 3), keys.reshape(4, 4))
  np.testing.assert_array_equal(whole, over_devices.reshape(whole.shape))


def test_raw_keys_and_typed_keys_agree():
  images, keys = batch()
  np.testing.assert_array_equal(augment(images, keys), augment(images, jax.random.key_data(keys)))


def test_failures_name_the_value():
  images, keys = batch()
  with pytest.raises(ValueError, match="pad=-1: must be at least 0"):
    augment(images, keys, pad=-1)
  with pytest.raises(ValueError, match="one key each"):
    augment(images, keys[:3])
  with pytest.raises(ValueError, match=r"must be \[B, H, W, C\]"):
    augment(images[0], keys)
