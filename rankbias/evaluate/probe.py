"""What does each layer know? Linear probes in and out of distribution, and depth read from them."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from rankbias.evaluate.depth import effective_depth, ood_drop
from rankbias.evaluate.labels import Seen, check_labels, first_labels
from rankbias.evaluate.linear_probes import (
  Split,
  View,
  fit_layers_adam,
  fit_ridges,
  make_views,
  shares,
)
from rankbias.evaluate.predictor import OOD, Predictor
from rankbias.evaluate.spectra import layer_names

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
THRESHOLDS = (0.95, 0.99)
METHODS = ("ridge", "adam")


def probe(predictor: Predictor, source: Any, *, others=None, **options: Any) -> dict[str, Any]:
  """Accuracy of a linear classifier on the frozen features of every layer: {"probe": {...}}.

  Args:
    options: as of `probe_members`, of which this is the case of one network.

  Source: Alain & Bengio 2016, arXiv:1610.01644.
  """
  return probe_members([predictor], source, **options)[0]


def probe_members(
  predictors: Sequence[Predictor],
  source: Any,
  *,
  method: Literal["ridge", "adam"] = "ridge",
  layers: Sequence[str] | None = None,
  images: int = 10000,
  max_features: int = 2048,
  strengths: Sequence[float] = STRENGTHS,
  epochs: int = 30,
  batch_size: int = 512,
  learning_rate: float = 1e-3,
) -> list[dict[str, Any]]:
  """Probes all layers, the logits too, of all networks: linear classifiers on frozen features.

  In distribution they are fitted on "train" and tested on "test"; out of distribution, where the
  source has these splits, on "ood_train" and "ood_test" with their own classes. Inputs are the
  flattened activations of the first `images` images of a split, a fixed random subset of
  `max_features` of wide layers, without augmentation.

  Networks go through each compiled call side by side. Memory grows with their number: by d^2
  numbers for a layer of width d with a ridge, and by n d, its features, with Adam.

  Args:
    predictors: that differ in numbers alone, as the members of a program do: their functions are
      the same objects.
    method: "ridge" regresses one-hot labels in closed form, its strength chosen on a held-out fifth
      of the training rows (`linear_probes.fit_ridges`); "adam" is softmax regression with the
      protocol of public re-implementations, but for its standardisation (`fit_adam`).
    layers: names of layers, "logits" among them; None for all.
    strengths: of the ridge, in units of the mean variance direction, tr(S) / d.
    epochs, batch_size, learning_rate: of Adam.

  Returns:
    for each network {"probe": {...}} with "method", "layers" in forward order, "id" and "ood" (None
    without the splits) {layer: {"train", "test": accuracy, "strength": of a ridge}}; of the hidden
    layers "effective_depth" {"0.95", "0.99"} in distribution, "ood_drop" and "best_layer", the one
    with the best test accuracy out of distribution (None without).

  Raises:
    ValueError: a method or layer is unknown (the known ones are listed), no hidden layer is chosen,
      a split lacks a class, or an example has more than one label; the functions differ.

  Source: Alain & Bengio 2016, arXiv:1610.01644; depth as in `rankbias.evaluate.depth`.
  """
  check_probe({"method": method, "strengths": strengths})
  train = source.splits["train"]["x"]
  names = chosen_layers(layer_names(predictors[0], train[:1]), layers)
  view = make_views(predictors, names, max_features)
  adam = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  own = {"strengths": sorted(strengths)} if method == "ridge" else adam
  for seen in labels_of_probe(source, images=images):
    check_labels("probe", *seen)
  found = {"id": [None] * len(predictors), "ood": [None] * len(predictors)}
  for task, (*splits, classes) in tasks(source).items():
    pair = [{key: source.splits[name][key][:images] for key in ("x", "y")} for name in splits]
    found[task] = accuracies(view, *pair, classes=classes, **own)
  shared = {"method": method, "layers": names}
  each = [dict(zip(found, own, strict=True)) for own in zip(*found.values(), strict=True)]
  return [{"probe": {**shared, **entry, **summary(entry, names)}} for entry in each]


def accuracies(view: View, train: Split, test: Split, *, classes: int, **options: Any) -> list:
  """Fits probes, by a ridge where `strengths` are given, else by Adam.

  Returns: of each network, {layer: {"train", "test": accuracy, "strength": of a ridge}}.
  """
  if "strengths" in options:
    probes, best = fit_ridges(view, train, classes=classes, **options)
    grid = options["strengths"]
    chosen = {layer: [{"strength": grid[i]} for i in own] for layer, own in best.items()}
  else:
    probes = fit_layers_adam(view, train, classes=classes, **options)
    best = {layer: np.zeros(len(p.mean), int) for layer, p in probes.items()}
    chosen = {layer: [{} for _ in own] for layer, own in best.items()}
  for kind, split in (("train", train), ("test", test)):
    right = shares(view, probes, split)
    for layer, own in best.items():
      for m, i in enumerate(own):
        chosen[layer][m][kind] = float(right[layer][m, i])
  members = range(len(next(iter(best.values()))))
  return [{layer: chosen[layer][m] for layer in view.form[1]} for m in members]


def tasks(source: Any) -> dict[str, tuple[str, str, int]]:
  """What is probed: {"id" and, where the data have it, "ood": (fitted on, tested on, classes)}."""
  known = {"id": ("train", "test", source.num_classes)}
  return known | ({"ood": (*OOD, source.ood_classes)} if OOD[0] in source.splits else {})


def labels_of_probe(source: Any, *, images: int = 10000, **_: Any) -> Iterator[Seen]:
  """What `probe` sees of the splits, and the classes that it needs there."""
  for *splits, classes in tasks(source).values():
    for name in splits:
      yield name, first_labels(source, name, images), classes


def summary(found: dict[str, dict | None], names: Sequence[str]) -> dict[str, Any]:
  """Depth and drop from the test accuracies of the hidden layers."""
  hidden = [layer for layer in names if layer != "logits"]
  own = [found["id"][layer]["test"] for layer in hidden]
  depths = {f"{t:g}": effective_depth(own, threshold=t) for t in THRESHOLDS}
  if found["ood"] is None:
    return {"effective_depth": depths, "ood_drop": None, "best_layer": None}
  other = [found["ood"][layer]["test"] for layer in hidden]
  best = hidden[int(np.argmax(other))]
  return {"effective_depth": depths, "ood_drop": ood_drop(other), "best_layer": best}


def check_probe(options: dict[str, Any]) -> None:
  """Raises for options that can be seen to be wrong before there is a network."""
  method, strengths = options.get("method", METHODS[0]), options.get("strengths", STRENGTHS)
  if method not in METHODS:
    raise ValueError(f"evaluate.probe.method={method!r} is unknown; use {' or '.join(METHODS)}")
  if not len(strengths) or min(strengths) <= 0:
    raise ValueError(f"evaluate.probe.strengths={list(strengths)}: give numbers above 0")
  if not options.get("learning_rate", 1.0) > 0:
    raise ValueError(f"evaluate.probe.learning_rate={options['learning_rate']} must be above 0")


def chosen_layers(known: Sequence[str], layers: Sequence[str] | None) -> list[str]:
  """The layers asked for, in forward order."""
  layers = known if layers is None else [layers] if isinstance(layers, str) else layers
  for layer in layers:
    if layer not in known:
      raise ValueError(f"layer {layer!r} does not exist; the network has {', '.join(known)}")
  if not set(layers) - {"logits"}:
    raise ValueError(f"layers={list(layers)}: depth is read from hidden layers, name at least one")
  return [layer for layer in known if layer in layers]
