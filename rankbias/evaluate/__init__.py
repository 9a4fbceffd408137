"""Evaluations: one question about a trained network a file, seen only through a `Predictor`.

An evaluation is `f(predictor, source, *, others={}, **options) -> {name: number, array or dict}`,
written for one member. What is in `TOGETHER` too is found for all members of a program that see the
same data at once: `f(predictors, source, **options)`, a list with one such dict for each. What
compares the members is in `COMPARISONS`: `f(predictors, source, **options)`, with None for one that
diverged, once a program.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rankbias.evaluate.accuracy import accuracy
from rankbias.evaluate.bottleneck import bottleneck
from rankbias.evaluate.calibration import calibration, ece, labels_of_calibration, reliability
from rankbias.evaluate.cka import cka
from rankbias.evaluate.collapse import collapse, labels_of_collapse
from rankbias.evaluate.compress import check_compress, compress
from rankbias.evaluate.depth import effective_depth, ood_drop
from rankbias.evaluate.detection import aupr, auroc, detection, false_positive_rate
from rankbias.evaluate.detectors import DETECTORS, Detector, score_odin
from rankbias.evaluate.exact_match import exact_match
from rankbias.evaluate.factors import factor_kernel
from rankbias.evaluate.held_out import held_out
from rankbias.evaluate.labels import check_labels, labels_of_cuts
from rankbias.evaluate.last_layer import last_layer
from rankbias.evaluate.linear_head import linear_head
from rankbias.evaluate.linear_maps import kernel_names, linear_maps
from rankbias.evaluate.log_probability_rank import log_probability_rank
from rankbias.evaluate.mechanism import Mechanism, check_alignment, measure_mechanism
from rankbias.evaluate.ood import check_detectors, labels_of_ood, ood
from rankbias.evaluate.outputs import outputs
from rankbias.evaluate.perplexity import perplexity
from rankbias.evaluate.predictor import OOD, Predictor
from rankbias.evaluate.probe import check_probe, labels_of_probe, probe, probe_members
from rankbias.evaluate.remedies import as_specs
from rankbias.evaluate.retrieval import check_fit, fit_head, retrieval
from rankbias.evaluate.sharpness import row_sharpness, sharpness, sharpness_against_count
from rankbias.evaluate.softmax_regression import fit_adam
from rankbias.evaluate.spectra import measure_layers, spectra
from rankbias.evaluate.temperature_scaling import fit_temperature
from rankbias.evaluate.uncertainty import uncertainty

EVALUATIONS = {
  "accuracy": accuracy,
  "spectra": spectra,
  "uncertainty": uncertainty,
  "retrieval": retrieval,
  "exact_match": exact_match,
  "bottleneck": bottleneck,
  "perplexity": perplexity,
  "log_probability_rank": log_probability_rank,
  "last_layer": last_layer,
  "calibration": calibration,
  "probe": probe,
  "collapse": collapse,
  "compress": compress,
  "ood": ood,
}
TOGETHER = {"probe": probe_members}  # of all members at once, with all options by name
COMPARISONS = {"cka": cka}  # of all members of a program: f(predictors, source, **options)
KNOWN = EVALUATIONS | TOGETHER | COMPARISONS

LEAST = {"samples": 2, "context": 2, "batch": 4}  # of options that count; 1 elsewhere
COUNTS = ("sizes",)  # options that hold several counts
TEXTS = ("ptb", "wikitext2", "tiny_shakespeare")  # data that are one stream of tokens
NO_IMAGES = (*TEXTS, "clrs_text", "max_retrieval", "dirichlet")
# Evaluations that need labels of the head's classes.
LABELLED = ("uncertainty", "calibration", "collapse", "ood")
STREAMED = ("perplexity", "log_probability_rank", "last_layer")  # evaluations of a whole stream
# What a field of the config must be for an evaluation, in words and as a test.
NEEDS = {
  "uncertainty": ("model.dropout", "above 0", lambda rate: (rate or 0) > 0),
  "retrieval": ("model.name", "'set_attention'", lambda name: name == "set_attention"),
  "exact_match": ("data.name", "'clrs_text'", lambda name: name == "clrs_text"),
  **dict.fromkeys(
    ("probe", "collapse", "compress", "ood"),
    ("data.name", "a set of images", lambda name: name not in NO_IMAGES),
  ),
  "bottleneck": ("data.name", "'dirichlet'", lambda name: name == "dirichlet"),
  **dict.fromkeys(STREAMED, ("data.name", f"one of {', '.join(TEXTS)}", lambda n: n in TEXTS)),
}
# Of those that need examples of classes: (source, **options) -> the labels that are seen.
LABELS = {
  "calibration": labels_of_calibration,
  "collapse": labels_of_collapse,
  "compress": labels_of_cuts,
  "ood": labels_of_ood,
  "probe": labels_of_probe,
}

__all__ = [
  "COMPARISONS",
  "DETECTORS",
  "EVALUATIONS",
  "TOGETHER",
  "Detector",
  "Mechanism",
  "Predictor",
  "accuracy",
  "aupr",
  "auroc",
  "bottleneck",
  "calibration",
  "check_alignment",
  "check_context",
  "check_examples",
  "check_layers",
  "check_options",
  "check_splits",
  "cka",
  "collapse",
  "compress",
  "detection",
  "ece",
  "effective_depth",
  "exact_match",
  "factor_kernel",
  "false_positive_rate",
  "fit_adam",
  "fit_temperature",
  "held_out",
  "kernel_names",
  "last_layer",
  "linear_head",
  "linear_maps",
  "log_probability_rank",
  "measure_layers",
  "measure_mechanism",
  "ood",
  "ood_drop",
  "outputs",
  "perplexity",
  "probe",
  "probe_members",
  "reliability",
  "retrieval",
  "row_sharpness",
  "score_odin",
  "sharpness",
  "sharpness_against_count",
  "spectra",
  "uncertainty",
]


def check_options(chosen: Mapping[str, Mapping[str, Any]], fields: Mapping[str, Any]) -> None:
  """Raises for evaluations that cannot be made of a network as its config makes it.

  Args:
    chosen: {evaluation: options}; both must exist, and counts must be large enough.
    fields: all fields of the config, {"model.dropout": 0.1, ...}.
  """
  for name, options in chosen.items():
    if name not in KNOWN:
      raise ValueError(f"evaluate.{name} is unknown; use {', '.join(KNOWN)}")
    _check_own(f"evaluate.{name}", KNOWN[name], options)
    field, words, holds = NEEDS.get(name, ("", "", lambda value: True))
    if not holds(fields.get(field)):
      raise ValueError(
        f"evaluate.{name} needs {field} {words}, and it is {fields.get(field, 'not set')}; "
        f"set it or remove evaluate.{name}"
      )
    if name in STREAMED:
      check_context(f"evaluate.{name}", options, fields)
    if name == "ood":
      check_detectors(options.get("detectors"))
    if name == "probe":
      check_probe(options)
    if name == "compress":
      check_compress(options)
    if options.get("remedies"):
      as_specs(options["remedies"])
    if options.get("fit"):
      _check_own(f"evaluate.{name}.fit", fit_head, options["fit"])
      check_fit(options["fit"])


def check_context(path: str, options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
  """Raises where a whole stream would go through attention at once."""
  if fields.get("model.name") == "transformer" and not options.get("context"):
    raise ValueError(
      f"{path}.context={options.get('context')}: attention over a whole stream fits no memory; "
      f"give the tokens of a window, such as {path}.context=128"
    )


def check_splits(chosen: Mapping[str, Mapping[str, Any]], splits: Collection[str]) -> None:
  """Raises for an evaluation of a split that the data do not have.

  Args:
    chosen: {evaluation: options}, of which those without an option that names splits read what
      there is; None leaves the choice to the evaluation.
  """
  for name, options in chosen.items():
    parameters = inspect.signature(KNOWN[name]).parameters
    for option in parameters.keys() & {"split", "splits", "fit_split", "ood_split"}:
      value = options.get(option, parameters[option].default)
      for split in value if option == "splits" else [value] if value else []:
        if split not in splits:
          raise ValueError(f"evaluate.{name}.{option}={value!r}: the data have {', '.join(splits)}")
        if split in OOD and name in LABELLED and option != "ood_split":
          raise ValueError(
            f"evaluate.{name}.{option}={value!r}: labels of data of another distribution are not "
            "those of the network; choose another split"
          )


def check_examples(chosen: Mapping[str, Mapping[str, Any]], source: Any) -> None:
  """Raises where the data lack examples, or classes, that an evaluation needs.

  Args:
    chosen: {evaluation: options}, after `check_splits`.
  """
  for name, options in chosen.items():
    for split, labels, classes in LABELS[name](source, **options) if name in LABELS else ():
      check_labels(name, split, labels, classes)


def check_layers(chosen: Mapping[str, Mapping[str, Any]], layers: Collection[str]) -> None:
  """Raises for an option `layers` with a name that is neither one of the layers nor "logits"."""
  for name, options in chosen.items():
    asked = options.get("layers") or ()
    for layer in [asked] if isinstance(asked, str) else asked:
      if layer not in (known := (*layers, "logits")):
        raise ValueError(
          f"evaluate.{name}.layers: {layer!r} does not exist; the network has {', '.join(known)}"
        )


def _check_own(path: str, function: Callable, options: Mapping[str, Any]) -> None:
  """Raises for options that the function does not have, and for counts that are too small."""
  parameters = inspect.signature(function).parameters.values()
  known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "others"]
  for option, value in options.items():
    if option not in known:
      raise ValueError(f"{path}.{option} is unknown; use {', '.join(known) or 'no option'}")
    least = LEAST.get(option, 1)
    if option in COUNTS:
      if isinstance(value, int) or min(value, default=0) < least:
        raise ValueError(f"{path}.{option}={value} must be a list of numbers of at least {least}")
    elif isinstance(value, int) and not isinstance(value, bool) and value < least:
      raise ValueError(f"{path}.{option}={value} must be at least {least}")
