"""float64 inside a float32 program: the context to trace under, and whether it delivers."""

from typing import Any

import jax
import jax.numpy as jnp


def double_precision() -> Any:
  """Returns a context in which traced operations keep float64.

  Every operation on float64, the addition to a loop's carry included, belongs inside; derivatives
  do not pass through, so what is computed in it has a derivative written by hand.
  """
  if hasattr(jax, "enable_x64"):
    return jax.enable_x64(True)
  from jax.experimental import enable_x64

  return enable_x64(True)


def delivers_float64() -> bool:
  """Tells whether the default device computes in float64; a TPU has no float64 eigensolver."""
  with double_precision():
    return jax.default_backend() != "tpu" and jnp.zeros((), "float64").dtype == jnp.float64
