"""Training that begins with the parameters of a finished run."""

import jax
import numpy as np
import pytest

from rankbias import experiment, program, runs, warm_start
from rankbias.config import base, override, scientific

BIASED = {"model.use_bias": True}


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit, c.steps_per_call = 6, 16, 64, 3
  c.model.update(name="mlp", depth=2, width=8, use_bias=False)
  c.measure.count = 0
  del c.evaluate.spectra
  return override(c, own)


def run(folder, members=({},), **own):
  experiment.run(tiny(**own), folder, members=members)
  (path,) = runs.find(folder / "tiny")
  return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return run(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  members = {"seed": 0}, {"seed": 1}
  return run(tmp_path_factory.mktemp("two"), members=members, **BIASED)


def started(folder, members=1, **own):
  config = tiny(**own)
  configs = [override(config, {"seed": m}) for m in range(members)]
  built = program.build(configs, experiment.load_data(config))
  return warm_start.begin(str(folder), built.init())


def losses(path):
  return {row["member"]: row["loss"] for row in runs.read(path)["metrics"] if row["step"] == 1}


def test_it_goes_on_from_where_the_run_ended(trained, tmp_path):
  """Without a step that changes anything, the accuracy is that of the first run."""
  still = run(tmp_path, warm_start=str(trained), **{"optimizer.learning_rate": 0.0})
  first, second = (runs.read(path)["result"]["members"][0] for path in (trained, still))
  assert second["test"] == first["test"]
  assert second["train"] == first["train"]
  assert runs.read(still)["config"]["warm_start"] == trained.name  # of the run, not of the machine


def test_one_member_gives_all_their_start_and_many_each_its_own(trained, two):
  (state, drawn), (own, _) = started(trained, members=2), started(two, members=2, **BIASED)
  assert not drawn
  for leaf in jax.tree.leaves(state["params"]):
    np.testing.assert_array_equal(leaf[0], leaf[1])
  for leaf in jax.tree.leaves(own["params"]["head"]):
    assert (np.asarray(leaf[0]) != leaf[1]).any()


def test_the_optimiser_and_the_count_of_steps_begin_anew(trained):
  state, _ = started(trained)
  assert int(state["step"][0]) == 0
  assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state["opt"]))


def test_what_the_run_lacks_stays_as_drawn_and_is_named(trained):
  state, drawn = started(trained, **BIASED)
  assert drawn == ["['model']['layer1']['bias']"]
  assert state["params"]["model"]["layer1"]["bias"].shape == (1, 8)


def test_a_run_continued_from_its_checkpoint_is_not_begun_again(trained, tmp_path, monkeypatch):
  config = tiny(warm_start=str(trained))
  begin, stop = warm_start.begin, []

  def counted(*args):
    stop.append(args)
    return begin(*args)

  monkeypatch.setattr(warm_start, "begin", counted)
  whole = experiment.run(config, tmp_path / "whole")
  assert len(stop) == 1
  folder = experiment.run_folder(config, tmp_path / "whole", ({},))
  (folder / "result.json").unlink()
  assert experiment.run(config, tmp_path / "whole") == whole
  assert len(stop) == 1


def test_it_is_part_of_what_a_run_is_only_where_it_is_used(trained):
  assert "warm_start" not in scientific(tiny())
  assert scientific(tiny(warm_start=str(trained)))["warm_start"] == trained.name


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"warm_start=.*no folder of a finished run; give one"):
    experiment.check(tiny(warm_start=str(tmp_path)))


def test_scaling_trained_parameters_is_refused(trained):
  with pytest.raises(ValueError, match=r"init_scale=2.0 scales drawn parameters.*set init_scale=1"):
    experiment.check(tiny(warm_start=str(trained), init_scale=2.0))


def test_other_shapes_and_missing_parameters_are_refused(trained, two):
  with pytest.raises(ValueError, match=r"warm_start=.*has shape .*8.* there.*of one shape"):
    started(trained, **{"model.width": 9})
  with pytest.raises(ValueError, match=r"has shape \(2, .* one member or of as many members"):
    started(two, members=3, **BIASED)
  with pytest.raises(ValueError, match=r"has parameters that this network lacks: .*bias"):
    started(two, members=2)
