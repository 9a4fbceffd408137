"""How small can the network be made? Low-rank layers and cut ones, without further training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import rank
from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.cut import check_tolerance, cut_at, cut_probes, superfluous_after
from rankbias.evaluate.factors import (
  factor_kernel,
  parameters,
  replace_kernels,
  saves,
  with_factors,
)
from rankbias.evaluate.linear_maps import HEAD, LinearMap, linear_maps
from rankbias.evaluate.predictor import Predictor, joined

RTOLS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
METHODS = ("activations", "weights")
PASS = 512  # images in the pass that collects the inputs of the layers
Method = Literal["activations", "weights"]


def compress(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  rtols: Sequence[float] = RTOLS,
  fractions: Sequence[float] = (),
  methods: Sequence[Method] = METHODS,
  images: int = PASS,
  max_rows: int = 4096,
  cuts: bool = False,
  tolerance: float | None = None,
  split: str = "test",
) -> dict[str, Any]:
  """Accuracy against parameters as every layer's kernel is truncated, and as layers are cut off.

  At a tolerance, a layer keeps as many dimensions as its incoming activations have on the first
  `images` training images (`incoming_ranks`); at a fraction, that part of min(d, m). Where two
  factors would not be smaller the kernel stays, and so does the head's. Nothing is trained
  afterwards.

  Args:
    rtols: of the covariance rank of incoming activations.
    methods: what a truncation keeps best, "activations" (outputs on real inputs) or "weights".
    max_rows: rows of a layer's inputs: patches of convolutions, positions of sequences.
    cuts: True also replaces, at each layer in turn, everything after it by its ridge probe, and
      says after which one the others are superfluous.
    tolerance: of the accuracy of a probe, by which that is decided (`cut.superfluous_after`).
    split: the accuracy is that on this split.

  Returns:
    {"compression": {...}} with "parameters", "accuracy" and "loss" of the whole network, "curve"
    [{"method", "rtol" or "fraction", "parameters", "saved" (a share), "accuracy", "loss", "ranks":
    {layer: rank of those factored}}], "cuts" {layer: {"parameters", "saved", "accuracy"}} and
    "superfluous_after" {"layer", "tolerance", "rows", "held_out", and of the network cut there
    "parameters", "saved", "accuracy"}, None without cuts.

  Raises:
    ValueError: a method is unknown, or a tolerance or fraction is outside (0, 1), or [0, 1).
  """
  own = {"rtols": rtols, "fractions": fractions, "methods": methods, "tolerance": tolerance}
  check_compress(own)
  whole = _row(predictor, source, split)
  maps = inputs_of_layers(predictor, source, images, max_rows)
  levels = [("rtol", r, incoming_ranks(maps, r)) for r in rtols]
  levels += [("fraction", f, fraction_ranks(maps, f)) for f in fractions]
  curve = []
  for kind, level, ranks in levels:
    for method in methods:  # the same shapes: compiled once
      small, kept = shrink(predictor, maps, ranks, method)
      row = {"method": method, kind: level, **_row(small, source, split), "ranks": kept}
      curve.append(row | {"saved": 1 - row["parameters"] / whole["parameters"]})
  found, chosen = {}, None
  if cuts:
    found = cut_rows(predictor, source, split, whole["parameters"])
    chosen = superfluous_after(predictor, source, tolerance)
    chosen |= found[chosen["layer"]]
  return {"compression": {**whole, "curve": curve, "cuts": found, "superfluous_after": chosen}}


def shrink(
  predictor: Predictor, maps: Mapping[str, LinearMap], ranks: Mapping[str, int], method: Method
) -> tuple[Predictor, dict[str, int]]:
  """The predictor with factors where they are smaller, and {layer: rank} of those layers.

  Args:
    maps: of `inputs_of_layers`.
    ranks: {layer: rank}; layers that are not named keep their kernels.

  Raises:
    ValueError: a layer is unknown (the known ones are listed) or a rank is larger than its kernel.
  """
  for layer in ranks:
    if layer not in maps:
      raise ValueError(f"layer {layer!r} cannot be factored; those that can: {', '.join(maps)}")
  factors, kernels = {}, {}
  for layer, r in ranks.items():
    kernels[layer] = _leaf(predictor.params["params"], layer)
    inputs = maps[layer].inputs if method == "activations" else None
    if saves(kernels[layer].shape, r):
      factors[layer] = factor_kernel(kernels[layer], r, inputs=inputs)
    elif r > min(maps[layer].kernel.shape):
      factor_kernel(kernels[layer], r)  # says what is wrong
  params = {**predictor.params, "params": replace_kernels(predictor.params["params"], factors)}
  small = predictor._replace(apply=with_factors(predictor.apply), params=params)
  return small, {layer: ranks[layer] for layer in factors}


def inputs_of_layers(
  predictor: Predictor, source: Any, images: int, max_rows: int
) -> dict[str, LinearMap]:
  """The kernels and incoming rows of the layers that can be factored, in the order of their use."""
  x = source.splits["train"]["x"][:images]
  names = []
  jax.eval_shape(lambda: names.extend(linear_maps(predictor, x, max_rows=max_rows)[0]))
  maps = jax.device_get(_maps(predictor.functions(), predictor.numbers(), x, max_rows))
  return {name: maps[name] for name in names if not name.startswith(HEAD)}


def incoming_ranks(maps: Mapping[str, LinearMap], rtol: float) -> dict[str, int]:
  """The covariance rank of every layer's inputs, and one more for their mean, at most min(d, m).

  #{i : lambda_i > rtol lambda_1} of the covariance; a truncation that drops the mean of the inputs
  would move every output, and layers may have no bias to take it up.
  """
  found = {}
  for layer, (kernel, inputs) in maps.items():
    values = rank.singular_values(inputs, center=True)
    found[layer] = min(int(rank.covariance_rank(values, rtol=rtol)) + 1, *kernel.shape)
  return found


def fraction_ranks(maps: Mapping[str, LinearMap], fraction: float) -> dict[str, int]:
  """A fraction of every layer's full rank, at least 1."""
  return {layer: max(1, round(fraction * min(kernel.shape))) for layer, (kernel, _) in maps.items()}


def cut_rows(predictor, source, split, whole) -> dict[str, dict[str, float]]:
  """Parameters and accuracy of the network cut at each layer."""
  found = {}
  for layer, probe in cut_probes(predictor, source).items():
    small = cut_at(predictor, source, layer, probe)
    row = _row(small, source, split)
    del row["loss"]  # a ridge gives scores, no probabilities
    found[layer] = row | {"saved": 1 - row["parameters"] / whole}
  return found


def check_compress(options: Mapping[str, Any]) -> None:
  """Raises for options that can be seen to be wrong before there is a network."""
  for method in options.get("methods", METHODS):
    if method not in METHODS:
      raise ValueError(
        f"evaluate.compress.methods: {method!r} is unknown; use {' or '.join(METHODS)}"
      )
  for name in ("rtols", "fractions"):
    for value in options.get(name, ()):
      if not 0 < value < 1:
        raise ValueError(f"evaluate.compress.{name}: {value} must lie between 0 and 1")
  check_tolerance(options.get("tolerance"), "evaluate.compress.tolerance")


def _row(predictor, source, split):
  found = split_accuracy(predictor, source.splits[split])
  return {"parameters": parameters(predictor.params["params"], predictor.head_params), **found}


def _leaf(params, layer):
  for name in layer.split("/"):
    params = params[name]
  return np.asarray(params["kernel"])


@partial(jax.jit, static_argnums=(0, 3))
def _maps(functions, numbers, x, max_rows):
  maps, _ = linear_maps(joined(functions, numbers), jnp.asarray(x), max_rows=max_rows)
  return maps
