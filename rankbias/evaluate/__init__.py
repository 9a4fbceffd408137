"""Evaluations: one question about a trained network a file, seen only through a `Predictor`.

An evaluation is `f(predictor, source, *, others={}, **options) -> {name: number, array or dict}`,
written for one member.
"""

from rankbias.evaluate.accuracy import accuracy
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.spectra import measure_layers, spectra

EVALUATIONS = {"accuracy": accuracy, "spectra": spectra}

__all__ = ["EVALUATIONS", "Predictor", "accuracy", "measure_layers", "spectra"]
