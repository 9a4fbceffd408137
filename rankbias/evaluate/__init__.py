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

EVALUATIONS = {"accuracy": accuracy, "spectra": spectra}

__all__ = ["EVALUATIONS", "Predictor", "accuracy", "check_options", "measure_layers", "spectra"]


def check_options(chosen: Mapping[str, Mapping[str, Any]]) -> None:
  """Raises for unknown evaluations, options that one does not have, and counts below one."""
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
      if isinstance(value, int) and value < 1:
        raise ValueError(f"evaluate.{name}.{option}={value} must be at least 1")
