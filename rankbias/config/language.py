"""Configs of language models: the output layers compared, and how networks are measured."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rankbias.config import base

PLIF = {"name": "plif", "bound": 20.0, "scale": 0.0, "frozen": False}
MIXTURE = {"components": 3}
SMOKE = ("linear", "plif", "mixture_of_softmaxes")  # the layers of a smoke test


def output_layers(
  *, knots: int = 100_000, slope: float = 2.5, frequent: float = 0.1, chunked: bool = True
) -> dict[str, dict[str, Any]]:
  """Thirteen output layers with a bias, by what a config calls them.

  Args:
    knots: of the maps that start with random slopes (scale 1; 1e5 in public code).
    slope: of generalised sigsoftmax below its knee.
    frequent: the share of the classes with gates of their own in Mixtape.
    chunked: without the matrix of all logits where a layer can do so.
  """
  noise = {"knots": knots, "scale": 1.0}
  streamed = {
    "linear": {"name": "linear"},
    "sigsoftmax": {"name": "sigsoftmax"},
    "generalized_sigsoftmax": {"name": "generalized_sigsoftmax", "knee": -1.5, "slope": slope},
    "tanh_cap": {"name": "tanh_cap", "cap": 30.0},
    "plif": {**PLIF, "knots": 1000},
    "noise": {**PLIF, **noise},
    "frozen_noise": {**PLIF, **noise, "frozen": True},
    "mixture_of_contexts": {"name": "mixture_of_contexts", **MIXTURE},
    "drill": {"name": "drill", "depth": 4},
    "mixture_of_softmaxes": {"name": "mixture_of_softmaxes", **MIXTURE},
    "partitioned": {"name": "partitioned", "partitions": 4},
    "multi_facet": {"name": "multi_facet", "partitions": 4, "softmaxes": 2},
  }
  whole = {"mixtape": {"name": "mixtape", "frequent": frequent}}
  if chunked:
    streamed = {name: {**layer, "chunked": True} for name, layer in streamed.items()}
  return {name: {**layer, "use_bias": True} for name, layer in {**streamed, **whole}.items()}


def language_model(name: str, arg: str, *, every: int, patience: int) -> ConfigDict:
  """The base of a language model: Adam, a cosine, selection on "valid", perplexity and rank.

  Args:
    every, patience: steps between measurements of "valid", and how many without a lower perplexity
      end a run.
  """
  c = base(name, arg)
  c.optimizer.update(name="adam", weight_decay=0.0, schedule="cosine")
  c.members_per_program = 1
  c.select = {"split": "valid", "every": every, "patience": patience}
  c.measure.count = 0
  c.evaluate = {
    "perplexity": {"splits": ("valid", "test"), "lanes": 16},
    "log_probability_rank": {"split": "test", "contexts": 4096, "lanes": 1},
    "last_layer": {"split": "test"},
  }
  return c


def shrink(c: ConfigDict) -> None:
  """Makes the run of a language model one of a few steps; the model's sizes are the caller's."""
  c.data.window = 5
  c.steps, c.batch_size = 4, 8
  c.optimizer.warmup_steps = 2
  c.select.every = 2
  c.evaluate.log_probability_rank.contexts = 64


def compare(
  config: ConfigDict, layers: Mapping[str, dict], field: str, sizes: Mapping[str, int]
) -> list[dict[str, Any]]:
  """The sweep: all layers with three seeds; those of a smoke test with one.

  Args:
    field: what makes all networks as large; sizes: its value for every layer.
  """
  if config.name.endswith("smoke"):
    return [{"head": layers[name], "seed": 0} for name in SMOKE if name in layers]
  return [
    {"head": layer, field: sizes[name], "seed": seed}
    for name, layer in layers.items()
    for seed in (0, 1, 2)
  ]
