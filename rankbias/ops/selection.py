"""Order statistics of rows, found bit by bit instead of by a sort."""

import jax
import jax.numpy as jnp

from rankbias.ops.rows import Axis


def kth_smallest(values, index, axis: Axis):
  """Returns the entry of every row with `index` entries before it in ascending order, axis kept.

  Exact for every float (NaN counts as largest, subnormals as zero); a constant of the derivative.
  Each pass over the rows counts how many entries lie below a candidate and settles one bit of the
  result.

  Args:
    index: integers from 0, one number a row (size 1 along axis), may be traced.
  """
  bits = jnp.finfo(values.dtype).bits
  keys = _ordered(jax.lax.stop_gradient(values), bits)
  one = keys.dtype.type(1)

  def settle(step, found):
    candidate = found | (one << (bits - 1 - step).astype(keys.dtype))
    below = jnp.sum(keys < candidate, axis, keepdims=True, dtype=jnp.int32)
    return jnp.where(below <= index, candidate, found)

  start = jnp.zeros_like(jnp.min(keys, axis, keepdims=True))
  return _values(jax.lax.fori_loop(0, bits, settle, start), bits, values.dtype)


def _ordered(values, bits):
  """Maps floats to unsigned integers of the same order; both zeros to one."""
  keys = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0, values), f"uint{bits}")
  sign = keys.dtype.type(1 << (bits - 1))
  return jnp.where(keys >= sign, ~keys, keys | sign)


def _values(keys, bits, dtype):
  sign = keys.dtype.type(1 << (bits - 1))
  return jax.lax.bitcast_convert_type(jnp.where(keys >= sign, keys ^ sign, ~keys), dtype)
