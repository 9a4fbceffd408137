"""A run with held-out classes and probes: from the config to the run folder."""

import pytest

from rankbias import experiment, result, runs
from rankbias.config import base


def tiny():
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit, c.steps_per_call = 4, 16, 96, 4
  c.data.ood = {"classes": (8, 9)}
  c.model.update(name="mlp", depth=2, width=8, use_bias=False)
  c.measure.count = 0
  c.evaluate = {"accuracy": {}, "probe": {}}
  return c


def test_probes_of_a_run_with_held_out_classes(tmp_path):
  result = experiment.run(tiny(), tmp_path, members=({"seed": 0}, {"seed": 1}))
  (folder,) = runs.find(tmp_path / "tiny")
  read = runs.read(folder)
  assert read["config"]["data"]["ood"] == {"classes": [8, 9]}
  assert read["result"] == result
  data = {"train": 96, "test": 96, "ood_train": 96, "ood_test": 71, "classes": 8}
  assert data.items() <= result["data"].items()
  for member in result["members"]:
    assert {"train", "test"} <= member.keys()
    assert not {"ood_train", "ood_test"} & member.keys()  # not scored as if they were of the head
    found = member["probe"]
    assert found["layers"] == [*result["model"]["layers"], "logits"]
    first = found["layers"][0]
    assert 0.2 < found["id"][first]["test"] <= 1  # chance is 0.125
    assert 0.6 < found["ood"][first]["test"] <= 1  # and 0.5
    assert found["effective_depth"]["0.95"] in (0.5, 1.0)
    assert 0 <= found["ood_drop"] < 1


def test_a_layer_that_does_not_exist_is_named_before_anything_is_written(tmp_path):
  config = tiny()
  config.evaluate.probe.layers = ("layer9",)
  with pytest.raises(ValueError, match=r"probe\.layers: 'layer9' does not exist; the network has "):
    experiment.run(config, tmp_path)
  assert not any(tmp_path.iterdir())


def test_members_that_finished_and_see_the_same_data_go_through_one_call(monkeypatch):
  calls = []

  def together(predictors, source, **options):
    calls.append((predictors, source, options))
    return [{"found": predictor * 10} for predictor in predictors]

  monkeypatch.setitem(result.TOGETHER, "probe", together)
  chosen, data = {"accuracy": {}, "probe": {"images": 5}}, [object(), object()]
  seen = [data[0], data[1], data[0], data[0], data[1]]
  found = result.at_once(chosen, [1, 2, None, 4, 5], seen)
  assert found == {"probe": {m: {"found": 10 * p} for m, p in ((0, 1), (1, 2), (3, 4), (4, 5))}}
  assert calls == [([1, 4], data[0], {"images": 5}), ([2, 5], data[1], {"images": 5})]
  assert result.at_once(chosen, [None, None], seen[:2]) == {}
