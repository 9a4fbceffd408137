"""Cross-entropy between labels and the softmax of logits, in nats."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.labels import label_entries
from rankbias.ops.rows import float_dtype, row_count
from rankbias.ops.softmax import checked_temperature, log_normalize, tempered_rows


def cross_entropy(
  logits: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  label_smoothing: Real[ArrayLike, ""] = 0.0,
  axis: int = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "..."]:
  """Computes the cross-entropy of labels under softmax(logits / T), one number per row.

  loss = -sum_i q_i log softmax(z / T)_i,  q = (1 - s) y + s / n,  n = number of unmasked classes.

  No factor of T or T^2 is applied. A label on a masked class costs +inf; a row whose classes are
  all masked costs 0. An integer outside 0..classes-1 gives NaN, since traced values cannot raise.

  Args:
    labels: integers of the shape of logits without `axis`, or distributions of its full shape.
    label_smoothing: s in [0, 1): the part of the label spread over the unmasked classes.
    axis: the axis of the classes.
    temperature, where: as in `softmax`.

  Raises:
    ValueError: labels have neither shape, or temperature or label_smoothing is out of range.

  Example: cross_entropy([[0., 0.]], [1]) is [.6931].
  Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (label smoothing).
  """
  logits, labels = jnp.asarray(logits), jnp.asarray(labels)
  if not isinstance(label_smoothing, jax.core.Tracer) and not 0 <= label_smoothing < 1:
    raise ValueError(f"label_smoothing = {label_smoothing} must lie in [0, 1); 0 switches it off.")
  check_label_shapes(logits, labels, axis)
  temperature = checked_temperature(temperature)
  return _cross_entropy(logits, labels, temperature, label_smoothing, where, axis=axis)


@partial(jax.jit, static_argnames="axis")
def _cross_entropy(logits, labels, temperature, label_smoothing, where, *, axis):
  masked, shifted = tempered_rows(logits, temperature, where, axis)
  mass = masked != -jnp.inf
  target = label_distribution(labels, masked, axis)
  count = row_count(mass, axis, masked.dtype)
  target = (1 - label_smoothing) * target + label_smoothing * mass / count
  used = (mass | (target != 0)) & jnp.any(mass, axis, keepdims=True)
  # Both factors are made safe: -inf * 0 would be NaN in the value, and 0 * -inf in the gradient.
  logs = jnp.where(used, log_normalize(masked, axis, shifted), 0)
  return jnp.sum(jnp.where(used, -target * logs, 0), axis).astype(float_dtype(logits))


def label_distribution(labels, logits, axis):
  """Returns labels as distributions over `axis`; NaN where an integer names no class."""
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    return labels.astype(logits.dtype)
  hit, known = label_entries(labels, logits.shape, axis)
  return jnp.where(known, hit.astype(logits.dtype), jnp.nan)


def check_label_shapes(logits, labels, axis):
  """Raises unless labels are class indices, or distributions of the shape of logits."""
  rows = list(logits.shape)
  del rows[axis]
  integer = jnp.issubdtype(labels.dtype, jnp.integer)
  expected = tuple(rows) if integer else logits.shape
  if labels.shape != expected:
    kind = "integer labels" if integer else "distributions"
    raise ValueError(
      f"labels of shape {labels.shape} and dtype {labels.dtype} do not fit logits of shape "
      f"{logits.shape} with classes on axis {axis}: {kind} need shape {expected}. "
      "Pass class indices as integers, one-hot or soft labels as floats."
    )
