"""Dropout from the command line to the report: trained, sampled, written, and refused without."""

import pathlib

import numpy as np
import pytest

from rankbias import command, launch, runs
from rankbias.config import load, override

pytestmark = pytest.mark.slow

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "digits_T.py"


def run(workdir, overrides):
  """Launches the config's smoke test with dropout as experiments/main.py does."""
  path = f"{CONFIG}:dropout,smoke"
  command.check([f"--config={path}", *(f"--config.{k}={v}" for k, v in overrides.items())])
  config = override(load(CONFIG, "dropout,smoke")[0], overrides)
  planned = launch.plan(path, config, overrides, str(workdir))
  return launch.carry_out(planned, say=lambda _: None)


def test_uncertainty_reaches_result_and_report(tmp_path):
  page = run(tmp_path, {"model.dropout": 0.2, "evaluate.uncertainty.samples": 3, "steps": 10})
  assert "temperature" in page.read_text()
  (folder,) = runs.find(page.parent)
  members = runs.read(folder)["result"]["members"]
  assert [member["temperature"] for member in members] == [1.0, 100.0]
  for member in members:
    found = member["uncertainty"]
    assert (found["samples"], found["images"]) == (3, 200)
    whole = found["expected_entropy"] + found["mutual_information"]
    np.testing.assert_allclose(found["predictive_entropy"], whole, rtol=1e-5)
    assert found["mutual_information"] > 0 and 0 < found["error_auroc"]["variation_ratio"] <= 1
    for name, value in member["test"].items():
      np.testing.assert_allclose(found["deterministic"][name], value, rtol=1e-5)


def test_without_dropout_the_question_is_refused_before_anything_happens(tmp_path):
  with pytest.raises(ValueError, match="evaluate.uncertainty needs model.dropout above 0"):
    run(tmp_path, {"model.dropout": 0.0})
  assert not any(tmp_path.iterdir())
