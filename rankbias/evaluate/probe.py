"""What does each layer know? Linear probes in and out of distribution, and depth read from them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rankbias.evaluate.depth import effective_depth, ood_drop
from rankbias.evaluate.linear_probes import (
  Split,
  View,
  fit_layers_adam,
  fit_ridge,
  make_view,
  shares,
)
from rankbias.evaluate.predictor import OOD, Predictor
from rankbias.evaluate.spectra import layer_names

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
THRESHOLDS = (0.95, 0.99)
METHODS = ("ridge", "adam")


def probe(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  method: Literal["ridge", "adam"] = "ridge",
  layers: Sequence[str] | None = None,
  images: int = 10000,
  max_features: int = 2048,
  strengths: Sequence[float] = STRENGTHS,
  epochs: int = 30,
  batch_size: int = 512,
  learning_rate: float = 1e-3,
) -> dict[str, Any]:
  """Accuracy of a linear classifier on the frozen features of every layer, the logits too.

  In distribution it is fitted on "train" and tested on "test"; out of distribution, where the
  source has these splits, on "ood_train" and "ood_test" with their own classes. Inputs are the
  flattened activations of the first `images` images of a split, a fixed random subset of
  `max_features` of wide layers, without augmentation.

  Args:
    method: "ridge" regresses one-hot labels in closed form, its strength chosen on a held-out fifth
      of the training rows (`linear_probes.fit_ridge`); "adam" is softmax regression with the
      protocol of public re-implementations (`linear_probes.fit_adam`).
    layers: names of layers, "logits" among them; None for all.
    strengths: of the ridge, in units of the mean variance direction, tr(S) / d.
    epochs, batch_size, learning_rate: of Adam.

  Returns:
    {"probe": {...}} with "method", "layers" in forward order, "id" and "ood" (None without the
    splits) {layer: {"train", "test": accuracy, "strength": of a ridge}}; of the hidden layers
    "effective_depth" {"0.95", "0.99"} in distribution, "ood_drop" and "best_layer", the one with
    the best test accuracy out of distribution (None without).

  Raises:
    ValueError: a method or layer is unknown (the known ones are listed), no hidden layer is chosen,
      a split lacks a class, or an example has more than one label.

  Source: Alain & Bengio 2016, arXiv:1610.01644; depth as in `rankbias.evaluate.depth`.
  """
  check_probe({"method": method, "strengths": strengths})
  names = chosen_layers(layer_names(predictor, source.splits["train"]["x"][:1]), layers)
  view = make_view(predictor, names, max_features)
  adam = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  own = {"strengths": sorted(strengths)} if method == "ridge" else adam
  found = {"id": None, "ood": None}
  for task, (train, test, classes) in tasks(source).items():
    pair = [first(source.splits[name], name, images, classes) for name in (train, test)]
    found[task] = accuracies(view, *pair, classes=classes, **own)
  return {"probe": {"method": method, "layers": names, **found, **summary(found, names)}}


def accuracies(view: View, train: Split, test: Split, *, classes: int, **options: Any) -> dict:
  """Fits probes, by a ridge where `strengths` are given, else by Adam; {layer: {"train", ...}}."""
  if "strengths" in options:
    probes, best = fit_ridge(view, train, classes=classes, **options)
    strengths = options["strengths"]
    entries = {layer: {"strength": strengths[i]} for layer, i in best.items()}
  else:
    probes = fit_layers_adam(view, train, classes=classes, **options)
    best, entries = dict.fromkeys(probes, 0), {layer: {} for layer in probes}
  for kind, split in (("train", train), ("test", test)):
    right = shares(view, probes, split)
    for layer, i in best.items():
      entries[layer][kind] = float(right[layer][i])
  return {layer: entries[layer] for layer in view.form[1]}


def tasks(source: Any) -> dict[str, tuple[str, str, int]]:
  """What is probed: {"id" and, where the data have it, "ood": (fitted on, tested on, classes)}."""
  known = {"id": ("train", "test", source.num_classes)}
  return known | ({"ood": (*OOD, source.ood_classes)} if OOD[0] in source.splits else {})


def check_examples(source: Any, images: int = 10000, **_: Any) -> None:
  """Raises unless every class of every split that `probe` would see has an example there."""
  for *splits, classes in tasks(source).values():
    for name in splits:
      first(source.splits[name], name, images, classes)


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


def first(split: dict, name: str, images: int, classes: int) -> dict[str, np.ndarray]:
  """The first images of a split; raises where they are no examples of each class."""
  x, y = split["x"][:images], split["y"][:images]
  if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
    raise ValueError(
      f"evaluate.probe: labels of {name!r} have shape {y.shape}; a probe needs one class an example"
    )
  missing = sorted(set(range(classes)) - set(y.tolist()))
  if missing:
    raise ValueError(
      f"evaluate.probe: {name!r} has no image of {len(missing)} of {classes} classes "
      f"({', '.join(map(str, missing[:5]))}) among its first {len(y)}; raise evaluate.probe.images "
      "or data.limit, or choose other classes"
    )
  return {"x": x, "y": y}
