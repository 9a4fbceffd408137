"""Sweeps over what a network is: width, depth and norm as programs of their own, starts as one."""

import math

import jax
import numpy as np
import pytest

from rankbias import data, experiment, program, runs, sweep
from rankbias.config import base, override, product
from rankbias.models import build_model


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit = 2, 16, 32
  c.model.update(name="mlp", depth=3, width=8, norm="none")
  c.measure.count = 0
  c.evaluate.spectra.images = 16
  return override(c, own)


def test_static_fields_split_a_sweep_into_programs_with_readable_names(tmp_path):
  axes = {"model.norm": ["none", "batch", "layer"], "model.width": [8, 16], "seed": [0, 1]}
  groups = sweep.group(tiny(), product(axes), tmp_path)
  assert [len(group.members) for group in groups] == [2] * 6
  names = [group.folder.name.rsplit("-", 1)[0] for group in groups]
  assert names[:2] == ["norm=none_width=8_seed=0,1", "norm=none_width=16_seed=0,1"]
  assert len(set(names)) == 6
  (one,) = sweep.group(tiny(), product({"model.depth": [5], "init_scale": [0.5, 2.0]}), tmp_path)
  assert one.folder.name.startswith("depth=5_init_scale=0.5,2-") and one.config.model.depth == 5


def test_optional_parts_split_it_too(tmp_path):
  axes = {
    "temperature_schedule": [{}, {"kind": "linear", "start": 10.0}],
    "regularizers": [{}, {"orthogonality": 0.1}],
    "temperature": [1.0, 5.0],
  }
  groups = sweep.group(tiny(), product(axes), tmp_path)
  assert [len(group.members) for group in groups] == [2] * 4
  assert len({group.folder for group in groups}) == 4
  assert "start_10" in groups[2].folder.name and "orthogonality_0.1" in groups[1].folder.name
  with pytest.raises(ValueError, match="temperature_schedule.kind='lin' is unknown"):
    sweep.group(tiny(), [{"temperature_schedule": {"kind": "lin", "start": 1.0}}], tmp_path)
  with pytest.raises(ValueError, match="regularizers.orthogonal is unknown"):
    sweep.group(tiny(), [{"regularizers": {"orthogonal": 1.0}}], tmp_path)


@pytest.mark.slow
def test_norm_width_and_depth_end_to_end(tmp_path):
  members = [
    {"model.norm": "none", "model.width": 16, "model.depth": 3},
    {"model.norm": "batch", "model.width": 8, "model.depth": 4},
    {"model.norm": "layer", "model.width": 8, "model.depth": 3},
  ]
  for folder, member in zip(sweep.run(tiny(), members, tmp_path), members, strict=True):
    found = runs.read(folder)["result"]
    assert found["model"]["weight_layers"] == member["model.depth"]
    (only,) = found["members"]
    assert only["overrides"] == member
    assert only["status"] == "finished" and math.isfinite(only["train"]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize(
  "model",
  [
    {"name": "vgg", "width": 4, "stage_sizes": (1, 1), "norm": "none"},
    {"name": "resnet18", "width": 4, "stage_sizes": (1, 1), "norm": "none"},
    {"name": "resnet18", "width": 4, "stage_sizes": (1,), "norm": "layer"},
    {"name": "vit", "patch": 4, "width": 8, "depth": 1, "heads": 2, "norm": "batch"},
    {"name": "vit", "patch": 4, "width": 8, "depth": 1, "heads": 2, "attention_temperature": 4.0},
  ],
  ids=lambda model: "-".join(str(v) for v in (model["name"], *list(model.values())[-1:])),
)
def test_every_norm_of_the_other_models_trains(tmp_path, model):
  c = tiny(**{"data.limit": 16, "batch_size": 8})
  c.model = model
  del c.evaluate.spectra
  found = experiment.run(c, tmp_path, members=[{"seed": 0}, {"seed": 1}])["members"]
  losses = [member["train"]["loss"] for member in found]
  assert all(map(math.isfinite, losses)) and losses[0] != losses[1]


def test_starts_are_numbers_of_a_member_and_multiply_kernels(tmp_path):
  """`init_scale` all kernels, `head_init_scale` the head's once more; one program for all."""
  axes = {"init_scale": [1.0, 3.0], "head_init_scale": [1.0, 0.1]}
  (group,) = sweep.group(tiny(), product(axes), tmp_path)
  source = data.load("digits", limit=32)
  configs = [override(group.config, member) for member in group.members]
  params = jax.device_get(program.build(configs, source).init()["params"])
  for m, (model, head) in enumerate([(1, 1), (1, 0.1), (3, 3), (3, 0.3)]):
    for part, factor in (("model", model), ("head", head)):
      for leaf in jax.tree.leaves(params[part]):
        np.testing.assert_allclose(leaf[m], factor * leaf[0], rtol=1e-6)


@pytest.mark.parametrize("field", ["init_scale", "head_init_scale"])
def test_a_start_of_zero_is_refused(field):
  with pytest.raises(ValueError, match=f"{field}=0.0 must be a finite number > 0"):
    experiment.check(tiny(**{field: 0.0}))


RULES = [
  ({"name": "mlp", "depth": 8}, 8),
  ({"name": "vgg", "layers": 16}, 14),
  ({"name": "resnet18"}, 18),
  ({"name": "vit", "depth": 6}, 26),
]


@pytest.mark.parametrize(("model", "layers"), RULES, ids=lambda x: str(x))
def test_the_equivalent_rule_counts_the_weight_layers_of_every_model(model, layers):
  c = tiny(temperature=100.0)
  c.model = model
  c.optimizer.update(learning_rate_rule="equivalent", learning_rate=0.1)
  assert build_model(**model).weight_layers == layers
  found = program.member_numbers(c, layers)["learning_rate"]
  assert found == pytest.approx(0.1 * 100 ** (2 / layers))
