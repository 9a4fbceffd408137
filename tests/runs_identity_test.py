"""What a run is called, and how two configurations differ."""

import json

import numpy as np
import pytest

from rankbias import runs

CONFIG = {"model": {"name": "mlp", "width": 256}, "optimizer": {"learning_rate": 0.02}, "steps": 4}
MEMBERS = [{"temperature": t, "seed": s} for t in (1.0, 10.0) for s in range(3)]


def test_run_id_is_readable_and_depends_on_the_configuration_alone():
  name = runs.run_id(CONFIG, MEMBERS)
  assert name.startswith("temperature=1,10_seed=0-2-")
  assert len(name.rsplit("-", 1)[1]) == 8
  assert name == runs.run_id(
    json.loads(json.dumps(CONFIG)), [{**m, "seed": 1.0 * m["seed"]} for m in MEMBERS]
  )
  assert name != runs.run_id(CONFIG | {"steps": 5}, MEMBERS)
  assert name != runs.run_id(CONFIG, MEMBERS[::-1])
  assert runs.run_id(CONFIG, [{}]).startswith("base-")


@pytest.mark.parametrize(
  ("members", "start"),
  [
    ([{"model.width": w} for w in (8, 16)], "width=8,16-"),
    ([{"a.x": 1, "b.x": 2}], "a.x=1_b.x=2-"),
    ([{"t": t} for t in np.logspace(-3, 3, 9)], "t=0.001..1000,9-"),
    ([{"rule": "../a b"}], "rule=.._a_b-"),
  ],
)
def test_run_id_compacts_ranges_and_is_one_path_component(members, start):
  name = runs.run_id(CONFIG, members)
  assert name.startswith(start)
  assert "/" not in name


def test_differences_lists_dotted_fields_with_both_values():
  there = {"model": {"name": "mlp", "width": 128}, "optimizer": {"learning_rate": 0.02}, "pad": 1}
  assert runs.differences(CONFIG, there) == [
    "model.width: 256 here, 128 there",
    "steps: 4 here, absent there",
    "pad: absent here, 1 there",
  ]
  assert runs.differences(CONFIG, CONFIG | {"steps": 4.0}) == []
  assert runs.differences({"m": MEMBERS}, {"m": [*MEMBERS[:5], {"temperature": 1, "seed": 2}]}) == [
    "m[5].temperature: 10 here, 1 there"
  ]
