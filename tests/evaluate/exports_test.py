"""What a training loop of one's own needs is in `rankbias.evaluate`, and works from there."""

import numpy as np
import pytest

from rankbias import evaluate

WANTED = {
  *("Predictor", "accuracy", "calibration", "cka", "collapse", "compress", "ood", "probe"),
  *("probe_members", "spectra", "uncertainty", "measure_layers", "measure_mechanism", "Mechanism"),
  *("ece", "reliability", "fit_temperature", "fit_adam", "effective_depth", "ood_drop"),
  *("DETECTORS", "Detector", "score_odin", "detection", "auroc", "aupr", "false_positive_rate"),
  *("linear_head", "linear_maps", "kernel_names", "outputs", "factor_kernel"),
}


def test_all_names_exist_and_are_public():
  assert set(evaluate.__all__) >= WANTED
  for name in evaluate.__all__:
    assert getattr(evaluate, name) is not None and not name.startswith("_")


def test_every_evaluation_is_a_function_of_that_name():
  for name, function in (evaluate.EVALUATIONS | evaluate.COMPARISONS).items():
    assert getattr(evaluate, name) is function and function.__name__ == name
    assert name in evaluate.__all__
  assert evaluate.TOGETHER.keys() <= evaluate.EVALUATIONS.keys()


def test_functions_of_arrays_work_alone():
  assert float(evaluate.ece(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))) == (
    pytest.approx(0.4)
  )
  known, foreign = np.array([3.0, 2.0]), np.array([1.0, 2.5])
  assert evaluate.detection(known, foreign)["auroc"] == 0.75
  logits = np.array([[5.0, 0, 0], [1, 0, 0]], np.float32)
  score = evaluate.DETECTORS["max_logit"].score({}, None, logits)
  np.testing.assert_allclose(score, [5, 1])
