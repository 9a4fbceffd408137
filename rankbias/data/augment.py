"""Random crops and flips of a batch of images, inside a jitted step."""

import jax
import jax.numpy as jnp


def augment(images: jax.Array, keys: jax.Array, *, pad: int = 4, flip: bool = True) -> jax.Array:
  """Shifts each image by up to `pad` pixels and mirrors half of them left to right.

  out[b, i, j] = images[b, i + u_b, j' + v_b]  with u, v uniform on -pad..pad, zero outside, and
  j' = j or W - 1 - j with equal probability. The draws of an image depend on its key alone, so
  the result does not depend on how a batch is cut into devices or steps. With `pad=0` and
  `flip=False` the images are returned as they are.

  Args:
    images: [B, H, W, C], of any dtype, which is kept. Zero is black before normalisation and the
      mean colour after it.
    keys: one random key per image, [B] (or [B, 2] for raw ones).

  Raises:
    ValueError: `pad` is negative or the shapes do not fit together.

  Example: augment(x, jax.vmap(partial(jax.random.fold_in, key))(index), pad=4).
  """
  if pad < 0:
    raise ValueError(f"pad={pad}: must be at least 0")
  if images.ndim != 4 or keys.shape[:1] != images.shape[:1]:
    raise ValueError(
      f"images of shape {images.shape} with keys of shape {keys.shape}: "
      "images must be [B, H, W, C] with one key each"
    )
  if not pad and not flip:
    return images
  return jax.vmap(lambda image, key: _crop_flip(image, key, pad, flip))(images, keys)


def _crop_flip(image: jax.Array, key: jax.Array, pad: int, flip: bool) -> jax.Array:
  shift_key, flip_key = jax.random.split(key)
  if pad:
    row, column = jax.random.randint(shift_key, (2,), 0, 2 * pad + 1)
    framed = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    image = jax.lax.dynamic_slice(framed, (row, column, 0), image.shape)
  if flip:
    image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
  return image
