"""The spectrum of a matrix seen a few rows at a time, in memory that does not grow with them.

The state is the count, the mean and either the centred Gram matrix in float64 or, where float64 is
slow or absent, the R factor of the centred rows. Merging is that of Chan, Golub & LeVeque: with
delta the difference of the means, S_ab = S_a + S_b + delta delta^T n_a n_b / (n_a + n_b).
"""

from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.rank import lapack
from rankbias.rank.float64 import double_precision
from rankbias.rank.gram import eigenvalues, gram
from rankbias.rank.spectrum import Method, checked_method, gram_to_values, working_dtype


class GramState(NamedTuple):
  """Count, mean and (X - mean)^T (X - mean), all float64."""

  count: Float[Array, "*batch"]
  mean: Float[Array, "*batch d"]
  scatter: Float[Array, "*batch d d"]


class FactorState(NamedTuple):
  """Count, mean and the R factor of X - mean, in float32 or wider."""

  count: Float[Array, "*batch"]
  mean: Float[Array, "*batch d"]
  factor: Float[Array, "*batch d d"]


State = GramState | FactorState


def spectrum_init(d: int, *, method: Method | None = None, dtype=jnp.float32) -> State:
  """Starts the spectrum of a matrix with d columns and no rows yet.

  Args:
    method: None takes what `default_method` says of the dtype of the rows to come. "gram" sums in
      float64; "qr" keeps a triangular factor in the dtype of the rows ("svd" cannot be streamed).

  Raises:
    ValueError: the method is unknown, cannot be streamed, or needs a float64 that is not delivered.

  Example: spectrum_finish(spectrum_update(spectrum_init(2), x)) is singular_values(x).
  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  dtype = working_dtype(dtype)
  method = checked_method(method, dtype)
  if method == "svd":
    raise ValueError("method = 'svd' cannot be streamed: use 'gram', 'qr' or None.")
  if method == "qr":
    return FactorState(jnp.zeros((), dtype), jnp.zeros(d, dtype), jnp.zeros((d, d), dtype))
  with double_precision():
    zeros = partial(jnp.zeros, dtype=jnp.float64)
    return GramState(zeros(()), zeros(d), zeros((d, d)))


def spectrum_update(
  state: State, x: Real[ArrayLike, "n d"], *, where: Bool[ArrayLike, "n"] | None = None
) -> State:
  """Adds rows to the state.

  Args:
    where: True for the rows that count; others may hold anything, such as the padding of a batch.

  Example: jax.lax.scan(lambda s, x: (spectrum_update(s, x), None), spectrum_init(d), batches).
  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  kind = type(checked_state(state))
  return spectrum_merge(state, _summary(jnp.asarray(x), where, kind=kind, dtype=state.mean.dtype))


@jax.jit
def spectrum_merge(a: State, b: State) -> State:
  """Combines the states of two sets of rows; associative and commutative up to rounding.

  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  checked_state(a), checked_state(b)
  if type(a) is not type(b):
    raise ValueError(
      f"states of type {type(a).__name__} and {type(b).__name__} do not merge: "
      "give spectrum_init the same method."
    )
  with double_precision() if isinstance(a, GramState) else nullcontext():
    count = a.count + b.count
    part = b.count / jnp.maximum(count, 1)
    delta = b.mean - a.mean
    mean = a.mean + delta * part
    if isinstance(a, GramState):
      rise = delta[:, None] * delta[None, :] * (a.count * part)
      return GramState(count, mean, a.scatter + b.scatter + rise)
    rise = delta[None, :] * jnp.sqrt(a.count * part)
    return FactorState(count, mean, _triangle(jnp.concatenate([a.factor, b.factor, rise])))


@partial(jax.jit, static_argnames="axis_name")
def spectrum_all_reduce(state: State, axis_name: str) -> State:
  """Merges the states of all devices along a named axis: the same result on each of them.

  A Gram state takes three sums, a factor state one gather of the triangles.

  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  checked_state(state)
  with double_precision() if isinstance(state, GramState) else nullcontext():
    count = jax.lax.psum(state.count, axis_name)
    mean = jax.lax.psum(state.mean * (state.count / jnp.maximum(count, 1)), axis_name)
    delta = state.mean - mean
    if isinstance(state, GramState):
      rise = delta[:, None] * delta[None, :] * state.count
      return GramState(count, mean, jax.lax.psum(state.scatter + rise, axis_name))
    own = jnp.concatenate([state.factor, delta[None, :] * jnp.sqrt(state.count)])
    rows = jax.lax.all_gather(own, axis_name, axis=0, tiled=True)
    return FactorState(count, mean, _triangle(rows))


@partial(jax.jit, static_argnames=("center", "dtype"))
def spectrum_finish(
  state: State, *, center: bool = False, dtype: DTypeLike | None = None
) -> Float[Array, "d"]:
  """Returns the d singular values of all rows seen, largest first; zeros where rows were fewer.

  Args:
    center: the spectrum of X minus its mean row instead of X. One state gives either.
    dtype: as in `singular_values`; None is float32, or float64 in a 64-bit program.

  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  checked_state(state)
  if isinstance(state, FactorState):
    row = jnp.zeros((0, state.mean.shape[0]), state.mean.dtype)
    row = row if center else state.mean[None, :] * jnp.sqrt(state.count)
    values = lapack.svdvals(_triangle(jnp.concatenate([state.factor, row])))
    return values if dtype is None else values.astype(dtype)
  with double_precision():
    scatter = state.scatter
    if not center:
      scatter = scatter + state.mean[:, None] * state.mean[None, :] * state.count
    values = eigenvalues(scatter)
  return gram_to_values(values, jnp.result_type(float) if dtype is None else dtype)


@partial(jax.jit, static_argnames=("kind", "dtype"))
def _summary(x, where, *, kind, dtype):
  """Returns the state of the rows of x alone."""
  x = x.astype(working_dtype(x.dtype))
  n = x.shape[0]
  with double_precision() if kind is GramState else nullcontext():
    keep = jnp.ones((n, 1), bool) if where is None else jnp.asarray(where)[:, None]
    x = x if where is None else jnp.where(keep, x, 0)
    count = jnp.sum(keep, dtype=dtype)
    mean = jnp.sum(x, axis=0, dtype=dtype) / jnp.maximum(count, 1)
    if kind is GramState:

      def shift(block, start):
        rows = jax.lax.dynamic_slice_in_dim(keep, start, block.shape[0])
        return (block - mean[None, :]) * rows

      return GramState(count, mean, gram(x, shift))
    return FactorState(count, mean, _triangle(jnp.where(keep, x - mean[None, :], 0)))


def _triangle(rows):
  """Returns the R factor of rows [m, d], always d x d."""
  m, d = rows.shape
  return lapack.triangle(jnp.pad(rows, ((0, max(0, d - m)), (0, 0))))


def checked_state(state):
  """Returns the state; raises where its float64 was narrowed on the way here."""
  if isinstance(state, GramState) and state.scatter.dtype != jnp.float64:
    raise ValueError(
      f"the state is {state.scatter.dtype} and must be float64: jax narrows NumPy arrays of "
      "float64 outside a 64-bit context. Keep the state a jax array, restore it under "
      "jax.enable_x64(True), or stream with spectrum_init(d, method='qr')."
    )
  return state
