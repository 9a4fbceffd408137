"""Integer labels: their check against the logits, and the entries that they name."""

import jax
import jax.numpy as jnp


def check_integer_labels(labels, shape, axis):
  """Raises unless labels are integers of `shape` without `axis`."""
  rows = list(shape)
  del rows[axis]
  if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != tuple(rows):
    raise ValueError(
      f"labels of shape {labels.shape} and dtype {labels.dtype} do not fit classes on axis {axis} "
      f"of shape {tuple(shape)}: pass integers of shape {tuple(rows)}, the index of the class."
    )


def label_entries(labels, shape, axis):
  """Returns where the labelled entries are, and where the label names a class (axis kept)."""
  index = jnp.expand_dims(labels.astype(jnp.int32), axis)
  hit = index == jax.lax.broadcasted_iota(jnp.int32, shape, axis % len(shape))
  return hit, (index >= 0) & (index < shape[axis])
