"""Evaluations: one question about a trained network a file, seen only through a `Predictor`.

An evaluation is `f(predictor, source, *, others={}, **options) -> {name: number, array or dict}`,
written for one member.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from rankbias.evaluate.accuracy import accuracy
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.spectra import measure_layers, spectra
from rankbias.evaluate.uncertainty import uncertainty

EVALUATIONS = {"accuracy": accuracy, "spectra": spectra, "uncertainty": uncertainty}

LEAST = {"samples": 2}  # of options that count; 1 elsewhere
NEEDS = {"uncertainty": "model.dropout"}  # the field of a config that must be above 0

__all__ = [
  "EVALUATIONS",
  "Predictor",
  "accuracy",
  "check_options",
  "measure_layers",
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
    need = NEEDS.get(name)
    if need and not fields.get(need, 0) > 0:
      raise ValueError(
        f"evaluate.{name} needs {need} above 0, and it is {fields.get(need, 'not set')}; "
        f"set it (0.1, for instance) or remove evaluate.{name}"
      )
