"""Evaluations: one question about a trained network a file, seen only through a `Predictor`.

An evaluation is `f(predictor, source, *, others={}, **options) -> {name: number, array or dict}`,
written for one member.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from rankbias.evaluate.accuracy import accuracy
from rankbias.evaluate.exact_match import exact_match
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.remedies import as_specs
from rankbias.evaluate.retrieval import retrieval
from rankbias.evaluate.sharpness import row_sharpness, sharpness, sharpness_against_count
from rankbias.evaluate.spectra import measure_layers, spectra
from rankbias.evaluate.uncertainty import uncertainty

EVALUATIONS = {
  "accuracy": accuracy,
  "spectra": spectra,
  "uncertainty": uncertainty,
  "retrieval": retrieval,
  "exact_match": exact_match,
}

LEAST = {"samples": 2}  # of options that count; 1 elsewhere
# What a field of the config must be for an evaluation, in words and as a test.
NEEDS = {
  "uncertainty": ("model.dropout", "above 0", lambda rate: (rate or 0) > 0),
  "retrieval": ("model.name", "'set_attention'", lambda name: name == "set_attention"),
  "exact_match": ("data.name", "'clrs_text'", lambda name: name == "clrs_text"),
}

__all__ = [
  "EVALUATIONS",
  "Predictor",
  "accuracy",
  "check_options",
  "exact_match",
  "measure_layers",
  "retrieval",
  "row_sharpness",
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
    if name not in EVALUATIONS:
      raise ValueError(f"evaluate.{name} is unknown; use {', '.join(EVALUATIONS)}")
    parameters = inspect.signature(EVALUATIONS[name]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "others"]
    for option, value in options.items():
      if option not in known:
        raise ValueError(
          f"evaluate.{name}.{option} is unknown; use {', '.join(known) or 'no option'}"
        )
      least = LEAST.get(option, 1)
      if isinstance(value, int) and value < least:
        raise ValueError(f"evaluate.{name}.{option}={value} must be at least {least}")
    field, words, holds = NEEDS.get(name, ("", "", lambda value: True))
    if not holds(fields.get(field)):
      raise ValueError(
        f"evaluate.{name} needs {field} {words}, and it is {fields.get(field, 'not set')}; "
        f"set it or remove evaluate.{name}"
      )
    if options.get("remedies"):
      as_specs(options["remedies"])
