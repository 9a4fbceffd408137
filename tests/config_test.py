"""Sweep axes, overrides, variants and what belongs to a run's identity."""

import pytest

from rankbias import config


def test_axes():
  assert config.product({"a": [1, 2], "b": "xy"}) == [
    {"a": 1, "b": "x"},
    {"a": 1, "b": "y"},
    {"a": 2, "b": "x"},
    {"a": 2, "b": "y"},
  ]
  assert config.zip_({"a": [1, 2], "b": "xy"}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
  assert config.chain([{"a": 1}], [{"b": 2}]) == [{"a": 1}, {"b": 2}]
  with pytest.raises(ValueError):
    config.zip_({"a": [1, 2], "b": "x"})


def test_an_overridden_axis_is_replaced():
  members = config.product({"temperature": [1.0, 10.0], "seed": [0, 1]})
  fixed = config.replace_axes(members, {"temperature": 3.0, "steps": 7})
  assert fixed == [{"temperature": 3.0, "seed": 0}, {"temperature": 3.0, "seed": 1}]
  fixed = config.replace_axes(members, {"temperature": 3.0, "seed": 5})
  assert fixed == [{"temperature": 3.0, "seed": 5}]


def test_a_fixed_name_chooses_among_swept_parts_and_other_fields_are_set_in_all():
  heads = [{"name": "linear"}, {"name": "plif", "knots": 9}, {"name": "plif", "knots": 99}]
  members = config.product({"head": heads, "seed": [0, 1]})
  fixed = config.replace_axes(members, {"head.name": "plif", "seed": 3})
  assert fixed == [{"head": heads[1], "seed": 3}, {"head": heads[2], "seed": 3}]
  fixed = config.replace_axes(members, {"head.use_bias": False, "seed": 3})
  assert fixed == [{"head": {**head, "use_bias": False}, "seed": 3} for head in heads]
  with pytest.raises(ValueError, match="head.name='plfi' is not swept over; .*mean 'plif'"):
    config.replace_axes(members, {"head.name": "plfi"})


def test_override_reaches_nested_fields_and_leaves_the_original():
  base = config.base("test")
  other = config.override(base, {"optimizer.learning_rate": 3, "seed": 2})
  assert other.optimizer.learning_rate == 3.0 and other.seed == 2
  assert isinstance(other.optimizer.learning_rate, float) and base.seed == 0


@pytest.mark.parametrize(
  ("member", "message"),
  [
    ({"optimiser.learning_rate": 1.0}, r"did you mean 'optimizer.learning_rate'"),
    ({"seed": 1.5}, "sweep field 'seed' is int in the config, got 1.5; give a int"),
    ({"temperature": "3"}, "sweep field 'temperature' is float"),
  ],
)
def test_wrong_overrides_are_named(member, message):
  with pytest.raises(ValueError, match=message):
    config.override(config.base("test"), member)


def test_variants():
  assert config.variants("vgg,smoke", ("vgg", "smoke")) == {"vgg", "smoke"}
  assert config.variants("", ("smoke",)) == frozenset()
  with pytest.raises(ValueError, match="config variant 'smok' is unknown; .*did you mean 'smoke'"):
    config.variants("smok", ("smoke",))


def test_the_machine_is_no_part_of_the_science():
  base = config.base("test")
  other = config.override(base, {"data.dir": "/elsewhere", "steps_per_call": 3})
  assert config.scientific(base) == config.scientific(other)
  assert config.scientific(base) != config.scientific(config.override(base, {"steps": 3}))
  known = config.flatten(base)
  assert all(field in known for field in (*config.MACHINE_FIELDS, *config.MEMBER_FIELDS))


def test_no_data_of_another_distribution_is_no_part_of_the_identity():
  """So runs from before there was such a field keep their folders."""
  base = config.base("test")
  assert "ood" not in config.scientific(base)["data"]
  held = config.base("test")
  held.data.ood = {"classes": (8, 9)}
  assert config.scientific(held)["data"]["ood"] == {"classes": (8, 9)}


def test_names_hold_the_variant():
  assert config.base("cifar_T", "vgg,smoke").name == "cifar_T-vgg-smoke"


def test_missing_config_file_is_named():
  with pytest.raises(ValueError, match=r"'configs/nowhere.py' does not exist"):
    config.load("configs/nowhere.py")


def test_optional_parts_are_swept_over_as_a_whole_and_are_no_part_of_the_run_while_off():
  base = config.base("test")
  before = config.scientific(base)
  assert not {"temperature_schedule", "regularizers", "head_init_scale", "select"} & set(before)
  schedule = {"kind": "geometric", "start": 100.0}
  on = config.override(base, {"temperature_schedule": schedule})
  assert config.scientific(on) == before | {"temperature_schedule": schedule}
  off = config.override(on, {"temperature_schedule": {}, "regularizers": {}})
  assert config.scientific(off) == before
  later = config.override(on, {"temperature_schedule.start": 3})
  assert later.temperature_schedule.to_dict() == {"kind": "geometric", "start": 3.0}
  scaled = config.override(base, {"head_init_scale": 2})
  assert config.scientific(scaled) == before | {"head_init_scale": 2.0}
