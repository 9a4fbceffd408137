"""An inverse temperature fitted to a head: where its rows have their targets, as a curve over H."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.attention_mask import fitted
from rankbias.ops.monotone import best_monotone, bins_of
from rankbias.ops.rows import float_dtype, row_maximum
from rankbias.ops.softmax import row_entropy

GRID = tuple(np.geomspace(1, 64, 49).tolist())  # steps of 9 %; below 1 it would raise the entropy
BLOCK = 2**21  # logits that are evaluated at once


@partial(jax.tree_util.register_dataclass, data_fields=("entropies", "values"), meta_fields=())
@dataclass(frozen=True, eq=False)
class FittedInverseTemperature:
  """An inverse temperature that is piecewise linear in the entropy, and constant beyond its range.

  beta(H) runs through the points (entropies_k, values_k); beyond the first and the last entropy it
  stays what it is there, since nothing was seen further out.

  A pytree of its two arrays: it passes through jit, vmap and grad. Curves with equally many points,
  stacked to [N, points], are one for each of the N heads of attention, whose rows are [..., N, T,
  1]. Called as every inverse temperature is, with (entropy, count); count is ignored.
  """

  # Both Float[Array, "*heads knots"], or whatever JAX puts in the place of an array.
  entropies: Any
  values: Any

  def __call__(
    self, entropy: Real[ArrayLike, "*shape"], count: Real[ArrayLike, "*#shape"] | None = None
  ) -> Float[Array, "*shape"]:
    """Returns beta(H), in the dtype of the entropy; raises where stacked curves find no heads."""
    del count
    entropy, curves = jnp.asarray(entropy), jnp.shape(self.entropies)[:-1]
    wide = entropy.astype(jnp.promote_types(float_dtype(entropy), jnp.float32))
    interpolate = jnp.interp
    if curves:
      if entropy.shape[-3:-2] != curves:
        raise ValueError(
          f"entropy of shape {entropy.shape} must be [..., {curves[-1]}, T, 1] for {curves} "
          "stacked curves, one for each head: take jax.vmap over curves of anything else."
        )
      interpolate = jax.vmap(jnp.interp, (-3, 0, 0), -3)
    return interpolate(wide, self.entropies, self.values).astype(float_dtype(entropy))

  @property
  def range(self) -> tuple[Float[Array, "*heads"], Float[Array, "*heads"]]:
    """The entropies, lowest and highest, between which the curve was fitted."""
    return self.entropies[..., 0], self.entropies[..., -1]

  def as_dict(self) -> dict[str, list]:
    """Returns the curve as lists of numbers, for a file of JSON; `from_dict` reads them."""
    return {"entropies": self.entropies.tolist(), "values": self.values.tolist()}

  @classmethod
  def from_dict(cls, numbers: dict[str, Any]) -> "FittedInverseTemperature":
    """Returns the curve that `as_dict` wrote down; raises ValueError where it cannot be one."""
    if set(numbers) != {"entropies", "values"}:
      raise ValueError(f"numbers has {sorted(numbers)} and must have 'entropies' and 'values'.")
    entropies, values = (np.asarray(numbers[k], np.float32) for k in ("entropies", "values"))
    if entropies.shape != values.shape or not values.size or not np.isfinite(values).all():
      raise ValueError(
        f"values = {numbers['values']} must be a finite number for each of the entropies."
      )
    if not (np.diff(entropies) > 0).all():
      raise ValueError(f"entropies = {numbers['entropies']} must increase: write them in order.")
    return cls(jnp.asarray(entropies), jnp.asarray(values))


def fit_inverse_temperature(
  logits: Real[ArrayLike, "..."] | Sequence[Real[ArrayLike, "..."]],
  is_target: Bool[ArrayLike, "..."] | Sequence[Bool[ArrayLike, "..."]],
  where: Bool[ArrayLike, "..."] | Sequence[Bool[ArrayLike, "..."] | None] | None = None,
  *,
  grid: Sequence[float] | Float[np.ndarray, "steps"] = GRID,
  bins: int | Sequence[float] | Float[np.ndarray, "edges"] = 16,
) -> FittedInverseTemperature:
  """Fits to a head the inverse temperature that puts the most weight on the targets of its rows.

  Over all non-decreasing sequences beta_1 <= ... <= beta_B of numbers of the grid, one for every
  bin of the entropy H = H(softmax(z)), it maximises

    sum_rows sum_{i in targets} softmax(beta_bin(H) z)_i

  exactly, by dynamic programming. Of equals, whose means agree to 1e-6, it takes the least sharp.

  The sum is linear in the weights. Where the largest logit is the likeliest target of all, whatever
  the other logits are, the best weights are the hard maximum: beta then goes to the end of the
  grid, which is a choice and no measurement. It stays below where the second is likelier.

  Args:
    logits: [..., n] what enters the softmax, or a list of such arrays of several n.
    is_target: of the same shape; the items that make the answer right, one or many in a row. Rows
      without a target say nothing, and are left out.
    where: as in `softmax`, broadcast against logits; -inf is a mask too.
    grid: increasing and > 0. Numbers below 1 allow rows to become less sharp.
    bins: how many, with equally many rows in each; or their edges, increasing, in nats. Rows
      outside of them are left out.

  Raises:
    ValueError: shapes that do not fit, logits that are NaN or inf, no row with a target, a grid
      that is empty or not increasing and positive, fewer than 8 rows in a bin.

  Example: fit_inverse_temperature([z16, z1024], [t16, t1024]) is a curve for
    adaptive_temperature_softmax(z, inverse_temperature=curve).
  Source: Velickovic et al. 2024, arXiv:2410.01104, section 5, for a fit over the entropy; this
    criterion and its monotone optimum are derived here.
  """
  grid = _checked_grid(grid)
  several = isinstance(logits, list | tuple)
  if not several:
    logits, is_target, where = [logits], [is_target], [where]
  where = [None] * len(logits) if where is None else where
  if not len(logits) == len(is_target) == len(where):
    raise ValueError(
      f"logits holds {len(logits)} arrays, is_target {len(is_target)} and where {len(where)}: "
      "give one of each for every array of logits."
    )
  parts = [part for triple in zip(logits, is_target, where, strict=True) for part in _parts(triple)]
  if not parts:
    raise ValueError("is_target holds in no row: mark the items that make the answer right.")
  found = [jax.device_get(_weight_on_targets(*part, jnp.asarray(grid))) for part in parts]
  entropies, weights = (np.concatenate(x) for x in zip(*found, strict=True))
  return fit_to_scores(entropies, weights, grid=grid, bins=bins)


def fit_to_scores(
  entropies: Real[ArrayLike, "rows"],
  scores: Real[ArrayLike, "rows steps"],
  *,
  grid: Sequence[float] | Float[np.ndarray, "steps"] = GRID,
  bins: int | Sequence[float] | Float[np.ndarray, "edges"] = 16,
) -> FittedInverseTemperature:
  """Fits the inverse temperature whose scores have the largest sum, whatever they measure.

  `fit_inverse_temperature` with the weight of the targets replaced by scores of one's own, such as
  the probability that the whole network gives to the true class.

  Args:
    entropies: H of every row at beta = 1.
    scores: of every row at every inverse temperature of the grid; the higher, the better.
    grid, bins: as in `fit_inverse_temperature`.

  Raises:
    ValueError: numbers that are not finite or do not fit the grid; grid and bins as there.

  Example: fit_to_scores(H, [[0., 1.]] * 8, grid=[1., 2.], bins=1) is 2 everywhere.
  Source: derived here.
  """
  grid = _checked_grid(grid)
  entropies, scores = np.asarray(entropies, np.float64), np.asarray(scores, np.float64)
  if scores.shape != (len(entropies), len(grid)):
    raise ValueError(
      f"scores of shape {scores.shape} must be {(len(entropies), len(grid))}: "
      "a row for every entropy and a column for every number of the grid."
    )
  if not (np.isfinite(entropies).all() and np.isfinite(scores).all()):
    raise ValueError("entropies and scores must be finite: leave out the rows that are not.")
  rows = bins_of(entropies, bins)
  knots = np.array([entropies[r].mean() for r in rows], np.float32)
  # Whole millionths of the mean: below that is rounding, and ties go to the smaller beta.
  chosen = best_monotone(np.array([len(r) * np.rint(scores[r].mean(0) * 1e6) for r in rows]))
  return FittedInverseTemperature(jnp.asarray(knots), jnp.asarray(grid[chosen], jnp.float32))


def _checked_grid(grid):
  grid = np.asarray(grid, np.float64)
  good = grid.ndim == 1 and grid.size and np.isfinite(grid).all()
  if not good or grid[0] <= 0 or (np.diff(grid) <= 0).any():
    raise ValueError(
      f"grid = {grid} must be a list of finite inverse temperatures > 0 that increase, "
      "for example numpy.geomspace(1, 64, 49)."
    )
  return grid


def _parts(triple):
  """Yields (logits [rows, n], -inf where masked, targets) in blocks, all with a target."""
  logits, target = (np.asarray(x) for x in triple[:2])
  if target.dtype != bool or target.shape != logits.shape or not logits.ndim:
    raise ValueError(
      f"is_target is {target.dtype} of shape {target.shape} and must be bool of the shape of "
      f"logits, {logits.shape}, with the items of a row along the last axis."
    )
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  if triple[2] is not None:
    logits = np.where(fitted("where", triple[2], logits.shape), logits, -np.inf)
  if not (logits < np.inf).all():
    raise ValueError(
      "logits are NaN or inf where they are not masked: only -inf stands for a mask."
    )
  rows = np.flatnonzero((target & (logits > -np.inf)).any(-1))
  logits, target = (x.reshape(-1, logits.shape[-1]) for x in (logits, target))
  step = max(BLOCK // max(logits.shape[-1], 1), 1)
  for start in range(0, len(rows), step):
    block = rows[start : start + step]
    yield logits[block], target[block]


@jax.jit
def _weight_on_targets(logits, target, grid):
  """Returns H [rows] and sum_{i in targets} softmax(beta z)_i [rows, grid]."""
  tops = [row_maximum(jnp.where(t, logits, -jnp.inf), -1) for t in (target, ~target)]
  shifted = logits - jnp.where(target, *tops)

  def weight(beta):
    mass = jnp.exp(beta * shifted)
    on, off = (jnp.sum(jnp.where(t, mass, 0), -1) for t in (target, ~target))
    # Each sum has a term of 1, or is 0: no weight is lost to underflow.
    return jax.nn.sigmoid(beta * (tops[0] - tops[1])[:, 0] + jnp.log(on) - jnp.log(off))

  return row_entropy(logits, -1)[:, 0], jax.lax.map(weight, grid.astype(logits.dtype)).T
