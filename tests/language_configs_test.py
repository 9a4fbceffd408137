"""The configs of language models: equal parameters, and a smoke run from a file of no licence."""

import pathlib

import jax
import numpy as np
import pytest

from rankbias import experiment, launch, runs
from rankbias.config import load, override
from rankbias.data import DatasetUnavailable
from rankbias.models import build_head, build_model

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
NAMES = ("lm_ptb", "lm_wikitext2", "lm_shakespeare")
SLOW = {"lm_ptb": 1}  # layers that are there with a second learning rate


def parameters(config):
  """How many parameters model and head have together; nothing is computed."""
  model, head = config.model.to_dict(), config.head.to_dict()
  head = build_head(head.pop("name"), model["vocabulary"], **head)
  model = build_model(model.pop("name"), **model)

  def init(tokens):
    key = jax.random.key(0)
    (features, _), variables = model.init_with_output(key, tokens, False)
    return variables["params"], head.init(key, features)["params"]

  shapes = jax.eval_shape(init, jax.ShapeDtypeStruct((1, 2), np.int32))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", NAMES)
def test_all_output_layers_have_as_many_parameters(name):
  config, sweep = load(CONFIGS / f"{name}.py")
  members = [member for member in sweep(config) if member["seed"] == 0]
  more = SLOW.get(name, 0)
  assert len(members) == 13 + more and len(sweep(config)) == 39 + 3 * more
  counts = [parameters(override(config, member)) for member in members]
  assert {member["head"]["name"] for member in members} >= {
    "linear",
    "plif",
    "mixture_of_softmaxes",
  }
  assert members[0]["head"]["name"] == "linear"
  for member, count in zip(members, counts, strict=True):
    assert abs(count / counts[0] - 1) < 0.01, (member, count)


@pytest.mark.slow
def test_the_smoke_variant_runs_from_a_small_file(tmp_path):
  folder = tmp_path / "data" / "tinyshakespeare"
  folder.mkdir(parents=True)
  letters = np.random.default_rng(0).choice(list("abc de\n"), 1500)
  (folder / "input.txt").write_text("".join(letters))
  config, _ = load(CONFIGS / "lm_shakespeare.py", "smoke")
  config.data.dir = str(tmp_path / "data")
  plan = launch.plan(f"{CONFIGS / 'lm_shakespeare.py'}:smoke", config, {}, str(tmp_path / "runs"))
  page = launch.carry_out(plan, say=lambda text: None)
  assert "perplexity" in page.read_text()
  folders = runs.find(tmp_path / "runs" / "lm_shakespeare-smoke")
  assert len(folders) == 3
  for run in map(runs.read, folders):
    (entry,) = run["result"]["members"]
    rows = [row for row in run["metrics"] if row["split"] == "valid"]
    assert [row["step"] for row in rows] == [2, 4]
    assert entry["best"]["loss"] == pytest.approx(min(row["loss"] for row in rows), rel=1e-6)
    assert entry["cross_entropy"]["valid"] == pytest.approx(entry["best"]["loss"], rel=1e-5)
    assert entry["perplexity"]["test"] == pytest.approx(np.exp(entry["cross_entropy"]["test"]))
    assert entry["log_probability_rank"]["contexts"] == 64
    assert len(run["arrays"]["0/curves/log_probabilities"]) == 7  # as many as letters


@pytest.mark.parametrize("name", NAMES[:2])
def test_without_the_files_it_is_said_what_is_needed(name, tmp_path):
  config, _ = load(CONFIGS / f"{name}.py", "smoke")
  config.data.dir = str(tmp_path / "nothing")
  with pytest.raises(DatasetUnavailable, match=r"--config.data.dir=DIR"):
    experiment.load_data(config)
