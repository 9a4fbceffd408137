"""Terms of the training loss that look at parameters alone, by name, each with a weight."""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rankbias import ops


def orthogonality(params: Mapping[str, Any]) -> jax.Array:
  """The sum of `ops.orthogonality` over all kernels, those of convolutions as [h w in, out].

  A kernel of more than two axes otherwise, such as one a layer, is as one matrix too: all axes but
  the last are its rows.
  """
  leaves = jax.tree_util.tree_leaves_with_path(params)
  kernels = [leaf for path, leaf in leaves if getattr(path[-1], "key", None) == "kernel"]
  return sum(ops.orthogonality(kernel.reshape(-1, kernel.shape[-1])) for kernel in kernels)


def mean_cosine(params: Mapping[str, Any]) -> jax.Array:
  """`ops.mean_cosine` of the class vectors, the columns of the head's kernel."""
  return ops.mean_cosine(class_kernel(params["head"]).T)


def spectrum(params: Mapping[str, Any]) -> jax.Array:
  """`ops.spectrum_spread` of the head's kernel: far from zero where its spectrum decays."""
  return ops.spectrum_spread(class_kernel(params["head"]))


REGULARIZERS: dict[str, Callable[[Mapping[str, Any]], jax.Array]] = {
  "orthogonality": orthogonality,
  "mean_cosine": mean_cosine,
  "spectrum": spectrum,
}


def class_kernel(head: Mapping[str, Any]) -> jax.Array:
  """The kernel [d, V] of a head's last linear map, which every head calls "linear"."""
  return head["linear"]["kernel"]


def penalty(weights: Mapping[str, float], params: Mapping[str, Any]) -> jax.Array:
  """The sum of weight times term over the terms that a config names.

  Args:
    weights: {name of `REGULARIZERS`: weight}; params: {"model", "head"}.
  """
  terms = [weight * REGULARIZERS[name](params) for name, weight in weights.items() if weight]
  return sum(terms) if terms else jnp.zeros(())


def check_regularizers(weights: Any) -> None:
  """Raises ValueError for a term that is unknown, or a weight that is no finite number >= 0."""
  if not hasattr(weights, "items"):
    raise ValueError(
      f'regularizers={weights!r} must be empty or terms and weights, {{"orthogonality": 1e-3}}'
    )
  for name, weight in weights.items():
    if name not in REGULARIZERS:
      near = difflib.get_close_matches(str(name), REGULARIZERS, n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"regularizers.{name} is unknown.{hint} Known: {', '.join(sorted(REGULARIZERS))}."
      )
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not (number and math.isfinite(weight) and weight >= 0):
      raise ValueError(f"regularizers.{name}={weight!r} must be a finite number >= 0: its weight.")
