"""Linear maps by least squares with a ridge, for many strengths from one streamed Gram matrix."""

from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.rank import lapack
from rankbias.rank.float64 import double_precision
from rankbias.rank.gram import product
from rankbias.rank.streaming import FactorState, GramState, State, checked_state


class LinearMap(NamedTuple):
  """x -> (x - mean) kernel + bias.

  Example: a(x) is [n, k] for x [n, d], in the dtype of the kernel.
  """

  mean: Float[Array, "*#batch d"]
  kernel: Float[Array, "*batch d k"]
  bias: Float[Array, "*#batch k"]

  def __call__(self, x: Real[Array, "n d"]) -> Float[Array, "n k"]:
    """Maps the rows of x, in the dtype of the kernel."""
    centered = x.astype(self.kernel.dtype) - self.mean[None, :]
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(centered, self.kernel, precision=highest) + self.bias[None, :]


@partial(jax.jit, static_argnames="targets")
def ridge(state: State, strengths: Real[ArrayLike, "s"], *, targets: int) -> LinearMap:
  """Finds the linear maps of least squares under a ridge, one for each strength.

  Of the rows (x, y) that the state has seen, with means m and b, S = sum (x - m)(x - m)^T [d, d]
  and C = sum (x - m)(y - b)^T [d, k], the minimum of

    sum |y - b - (x - m) W|^2 + lambda |W|^2,    lambda = strength tr(S) / d,

  is W = V diag(1 / (e_i + lambda)) V^T C with S = V diag(e) V^T: one eigendecomposition for all
  strengths. Directions whose e is rounding (below d eps e_max) are left out, so S may have any
  rank; the smallest W is found, and 0 where S is 0. Strength 0 is the pseudo-inverse. The unit
  tr(S) / d, the mean eigenvalue, makes the answers independent of the scale of x.

  Args:
    state: of rows of d + k columns, the inputs and then the targets, by `spectrum_update`.
    targets: k.

  Returns: kernel [s, d, k], mean [d] and bias [k], in float32, or float64 in a 64-bit program.

  Raises:
    ValueError: targets leaves no input, or is below 1.

  Example: for features x and labels y, ridge(spectrum_update(spectrum_init(d + k),
    jnp.hstack([x, jax.nn.one_hot(y, k)])), [1e-3], targets=k).
  Source: Hoerl & Kennard 1970, Technometrics 12(1).
  """
  checked_state(state)
  d = state.mean.shape[-1] - targets
  if targets < 1 or d < 1:
    raise ValueError(
      f"targets = {targets} of the {d + targets} columns of the state: give the number of its last "
      "columns that are targets, at least one less than all"
    )
  dtype, strengths = jnp.result_type(float), jnp.asarray(strengths)
  with double_precision() if isinstance(state, GramState) else nullcontext():
    values, vectors, projected, used = _directions(state, d)
    strengths = strengths.astype(values.dtype)
    penalised = values[None, :] + (strengths * (jnp.sum(values) / d))[:, None]
    weights = jnp.where(used[None, :], 1 / jnp.where(used[None, :], penalised, 1), 0)  # [s, d]
    scaled = weights[:, :, None] * projected[None, :, :]
    flat = product(vectors, jnp.moveaxis(scaled, 0, 1).reshape(d, -1))
    kernel = jnp.moveaxis(flat.reshape(d, -1, targets), 1, 0)
    mean, bias = state.mean[:d], state.mean[d:]
    return LinearMap(mean.astype(dtype), kernel.astype(dtype), bias.astype(dtype))


@jax.jit
def squared_error(state: State, maps: LinearMap) -> Float[Array, "s"]:
  """Sums |y - map(x)|^2 over the rows that a state has seen, for the maps of `ridge`.

  From sums alone: with M = [-W; I], S the centred sums of the rows (x, y) and e the error at their
  mean, tr(M^T S M) + n |e|^2. So a strength can be chosen on rows that were not kept.

  Args:
    state: of rows as those that the maps were found from; best of others.

  Example: ridge(a, strengths, targets=k).kernel[jnp.argmin(squared_error(b, maps))].
  Source: Hastie, Tibshirani & Friedman 2009, section 7.10 (a held-out part).
  """
  checked_state(state)
  d = maps.mean.shape[-1]
  with double_precision() if isinstance(state, GramState) else nullcontext():
    dtype = state.mean.dtype
    mean, kernel, bias = (leaf.astype(dtype) for leaf in maps)

    def error(kernel):
      difference = jnp.concatenate([-kernel, jnp.eye(kernel.shape[1], dtype=dtype)])
      away = state.mean[d:] - bias - product((state.mean[:d] - mean)[None, :], kernel)[0]
      if isinstance(state, FactorState):
        around = jnp.sum(jnp.square(product(state.factor, difference)))
      else:
        around = jnp.sum(difference * product(state.scatter, difference))
      return around + state.count * jnp.sum(jnp.square(away))

    return jax.vmap(error)(kernel).astype(jnp.result_type(maps.kernel))


def _directions(state, d):
  """Returns e [d] and V [d, d] of S, V^T C [d, k], and which e are more than rounding."""
  noise = d * jnp.finfo(state.mean.dtype).eps
  if isinstance(state, FactorState):  # S = R^T R, whose singular values are not squared yet
    left, values, right = lapack.svd(state.factor[:d, :d])
    projected = values[:, None] * product(left.T, state.factor[:d, d:])
    return values**2, right.T, projected, values > noise * jnp.max(values)
  vectors, values = lapack.eigh(state.scatter[:d, :d])
  values = jnp.maximum(values, 0)
  projected = product(vectors.T, state.scatter[:d, d:])
  return values, vectors, projected, values > noise * jnp.max(values)
