"""Early stopping: the parameters of the lowest loss are evaluated, however often a run is cut."""

import jax
import numpy as np
import pytest

from rankbias import data, experiment, runs, selection
from rankbias.config import base, override, scientific
from rankbias.train import loop

STEPS = 24
MEMBERS = ({"seed": 0}, {"seed": 1, "optimizer.learning_rate": 0.5}, {"temperature": 3.0})


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit, c.steps_per_call = STEPS, 16, 64, 4
  c.model.update(name="mlp", depth=2, width=8, use_bias=False)
  c.optimizer.learning_rate = 0.2
  c.checkpoint_every = 7
  c.measure.count = 0
  del c.evaluate.spectra
  c.select = {"split": "test", "every": 3}
  return override(c, own)


def run(folder, members=MEMBERS, config=None, **own):
  config = tiny(**own) if config is None else config
  experiment.run(config, folder, members=members)
  (path,) = runs.find(folder / "tiny")
  return runs.read(path)


def losses(read, member):
  rows = [row for row in read["metrics"] if row["member"] == member and row["split"] == "test"]
  return {row["step"]: row["loss"] for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  return run(tmp_path_factory.mktemp("whole"))


def test_the_best_measurement_is_what_is_evaluated(whole):
  early = 0
  for m in range(len(MEMBERS)):
    measured, entry = losses(whole, m), whole["result"]["members"][m]
    assert list(measured) == [*range(3, STEPS, 3), STEPS]
    step = min(measured, key=measured.get)
    assert entry["best"] == {"step": step, "loss": pytest.approx(measured[step], rel=1e-6)}
    assert entry["test"]["loss"] == pytest.approx(measured[step], rel=1e-5)
    early += step < STEPS
  assert early  # else this test would say nothing


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_the_same(whole, tmp_path, monkeypatch):
  make_hooks = selection.make_hooks

  def killed_at(step):
    def make(*args):
      (hook,) = make_hooks(*args)
      stop = loop.Hook(frozenset({step}), interrupt)
      return (hook, stop)

    return make

  def interrupt(step, state):
    raise KeyboardInterrupt

  for step in (15, 22):  # after the checkpoints of 14 and 21
    monkeypatch.setattr(selection, "make_hooks", killed_at(step))
    with pytest.raises(KeyboardInterrupt):
      experiment.run(tiny(), tmp_path, members=MEMBERS)
  monkeypatch.setattr(selection, "make_hooks", make_hooks)
  again = run(tmp_path)
  assert again["result"] == whole["result"]
  assert losses(again, 1) == losses(whole, 1)


@pytest.mark.slow
def test_patience_ends_a_run_and_each_member_as_if_it_were_alone(whole, tmp_path):
  patient = {"split": "test", "every": 3, "patience": 1}
  config = tiny()
  config.select = patient
  together = run(tmp_path / "together", config=config)
  last = []
  for m, member in enumerate(MEMBERS):
    alone = run(tmp_path / f"alone{m}", members=(member,), config=config)
    measured, entry = losses(whole, m), together["result"]["members"][m]
    steps = list(measured)
    best = steps[0]
    for step in steps:  # by hand: the first measurement that is no improvement is the last
      if measured[step] < measured[best]:
        best = step
      elif step > best:
        break
    assert entry["best"]["step"] == best
    assert entry["best"] == pytest.approx(alone["result"]["members"][0]["best"], rel=1e-5)
    assert max(losses(alone, 0)) == min(best + 3, STEPS)
    assert alone["result"]["members"][0]["steps"] == min(best + 3, STEPS)
    last.append(min(best + 3, STEPS))
    assert list((tmp_path / f"alone{m}").glob(f"tiny/*/checkpoints/{last[-1]}"))
  assert max(losses(together, 0)) == max(last)
  assert min(last) < max(last)  # else this test would say nothing of company


@pytest.mark.slow
def test_a_diverged_member_is_not_measured_and_does_not_hold_up_the_others(tmp_path):
  config = tiny()
  config.select = {"split": "test", "every": 3, "patience": 1}
  members = ({"optimizer.learning_rate": 1e30}, {"optimizer.learning_rate": 2.0})
  found = run(tmp_path, members=members, config=config)
  assert [m["status"] for m in found["result"]["members"]] == ["diverged", "finished"]
  assert max(losses(found, 1)) < STEPS
  assert not losses(found, 0)


def test_off_is_as_before(tmp_path):
  config = tiny()
  config.select = {}
  assert "select" not in scientific(config) and "select" in scientific(tiny())
  read = run(tmp_path, members=({},), config=config)
  assert "best" not in read["result"]["members"][0]
  assert selection.make_hooks(config, None, None, None) == ()
  assert not selection.make_ended(config.select)(5, None)


def test_chosen_takes_whole_members():
  now = {"loss": np.array([1.0, 2.0]), "params": {"w": np.arange(4.0).reshape(2, 2)}}
  best = jax.tree.map(lambda x: x + 10, now)
  kept = selection.chosen(np.array([True, False]), now, best)
  np.testing.assert_array_equal(kept["params"]["w"], [[0, 1], [12, 13]])
  np.testing.assert_array_equal(kept["loss"], [1, 12])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"every": 5}, "select.split is missing; give"),
    ({"split": "test"}, "select.every is missing"),
    ({"split": "test", "every": 0}, "select.every=0 must be at least 1"),
    ({"split": "test", "every": 5, "patience": -1}, "select.patience=-1 must be at least 0"),
    ({"split": "test", "every": 5, "often": 1}, "select.often is unknown; use split, every"),
  ],
)
def test_wrong_options_are_refused(options, message):
  config = tiny()
  config.select = options
  with pytest.raises(ValueError, match=message):
    experiment.check(config)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "valid", "every": 5}, "select.split='valid': the data have train, test"),
    ({"split": "test", "every": 5, "lanes": 4}, "select.lanes=4: digits is no stream of tokens"),
  ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(options, message, tmp_path):
  config = tiny()
  config.select = options
  with pytest.raises(ValueError, match=message):
    experiment.run(config, tmp_path)
  assert not any(tmp_path.iterdir())


def test_data_of_another_distribution_select_nothing():
  source = data.load("digits", ood={"classes": (8, 9)})
  with pytest.raises(ValueError, match="'ood_test': the data have train, test$"):
    selection.check_data({"split": "ood_test", "every": 1}, source)


def test_sequences_of_labels_have_no_single_loss():
  sizes = {"lengths": (4,), "test_lengths": (5,), "number": 8, "test_number": 4}
  source = data.load("clrs_text", algorithms=("minimum",), **sizes)
  with pytest.raises(ValueError, match="clrs_text has no single label an example"):
    selection.check_data({"split": "test", "every": 1}, source)
