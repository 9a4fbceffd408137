"""Dirichlet targets from a config to a report: every member against the targets of its seed."""

import pathlib

import numpy as np
import pytest

from rankbias import command, experiment, launch, runs
from rankbias.config import load, override

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "bottleneck_dirichlet.py"


def config(**fields):
  return override(load(CONFIG, "smoke")[0], fields)


def test_a_member_is_trained_and_measured_on_the_draw_of_its_seed(tmp_path):
  c = config(steps=60)
  source = experiment.load_data(c)
  members = [{"seed": s, "optimizer.learning_rate": 0.05} for s in (0, 1, 2)]
  result = experiment.run(c, tmp_path, members=members, source=source)
  for member, seed in zip(result["members"], (0, 1, 2), strict=True):
    p = np.float64(source.seen_by(seed).splits["train"]["y"])
    entropy = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), -1).mean()
    found = member["bottleneck"]
    # The rate has fallen to nothing at the end, so the last step sees the final parameters.
    assert found["kl"] == pytest.approx(member["last"]["loss"] - entropy, abs=1e-3)
    assert found["mode_match"] == pytest.approx(member["last"]["accuracy"], abs=1e-6)
  first, second, third = (member["bottleneck"]["kl"] for member in result["members"])
  assert first != second and first != third  # a start of its own on the same targets
  (folder,) = runs.find(tmp_path / c.name)
  arrays = runs.read(folder)["arrays"]
  assert arrays["2/curves/spectrum"].shape == (10,) and arrays["0/curves/map"].shape == (200,)


def test_measuring_while_training_is_refused_before_anything_is_written(tmp_path):
  with pytest.raises(ValueError, match="measure.count must be 0 with data 'dirichlet'"):
    experiment.run(config(**{"measure.count": 3}), tmp_path)
  assert not any(tmp_path.iterdir())


def test_one_number_of_contexts_is_that_of_the_data_the_table_and_the_batch():
  c = config(**{"data.contexts": 16})
  assert (c.data.contexts, c.model.count, c.batch_size) == (16, 16, 16)


@pytest.mark.slow
def test_from_the_command_line_to_the_report(tmp_path):
  path, overrides = f"{CONFIG}:smoke", {"steps": 5}
  command.check([f"--config={path}", "--config.steps=5"])
  planned = launch.plan(path, config(**overrides), overrides, str(tmp_path))
  page = launch.carry_out(planned, say=lambda _: None)
  text = page.read_text()
  assert "mixture of softmaxes" in text and "KL" in text
  assert (page.parent / "bottleneck.csv").read_text().count("\n") == 5  # a row for each layer
