"""The last linear map of an output layer: its shapes, its precision, its bias."""

import jax.numpy as jnp

from rankbias.ops.rows import float_dtype


def wide(*arrays):
  """Returns the arrays in the dtype of the computation: their common one, at least float32."""
  dtype = jnp.promote_types(jnp.result_type(*(float_dtype(a) for a in arrays)), jnp.float32)
  return tuple(jnp.asarray(a).astype(dtype) for a in arrays)


def affine(x, kernel, bias):
  """Returns x W + b for x [..., d], W [d, V] and b [V] or None."""
  y = jnp.matmul(x, kernel)
  return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def checked_affine(name, x, kernel, bias):
  """Returns x, kernel and bias in one wide dtype; raises unless they fit.

  Args:
    name: what x [..., d] is called in the message.
  """
  shapes = jnp.shape(x), jnp.shape(kernel)
  if len(shapes[1]) != 2 or shapes[0][-1:] != shapes[1][:1]:
    raise ValueError(
      f"kernel of shape {shapes[1]} does not fit {name} of shape {shapes[0]}: pass [d, V], one row "
      "for each of the d features."
    )
  if bias is None:
    return *wide(x, kernel), None
  if jnp.shape(bias) != shapes[1][1:]:
    raise ValueError(
      f"bias of shape {jnp.shape(bias)} does not fit kernel of shape {shapes[1]}: pass [V], one "
      "number a class, or None."
    )
  return wide(x, kernel, bias)
