"""What a sweep is made of: merged folders, settings, unfinished and repeated runs."""

import numpy as np
import pytest

from rankbias.report.collect import collect


def test_members_of_several_folders_become_one_section(synthetic, grid, tmp_path):
  build = synthetic(layers=2, width=16)
  for t in (10.0, 1.0, 100.0):
    build.write(tmp_path, grid((t,), seeds=2))
  sweep = collect(tmp_path)
  assert len(sweep.runs) == 3
  (section,) = sweep.sections
  assert (section.label, section.layers) == ("", ["layer1/relu", "layer2/relu", "logits"])
  assert section.last_hidden == "layer2/relu"
  assert section.temperatures == [1.0, 10.0, 100.0]
  found = [(m.temperature, m.record["seed"]) for m in section.members]
  assert found == [(t, s) for t in (1.0, 10.0, 100.0) for s in (0, 1)]
  for m in section.members:
    assert set(m.spectra) == set(m.centered) == set(section.layers)
    top = m.rows[-1]["logits:singular_values"][0]
    assert m.spectra["logits"][0] == pytest.approx(top, rel=1e-12)  # this member's, not another's


def test_values_are_those_of_the_finished_members(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=3), diverged={1: 5})
  (section,) = collect(tmp_path).sections
  seeds = section.values(1.0, lambda m: m.record["seed"])
  np.testing.assert_array_equal(seeds, [0, 2])
  assert [m.record["seed"] for m in section.diverged(1.0)] == [1]
  assert len(section.values(1.0, lambda m: None)) == 0


def test_runs_that_differ_otherwise_get_a_section_each(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0, 10.0), seeds=2))
  build.write(tmp_path, grid((1.0,), seeds=1), config={"steps": 100})
  sweep = collect(tmp_path)
  assert [s.label for s in sweep.sections] == ["steps = 4000", "steps = 100"]
  assert [len(s.members) for s in sweep.sections] == [4, 1]


def test_an_override_that_varies_within_a_temperature_splits(synthetic, grid, tmp_path):
  members = [m for rate in (0.1, 0.2) for m in grid(seeds=1, **{"optimizer.learning_rate": rate})]
  synthetic(layers=1, width=16).write(tmp_path, members)
  labels = [section.label for section in collect(tmp_path).sections]
  assert labels == ["optimizer.learning_rate = 0.1", "optimizer.learning_rate = 0.2"]


def test_a_field_that_follows_the_temperature_does_not_split(synthetic, grid, tmp_path):
  members = [{**m, "optimizer.learning_rate": 0.1 * m["temperature"]} for m in grid(seeds=2)]
  synthetic(layers=1, width=16).write(tmp_path, members)
  sweep = collect(tmp_path)
  assert len(sweep.sections) == 1
  assert sweep.following == ["optimizer.learning_rate"]


def test_a_member_in_two_folders_counts_once(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0, 10.0), seeds=2))
  build.write(tmp_path, [{"temperature": 10, "seed": 0}])
  sweep = collect(tmp_path)
  assert sweep.repeated == 1
  assert len(sweep.sections[0].members) == 4


def test_unfinished_runs_are_named_and_left_out(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0,), seeds=1))
  other = build.write(tmp_path, grid((10.0,), seeds=1), finished=False)
  sweep = collect(tmp_path)
  assert sweep.unfinished == [other.name]
  assert sweep.sections[0].temperatures == [1.0]


def test_a_folder_without_a_finished_run_is_an_error(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path, grid((10.0,), seeds=1), finished=False)
  with pytest.raises(ValueError, match=r"holds no finished run, but 1 unfinished; give WORKDIR"):
    collect(tmp_path)
