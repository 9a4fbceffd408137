"""Detectors that ask how much of a feature lies in the subspace that familiar data fill."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from rankbias.evaluate.detectors.contract import wide
from rankbias.evaluate.linear_head import affine
from rankbias.rank import lapack
from rankbias.rank.float64 import delivers_float64, double_precision
from rankbias.rank.gram import gram

ROUNDING = 1e-6  # of sigma_1: below it singular values of float32 features are rounding
Norm = Literal["projected", "features"]


def fit_vim(features, logits, head: Callable, *, dimension: int | None = None) -> dict[str, Any]:
  """Finds the directions that training features leave empty, and what a step along them is worth.

  With an affine head W^T h + b, the origin is u = -pinv(W^T) b, R the projection off the top D
  eigenvectors of sum (h - u)(h - u)^T, and alpha = mean max z / mean |R (h - u)|.

  Args:
    dimension: D, at most the numerical rank of the features less 1: else R would keep rounding
      alone, and alpha be infinite. None takes d / 2, which is 256 of 512, lowered to that; so is
      any D under a transformation such as jit, where the rank is not known yet.

  Returns: {"origin" [d], "residual" [d, d], "alpha", "dimension": what was taken}.

  Raises:
    ValueError: the dimension is negative, or above the rank less 1.

  Source: Wang et al. 2022, arXiv:2203.10807.
  """
  x, z = wide(features), wide(logits)
  width = x.shape[1]
  kernel, bias = affine(head, width, x.dtype)
  origin = -_product(_pseudo_inverse(kernel.T), bias[:, None])[:, 0]
  values, axes = principal_axes(x - origin[None, :])
  most = jnp.maximum(rank_of(values) - 1, 0)
  if dimension is not None:
    _check_dimension(dimension, 0, most, "one less than the numerical rank of the features")
  principal = jnp.minimum(most, width // 2 if dimension is None else dimension)
  residual = jnp.where((jnp.arange(width) < principal)[None, :], 0, axes)
  spread = jnp.mean(_length(_product(x - origin[None, :], residual)))
  alpha = jnp.where(spread > 0, jnp.mean(jnp.max(z, 1)) / jnp.where(spread > 0, spread, 1), 0)
  return {"origin": origin, "residual": residual, "alpha": alpha, "dimension": principal}


def score_vim(parameters: dict[str, Any], features, logits) -> Float[Array, "n"]:
  """Scores by log-sum-exp of the logits minus that of a virtual one: energy - alpha |R (h - u)|.

  Source: Wang et al. 2022, arXiv:2203.10807.
  """
  x = wide(features) - parameters["origin"][None, :]
  empty = _length(_product(x, parameters["residual"]))
  return jax.nn.logsumexp(wide(logits), axis=-1) - parameters["alpha"] * empty


def fit_neco(features, logits, head=None, *, standardize: bool = False) -> dict[str, Any]:
  """Finds the principal axes of the features about their mean.

  Args:
    standardize: divides every feature by its standard deviation first, about its mean, as the
      authors' code does; their formula has neither. A constant feature keeps its unit.

  Returns: {"mean" [d], "scale" [d], "axes" [d, d], "rank"}; mean is 0 without `standardize`, since
    the formula projects what is not centred.

  Source: Ben Ammar et al. 2023, arXiv:2310.06823.
  """
  del logits, head
  x = wide(features)
  mean, scale = jnp.zeros_like(x[0]), jnp.ones_like(x[0])
  if standardize:
    mean, scale = jnp.mean(x, 0), jnp.std(x, 0)
    scale = jnp.where(scale > ROUNDING * jnp.abs(mean), scale, 1)
    x = (x - mean[None, :]) / scale[None, :]
  values, axes = principal_axes(x - jnp.mean(x, 0, keepdims=True))
  return {"mean": mean, "scale": scale, "axes": axes, "rank": rank_of(values)}


def score_neco(
  parameters: dict[str, Any],
  features,
  logits,
  *,
  dimension: int | None = None,
  times_max_logit: bool = False,
  norm: Norm = "projected",
) -> Float[Array, "n"]:
  """Scores by the part of a feature's length that lies along the first principal axes: |P h| / |h|.

  Args:
    dimension: of P, at most the numerical rank of the features that were fitted: axes beyond it are
      arbitrary. None takes one less than there are classes, as a simplex of class means has,
      lowered to the rank (`dimension_of`); so is any under a transformation such as jit, where
      the rank is not known yet.
    times_max_logit: multiplies by the largest logit, as the authors' code does but for ResNets.
    norm: the length to divide by, of what is projected, or of the features as they are, as the
      authors' code does for DeiT and Swin. The two differ where features were standardised.

  A feature of zeros scores 0.

  Raises:
    ValueError: dimension is not between 1 and the number of features, or above their rank; norm is
      unknown.

  Source: Ben Ammar et al. 2023, arXiv:2310.06823, equation 6.
  """
  x, z = wide(features), wide(logits)
  if norm not in ("projected", "features"):
    raise ValueError(f"norm={norm!r} is unknown: use 'projected' or 'features'.")
  if dimension is None:
    dimension = simplex_dimension(z.shape[-1], x.shape[1])
  elif not 1 <= dimension <= x.shape[1]:
    raise ValueError(f"dimension={dimension} must be between 1 and {x.shape[1]}, the features.")
  else:
    _check_dimension(dimension, 1, parameters["rank"], "the numerical rank of the features")
  part = neco_ratios(parameters, x)[:, dimension - 1]
  if norm == "features":
    own = (x - parameters["mean"][None, :]) / parameters["scale"][None, :]
    length = _length(x)
    part = part * _length(own) / jnp.where(length > 0, length, 1)
  return part * jnp.max(z, -1) if times_max_logit else part


def neco_ratios(parameters: dict[str, Any], features) -> Float[Array, "n d"]:
  """Computes |P h| / |h| for every dimension of P from 1 to d; constant beyond the rank.

  A feature that leaves the subspace by no more than rounding, 1e-6 of its length (or 8 eps of the
  square, in float32), has exactly 1: rounding would rank features that fill no other directions.

  Example: neco_ratios(fit_neco(h, z), h)[:, k - 1] is score_neco(..., dimension=k).
  Source: Ben Ammar et al. 2023, arXiv:2310.06823, equation 6.
  """
  x = (wide(features) - parameters["mean"][None, :]) / parameters["scale"][None, :]
  used = jnp.arange(x.shape[1]) < parameters["rank"]
  along = jnp.where(used[None, :], _product(x, parameters["axes"]), 0)
  length = _length(x)[:, None]
  unit = along / jnp.where(length > 0, length, 1)
  squares = jnp.cumsum(unit**2, -1)
  rounding = max(ROUNDING**2, 8 * float(jnp.finfo(x.dtype).eps))
  return jnp.sqrt(jnp.where(squares > 1 - rounding, 1, squares))


def simplex_dimension(classes: int, width: int) -> int:
  """The dimension of a simplex of class means, where features have room for it: C - 1."""
  return max(min(classes - 1, width), 1)


def dimension_of(parameters: dict[str, Any], classes: int) -> Int[Array, ""] | None:
  """The dimension of the subspace that a fitted detector takes by default; None where it has none.

  Example: dimension_of(fit_neco(h, z), 10) is 9, or the rank of h if that is less.
  """
  if "rank" not in parameters:
    return parameters.get("dimension")
  return jnp.minimum(parameters["rank"], simplex_dimension(classes, len(parameters["axes"])))


def _check_dimension(dimension, least, most, words):
  """Raises where a dimension is known to be out of range: `most` may be traced, and unknown."""
  if isinstance(most, jax.core.Tracer) or least <= dimension <= most:
    return
  allowed = f"{least} to {int(most)}, or None" if most >= least else "None"
  raise ValueError(
    f"dimension={dimension}: {words} is {int(most)}, and directions beyond are rounding; give "
    f"{allowed} for the default, lowered to it."
  )


def principal_axes(x: Float[ArrayLike, "n d"]) -> tuple[Float[Array, "d"], Float[Array, "d d"]]:
  """Returns the singular values of x, the largest first, and its right singular vectors in columns.

  From the Gram matrix in float64 where there is one, as `rank.singular_values` does.
  """
  x = wide(x)
  if delivers_float64():
    with double_precision():
      vectors, squares = lapack.eigh(gram(x))
      values = jnp.sqrt(jnp.maximum(squares[::-1], 0))
      return values.astype(x.dtype), vectors[:, ::-1].astype(x.dtype)
  padded = jnp.pad(x, ((0, max(x.shape[1] - x.shape[0], 0)), (0, 0)))
  _, values, right = lapack.svd(padded)
  return values, right.T


def rank_of(values: Float[Array, "d"]) -> Int[Array, ""]:
  """Counts the singular values that are more than the rounding of float32 features."""
  return jnp.sum(values > ROUNDING * values[0])


def _pseudo_inverse(matrix):
  left, values, right = lapack.svd(matrix)
  noise = max(matrix.shape) * jnp.finfo(matrix.dtype).eps * values[0]
  inverse = jnp.where(values > noise, 1 / jnp.where(values > noise, values, 1), 0)
  return _product(right.T * inverse[None, :], left.T)


def _length(x):
  return jnp.sqrt(jnp.sum(x**2, -1))


def _product(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
