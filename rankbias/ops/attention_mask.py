"""Where attention is allowed: masks, causal order, lengths and windows as one boolean array."""

from functools import reduce

import jax.numpy as jnp


def attention_mask(shape, mask=None, is_causal=False, lengths=(None, None), window=None):
  """Returns where attention is allowed, with the axes of `shape`, or None for everywhere."""
  *_, length, keys = shape
  rows, columns = jnp.arange(length)[:, None], jnp.arange(keys)[None]
  parts, (left, right) = mask_parts(shape, mask, lengths), window_pair(window)
  band = [columns <= rows] if is_causal else []
  if window is not None:
    band.append((columns >= rows - left) & (columns <= rows + right))
  parts += [part.reshape((1,) * (len(shape) - 2) + part.shape) for part in band]
  return reduce(jnp.logical_and, parts) if parts else None


def mask_parts(shape, mask=None, lengths=(None, None)):
  """Returns boolean arrays with the axes of `shape`, of size 1 or equal, that must all hold."""
  *lead, _, length, keys = shape
  parts = [] if mask is None else [boolean("mask", mask, shape)]
  names, sizes = ("query_seq_lengths", "key_value_seq_lengths"), ((length, 1), (1, keys))
  for name, size, limit in zip(names, sizes, lengths, strict=True):
    if limit is not None:
      position = jnp.arange(max(size)).reshape((1,) * (len(shape) - 2) + size)
      parts.append(position < _lengths(name, limit, lead))
  return parts


def _lengths(name, x, lead):
  if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
    raise ValueError(f"{name} has dtype {jnp.result_type(x)} and must hold integers.")
  return fitted(name, x, lead)[..., None, None, None]


def window_pair(window):
  """Returns (left, right) of a window, (None, None) for None."""
  if window is None:
    return None, None
  pair = (window, window) if isinstance(window, int) else tuple(window)
  if len(pair) != 2:
    raise ValueError(
      f"local_window_size = {window} must be one integer or two, (left, right) of the query."
    )
  return pair


def fitted(name, x, shape):
  """Returns x with as many axes as `shape`, of size 1 or equal; raises where it does not fit."""
  x = jnp.asarray(x)
  extra = max(x.ndim - len(shape), 0)
  rest = (1,) * (len(shape) - x.ndim) + x.shape[extra:]
  if x.shape[:extra] != (1,) * extra or any(
    a not in (1, b) for a, b in zip(rest, shape, strict=True)
  ):
    raise ValueError(f"{name} of shape {x.shape} does not broadcast to {shape}.")
  return x.reshape(rest)


def boolean(name, x, shape):
  """Returns x fitted to `shape`; raises where it is not boolean."""
  if jnp.result_type(x) != jnp.bool_:
    raise ValueError(
      f"{name} has dtype {jnp.result_type(x)} and must be boolean; an additive mask goes into bias."
    )
  return fitted(name, x, shape)
