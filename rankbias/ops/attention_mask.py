"""Where attention is allowed: masks, causal order, lengths and windows as one boolean array."""

from functools import reduce

import jax.numpy as jnp


def attention_mask(shape, mask=None, is_causal=False, lengths=(None, None), window=None):
  """Returns where attention is allowed, with the axes of `shape`, or None for everywhere."""
  *lead, _, length, keys = shape
  ones = (1,) * (len(shape) - 2)
  rows, columns = jnp.arange(length).reshape(*ones, -1, 1), jnp.arange(keys).reshape(*ones, 1, -1)
  parts = [] if mask is None else [boolean("mask", mask, shape)]
  if is_causal:
    parts.append(columns <= rows)
  if window is not None:
    left, right = _window(window)
    parts.append((columns >= rows - left) & (columns <= rows + right))
  names = ("query_seq_lengths", "key_value_seq_lengths")
  for name, position, limit in zip(names, (rows, columns), lengths, strict=True):
    if limit is not None:
      parts.append(position < _lengths(name, limit, lead))
  return reduce(jnp.logical_and, parts) if parts else None


def _lengths(name, x, lead):
  if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
    raise ValueError(f"{name} has dtype {jnp.result_type(x)} and must hold integers.")
  return fitted(name, x, lead)[..., None, None, None]


def _window(window):
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
