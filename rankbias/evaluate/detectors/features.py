"""Detectors on features: clipped before the head, and compared with those of training examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rankbias.evaluate.detectors.contract import wide

BLOCK = 1024  # queries and training examples that are compared at once


def fit_react(features, logits, head: Callable, *, percentile: float = 90.0) -> dict[str, Any]:
  """Finds the value that `percentile` percent of all entries of the features lie below.

  Returns: {"threshold", "head"}, the head as a pytree.

  Raises:
    ValueError: percentile is not between 0 and 100.

  Source: Sun, Guo & Li 2021, arXiv:2111.12797.
  """
  del logits
  if not 0 <= percentile <= 100:
    raise ValueError(f"percentile={percentile} must be between 0 and 100, such as 90.")
  return {
    "threshold": jnp.percentile(wide(features), percentile),
    "head": jax.tree_util.Partial(head),
  }


def score_react(parameters: dict[str, Any], features, logits) -> Float[Array, "n"]:
  """Scores by the energy of what the head makes of features clipped at the threshold.

  Source: Sun, Guo & Li 2021, arXiv:2111.12797.
  """
  del logits
  clipped = jnp.minimum(wide(features), parameters["threshold"])
  return jax.nn.logsumexp(wide(parameters["head"](clipped)), axis=-1)


def fit_knn(features, logits, head=None) -> dict[str, Any]:
  """Keeps the features, each divided by its length; returns {"features" [n, d]}."""
  del logits, head
  return {"features": _unit(wide(features))}


def score_knn(
  parameters: dict[str, Any], features, logits, *, neighbours: int = 50
) -> Float[Array, "n"]:
  """Scores by minus the distance to the k-th nearest of the training features, all of length 1.

  Blocks of examples meet blocks of training examples, and the k nearest so far are kept, so memory
  does not grow with the product of their numbers. |a - b|^2 = |a|^2 + |b|^2 - 2 a b loses digits:
  in float32 distances below 1e-3 are rounding, as all are within a class after neural collapse.
  Give features in float64 then. Features of zeros stay zeros.

  Args:
    neighbours: k, at most the number of training examples.

  Raises:
    ValueError: neighbours is below 1.

  Source: Sun et al. 2022, arXiv:2204.06507.
  """
  del logits
  if neighbours < 1:
    raise ValueError(f"neighbours={neighbours} must be at least 1, such as 50.")
  queries, known = _unit(wide(features)), parameters["features"]
  k = min(neighbours, len(known))
  blocks, own = _blocks(known, jnp.arange(len(known)))
  lengths = jnp.sum(blocks**2, -1)

  def nearest(query):
    def meet(best, block):
      x, length, place = block
      near = 2 * jnp.matmul(query, x.T, precision=jax.lax.Precision.HIGHEST) - length[None, :]
      near = jnp.where((place >= 0)[None, :], near, -jnp.inf)
      return jax.lax.top_k(jnp.concatenate([best, near], 1), k)[0], None

    start = jnp.full((len(query), k), -jnp.inf, query.dtype)
    best, _ = jax.lax.scan(meet, start, (blocks, lengths, own))
    return jnp.sqrt(jnp.maximum(jnp.sum(query**2, -1) - best[:, -1], 0))

  parts, _ = _blocks(queries, jnp.arange(len(queries)))
  return -jax.lax.map(nearest, parts).reshape(-1)[: len(queries)]


def _blocks(x, places):
  """Splits rows into equal blocks; rows that fill up the last are zeros, of place -1."""
  size = max(min(BLOCK, len(x)), 1)
  missing = -len(x) % size
  x = jnp.pad(x, ((0, missing), (0, 0)))
  places = jnp.pad(places, (0, missing), constant_values=-1)
  return x.reshape(-1, size, x.shape[1]), places.reshape(-1, size)


def _unit(x):
  length = jnp.sqrt(jnp.sum(x**2, -1, keepdims=True))
  return x / jnp.where(length > 0, length, 1)
