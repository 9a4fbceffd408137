"""Runs whose temperature changes: what is measured, at which temperature, and cut and continued."""

import jax
import numpy as np
import pytest

from rankbias import experiment, runs
from rankbias.config import base, override

MEMBERS = ({"temperature": 2.0}, {"temperature": 50.0})
SCHEDULE = {"kind": "geometric", "start": 10.0, "steps": 8}


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit, c.checkpoint_every = 12, 16, 64, 4
  c.model.update(name="mlp", depth=3, width=8)
  c.optimizer.update(learning_rate=0.05, learning_rate_rule="equivalent")
  c.measure.update(count=4, images=32)
  c.evaluate.spectra.images = 32
  return override(c, {"temperature_schedule": SCHEDULE} | own)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  experiment.run(tiny(), folder, members=MEMBERS)
  (path,) = runs.find(folder / "tiny")
  return path


def rows(path, split="measure"):
  return [row for row in runs.read(path)["metrics"] if row["split"] == split]


def test_while_training_is_measured_at_the_temperature_of_the_step(whole):
  for member, end in enumerate((2.0, 50.0)):
    own = [row for row in rows(whole) if row["member"] == member]
    assert [row["step"] for row in own] == [0, 1, 3, 12]
    gone = np.minimum(np.array([0, 1, 3, 12]) / 8, 1)
    expected = 10 ** (1 - gone) * end**gone
    np.testing.assert_allclose([row["temperature"] for row in own], expected, rtol=1e-5)
    for row in own:
      ratio = row["logits:mean_norm"] / row["logits:tempered_mean_norm"]
      assert ratio == pytest.approx(row["temperature"], rel=1e-4)


def test_the_end_is_evaluated_at_the_members_own_temperature(whole):
  for member in runs.read(whole)["result"]["members"]:
    ratio = member["norms"]["mean_norm"] / member["norms"]["tempered_mean_norm"]
    assert ratio == pytest.approx(member["temperature"], rel=1e-5)


def test_a_run_cut_on_the_way_and_continued_ends_the_same(tmp_path, whole):
  class Cut(Exception):
    """The process dies."""

  def dies(folder, new):
    if any(row["step"] == 6 for row in new):  # after the checkpoint of step 4
      raise Cut

  with pytest.raises(Cut):
    experiment.run(tiny(), tmp_path, members=MEMBERS, sinks=[dies])
  (path,) = runs.find(tmp_path / "tiny")
  assert path.name == whole.name and not runs.is_finished(path)
  experiment.run(tiny(), tmp_path, members=MEMBERS)
  for file in ("result.json", "arrays.npz", "metrics.jsonl"):
    assert (path / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.mark.slow
def test_a_schedule_that_starts_where_it_ends_is_none(tmp_path):
  """And is another run all the same: its name says so."""
  found = []
  for schedule in ({}, {"kind": "linear", "start": 2.0}):
    c = tiny(temperature=2.0, temperature_schedule=schedule)
    found.append(experiment.run(c, tmp_path)["members"][0])
  assert len(runs.find(tmp_path / "tiny")) == 2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), *map(norms, found))


def norms(member):
  return member["norms"] | member["last"]
