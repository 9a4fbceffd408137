"""One program from a config to a finished run folder: what is written, and what may not matter."""

import json
import math
import platform
import re

import jax
import numpy as np
import pytest

from rankbias import data, experiment, runs
from rankbias.config import base, load, override
from rankbias.train import loop

STEPS, MARKS = 12, [0, 1, 2, 5, 12]
MEMBERS = (
  {"temperature": 1.0},
  {"temperature": 10.0, "seed": 1},
  {"optimizer.learning_rate": 1e30},
)
LAYERS = ["layer1/relu", "layer2/relu"]
RANKS = {"covariance_rank", "numerical_rank", "effective_rank", "stable_rank"}
RANKS |= {"participation_ratio"}
FINAL = RANKS | {"rankme", "energy_rank"}
NORMS = {"mean_norm", "frobenius_norm", "spectral_norm"}
NORMS |= {f"tempered_{name}" for name in NORMS}


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit = STEPS, 16, 64
  c.model.update(name="mlp", depth=3, width=8, use_bias=False)
  c.optimizer.update(learning_rate=0.05, learning_rate_rule="equivalent")
  c.measure.update(count=5, images=32)
  c.evaluate.spectra.images = 32
  return override(c, own)


def run(folder, members=MEMBERS, **own):
  """Runs the tiny config below `folder`; returns its run folder, read back."""
  result = experiment.run(tiny(**own), folder, members=members)
  (path,) = runs.find(folder / "tiny")
  read = runs.read(path)
  assert read["result"] == result  # what is returned is what is written
  return read | {"path": path}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  return run(tmp_path_factory.mktemp("experiment"))


def numbers(read, member):
  """The numbers of a member that change smoothly with its weights."""
  entry = read["result"]["members"][member]
  flat = {f"{s} {k}": v for s in ("last", "train", "test", "norms") for k, v in entry[s].items()}
  smooth = ("effective_rank", "stable_rank", "participation_ratio")
  ranks = entry["ranks"].items()
  flat |= {f"{layer} {name}": values[name] for layer, values in ranks for name in smooth}
  prefix = f"{member}/"
  arrays = {k.removeprefix(prefix): v for k, v in read["arrays"].items() if k.startswith(prefix)}
  return flat | arrays | {"learning_rate": entry["learning_rate"]}


def assert_same(found, expected, rtol=2e-4):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    atol = 1e-6 * np.max(value)
    np.testing.assert_allclose(found[name], value, rtol=rtol, atol=atol, err_msg=name)


def test_result_has_the_agreed_form(finished):
  result = finished["result"]
  assert list(result) == ["format", "name", "data", "model", "members"]
  assert result["format"] == 1 and result["name"] == "tiny"
  assert result["data"] == {"name": "digits", "train": 64, "test": 64, "classes": 10}
  parameters = 64 * 8 + 8 * 8 + 8 * 10
  expected = {"name": "mlp", "parameters": parameters, "weight_layers": 3, "layers": LAYERS}
  assert result["model"] == expected
  keys = ["overrides", "temperature", "seed", "learning_rate", "steps", "status", "stopped_at"]
  keys += ["last", "step_99", "train", "test", "norms", "ranks", "tolerance"]
  assert all(list(member) == keys for member in result["members"])
  assert [member["overrides"] for member in result["members"]] == list(MEMBERS)


def test_every_finished_member_is_measured(finished):
  for member in finished["result"]["members"][:2]:
    assert member["status"] == "finished" and member["stopped_at"] is None
    for split in ("last", "train", "test"):
      assert list(member[split]) == ["loss", "accuracy"]
      assert 0 < member[split]["loss"] < 4 and 0 <= member[split]["accuracy"] <= 1
    assert set(member["norms"]) == NORMS
    assert list(member["ranks"]) == [*LAYERS, "logits"]
    assert all(set(ranks) == FINAL for ranks in member["ranks"].values())
    tolerance = member["tolerance"]
    assert list(tolerance) == ["rtol", "covariance_rank", "numerical_rank"]
    for name in ("covariance_rank", "numerical_rank"):
      assert list(tolerance[name]) == [*LAYERS, "logits"]
      assert all(len(counts) == len(tolerance["rtol"]) for counts in tolerance[name].values())
  rate = finished["result"]["members"][1]["learning_rate"]
  assert rate == pytest.approx(0.05 * 10 ** (2 / 3))
  assert finished["result"]["members"][1]["seed"] == 1


def test_spectra_are_kept_for_every_layer_of_every_finished_member(finished):
  kinds, layers = ("spectrum", "spectrum_centered"), (*LAYERS, "logits")
  expected = {f"{m}/{kind}/{layer}" for m in (0, 1) for kind in kinds for layer in layers}
  assert set(finished["arrays"]) == expected
  for name, spectrum in finished["arrays"].items():
    assert (np.diff(spectrum) <= 0).all() and np.isfinite(spectrum).all(), name
  top = finished["arrays"]["0/spectrum/logits"][0]
  norms = finished["result"]["members"][0]["norms"]
  assert norms["spectral_norm"] == pytest.approx(top, rel=1e-6)


def test_measurements_are_log_spaced_finite_and_complete(finished):
  rows = [row for row in finished["metrics"] if row["split"] == "measure"]
  assert loop.log_spaced(STEPS, 5) == MARKS
  expected = {"step", "member", "split", "loss", "accuracy", "logits:singular_values"}
  expected |= {f"{layer}:{rank}" for layer in (*LAYERS, "logits") for rank in RANKS}
  expected |= {f"logits:{name}" for name in NORMS}
  for member in (0, 1):
    own = [row for row in rows if row["member"] == member]
    assert [row["step"] for row in own] == MARKS
    for row in own:
      assert set(row) == expected
      assert all(np.isfinite(v).all() for k, v in row.items() if k != "split")
      layers = list(dict.fromkeys(k.split(":")[0] for k in row if ":" in k))
      assert layers == [*LAYERS, "logits"]
  last, final = rows[-1], finished["result"]["members"][1]
  assert last["logits:effective_rank"] != rows[0]["logits:effective_rank"]
  assert last["step"] == STEPS and final["ranks"]["logits"]["covariance_rank"] > 0


def test_running_numbers_are_logged_and_finite(finished):
  rows = [row for row in finished["metrics"] if row["split"] == "train"]
  for member in (0, 1):
    own = [row for row in rows if row["member"] == member]
    assert [row["step"] for row in own] == list(range(1, STEPS + 1))
    assert all(math.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1 for row in own)
    last = finished["result"]["members"][member]["last"]
    assert own[-1]["loss"] == pytest.approx(last["loss"], rel=1e-6)


def test_durations_are_apart_from_results(finished):
  events = {row["event"] for row in finished["timing"]}
  assert events == {"compile", "train", "measure", "evaluate"}
  assert all(row["seconds"] >= 0 for row in finished["timing"])
  assert max(row["step"] for row in finished["timing"] if "step" in row) == STEPS


def test_result_holds_neither_machine_nor_time_nor_path(finished):
  text = (finished["path"] / "result.json").read_text()
  identity = (finished["path"] / "config.json").read_text()
  there = finished["environment"]
  for word in (
    platform.node(),
    str(finished["path"].parent),
    there["started"],
    "cpu",
    "Cpu",
    "scikit",
  ):
    assert word not in text and word not in identity, word
  keys = set(re.findall(r'"(\w+)":', text))
  assert not keys & {"host", "time", "seconds", "device", "devices", "path", "dir", "origin"}
  assert there["data"] == data.load("digits", limit=64).origin
  assert len(there["devices"]) == jax.device_count()
  json.loads(text, parse_constant=pytest.fail)  # neither NaN nor Infinity


def test_a_diverging_member_is_recorded_and_the_others_go_on(finished):
  gone = finished["result"]["members"][2]
  assert gone["status"] == "diverged" and gone["stopped_at"] == 1
  assert all(gone[key] is None for key in ("train", "test", "norms", "ranks", "tolerance"))
  rows = [row for row in finished["metrics"] if row["member"] == 2]
  assert [(row["step"], row["split"]) for row in rows] == [
    (0, "measure"),
    (1, "measure"),
    (1, "train"),
  ]
  assert gone["last"] == {key: pytest.approx(rows[-1][key]) for key in ("loss", "accuracy")}
  assert [m["status"] for m in finished["result"]["members"]] == ["finished"] * 2 + ["diverged"]


def test_members_together_equal_one_after_another(tmp_path, finished):
  """Alone there is neither another member nor one that diverges; member 0 is alone below."""
  assert_same(numbers(run(tmp_path, members=MEMBERS[1:2]), 0), numbers(finished, 1))


def test_a_second_run_is_equal_to_the_byte(tmp_path, finished):
  again = run(tmp_path)["path"]
  assert again.name == finished["path"].name
  for file in ("result.json", "config.json", "metrics.jsonl", "arrays.npz"):
    assert (again / file).read_bytes() == (finished["path"] / file).read_bytes(), file


def test_a_finished_run_is_read_and_not_trained(finished, monkeypatch):
  monkeypatch.setattr(experiment.program, "build", lambda *_: pytest.fail("trains again"))
  folder = finished["path"].parent.parent
  assert experiment.run(tiny(), folder, members=MEMBERS) == finished["result"]


@pytest.mark.parametrize("length", [1, 7])
def test_steps_per_call_do_not_matter(tmp_path, finished, length):
  """The default is all steps up to the next stop; both run in the same folder."""
  other = run(tmp_path, steps_per_call=length)
  assert other["path"].name == finished["path"].name
  for member in (0, 1):
    assert_same(numbers(other, member), numbers(finished, member))
  assert other["result"]["members"][2]["stopped_at"] == 1


def test_where_the_data_lie_and_when_a_checkpoint_is_saved_do_not_matter(tmp_path, finished):
  place = str(tmp_path / "images of mine")
  own = {"data.dir": place, "data.download": False, "checkpoint_every": 5}
  other = run(tmp_path, members=MEMBERS[:1], **own)
  name = experiment.run_folder(tiny(), tmp_path, MEMBERS[:1]).name
  assert other["path"].name == name
  assert_same(numbers(other, 0), numbers(finished, 0))
  assert "images of mine" not in (other["path"] / "config.json").read_text()
  assert "images of mine" not in (other["path"] / "result.json").read_text()


def test_a_small_resnet_trains_on_augmented_images(tmp_path):
  """And with one evaluation alone; a flip is another run."""
  c = tiny(batch_size=8, steps=2)
  c.model = {"name": "resnet18", "width": 4, "stage_sizes": (1,)}
  c.data.update(crop=2, flip=True, limit=16)
  del c.evaluate.spectra
  result = experiment.run(c, tmp_path)
  assert result["model"]["layers"] == ["stem/relu", "block1/relu", "pool"]
  (member,) = result["members"]
  assert math.isfinite(member["train"]["loss"]) and member["ranks"] is None
  c.data.flip = False
  assert not experiment.run_folder(c, tmp_path, [{}]).exists()


@pytest.mark.slow
def test_the_resnet18_of_cifar_trains_on_digits(tmp_path):
  root = experiment.__file__.removesuffix("rankbias/experiment.py")
  c, _ = load(f"{root}configs/cifar_T.py", "resnet18,smoke")
  c = override(c, {"data.name": "digits", "data.limit": 64, "steps": 2, "batch_size": 8})
  assert c.data.crop and c.data.flip
  result = experiment.run(c, tmp_path, members=[{"temperature": 10.0}])
  assert len(result["model"]["layers"]) == 10 and result["model"]["weight_layers"] == 18
  (member,) = result["members"]
  assert list(member["ranks"]) == [*result["model"]["layers"], "logits"]
  assert member["status"] == "finished" and math.isfinite(member["train"]["loss"])
