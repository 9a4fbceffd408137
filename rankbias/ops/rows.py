"""What every map does to its rows first: mask, precision, axes, and checks of what is known."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Axis = int | tuple[int, ...] | None


def masked_logits(logits, temperature, where):
  """Returns logits / temperature, in float32 or wider, with -inf at every entry without mass."""
  logits = jnp.asarray(logits)
  logits = logits.astype(jnp.promote_types(float_dtype(logits), jnp.float32))
  if where is not None:
    logits = jnp.where(jnp.broadcast_to(where, logits.shape), logits, -jnp.inf)
  if temperature is not None:
    scale = jnp.broadcast_to(jnp.asarray(temperature, logits.dtype), logits.shape)
    logits = _tempered(logits, scale)
  return logits


@jax.custom_jvp
def _tempered(logits, scale):
  return logits / scale


@_tempered.defjvp
def _tempered_jvp(primals, tangents):
  (logits, scale), (d_logits, d_scale) = primals, tangents
  tempered = _tempered(logits, scale)
  # A logit of -inf has no mass at any temperature; it must not meet a derivative as 0 * inf.
  massless = logits == -jnp.inf
  d_logits, slope = jnp.where(massless, 0, d_logits), jnp.where(massless, 0, tempered)
  return tempered, (d_logits - slope * d_scale) / scale


def row_maximum(logits, axis):
  """Returns the maximum of every row, finite for a row of -inf, as a constant of the derivative."""
  lowest = jnp.finfo(logits.dtype).min  # -inf minus this is -inf, and minus -inf would be NaN
  return jax.lax.stop_gradient(jnp.max(logits, axis, keepdims=True, initial=lowest))


def row_count(mass, axis, dtype):
  """Returns how many entries of every row hold, axis kept, and 1 for a row of none."""
  return jnp.maximum(jnp.sum(mass, axis, keepdims=True, dtype=dtype), 1)


def float_dtype(logits):
  """Returns the dtype of the result: that of logits, or the default float for integers."""
  dtype = jnp.result_type(logits)
  return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def axes_of(axis: Axis, ndim: int):
  """Returns axis, or all axes for None."""
  return tuple(range(ndim)) if axis is None else axis


def per_row(name: str, value, logits, axis: Axis):
  """Returns value with as many axes as logits; raises unless it is one number a row."""
  value, ndim = jnp.asarray(value), np.ndim(logits)
  shape = (1,) * (ndim - value.ndim) + value.shape
  axes = axes_of(axis, ndim)
  if any(shape[a] != 1 for a in ((axes,) if isinstance(axes, int) else axes) if ndim):
    raise ValueError(
      f"{name} of shape {value.shape} varies along axis = {axis}: it is one number a row. "
      f"Give it size 1 there, for example {name}[:, None] for the rows of a matrix."
    )
  return value.reshape(shape)


def on_last_axis(core: Callable, axis: Axis, logits, *parameters):
  """Applies core(logits [..., n], *parameters [..., 1 or n]) to rows that lie along `axis`.

  For maps that sort or index their rows. Parameters broadcast against logits; those that are the
  same along `axis` reach the core with size 1 there. The result has the shape of logits.
  """
  ndim = logits.ndim
  axes = axes_of(axis, ndim)
  axes = sorted(a % ndim for a in ((axes,) if isinstance(axes, int) else axes))
  order = [a for a in range(ndim) if a not in axes] + axes
  shape = tuple(logits.shape[a] for a in order)
  rest = shape[: ndim - len(axes)]

  def rows(x):
    x = jnp.asarray(x)
    x = x.reshape((1,) * (ndim - x.ndim) + x.shape)
    constant = all(x.shape[a] == 1 for a in axes)
    target = tuple(1 if constant and a in axes else logits.shape[a] for a in range(ndim))
    return jnp.broadcast_to(x, target).transpose(order).reshape(*rest, -1)

  if logits.size == 0:
    return logits
  out = core(rows(logits), *(rows(p) for p in parameters))
  return out.reshape(shape).transpose(np.argsort(order))


def checked(name: str, value, holds: Callable, remedy: str):
  """Returns value; raises where it is known before tracing and `holds(value)` fails somewhere."""
  if not isinstance(value, jax.core.Tracer) and not np.all(holds(np.asarray(value))):
    raise ValueError(f"{name} = {value} {remedy}")
  return value
