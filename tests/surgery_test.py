"""A run made smaller: saved, read back, the same answers; and what is refused."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from rankbias import experiment, runs, surgery
from rankbias.config import base, override
from rankbias.evaluate import cut
from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.factors import parameters

ROOT = pathlib.Path(__file__).parents[1]


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size, c.data.limit, c.steps_per_call = 30, 32, 200, 10
  c.optimizer.learning_rate = 0.05
  c.model.update(name="mlp", depth=4, width=24, use_bias=False)
  c.measure.count = 0
  del c.evaluate.spectra
  return override(c, own)


@pytest.fixture(scope="module")
def source():
  return experiment.load_data(tiny())


@pytest.fixture(scope="module")
def run(tmp_path_factory, source):
  """Two members, at temperature 1 and 3."""
  workdir = tmp_path_factory.mktemp("runs")
  members = {"temperature": 1.0}, {"temperature": 3.0}
  experiment.run(tiny(), workdir, members=members, source=source)
  (folder,) = runs.find(workdir / "tiny")
  return folder


@pytest.mark.parametrize("member", [0, 1])
def test_a_run_is_read_as_it_was_measured(run, source, member):
  found = split_accuracy(surgery.load(run, source, member), source.splits["test"])
  expected = runs.read(run)["result"]["members"][member]["test"]
  assert found["accuracy"] == expected["accuracy"]
  assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


@pytest.mark.parametrize(
  "options",
  [
    {"fraction": 0.2},
    {"ranks": {"layer2": 3, "layer3": 5}, "method": "weights"},
    {"cut": "layer2/relu"},
    {"cut": "auto", "tolerance": 0.3},
  ],
)
def test_round_trip(run, source, tmp_path, options):
  small, done = surgery.shrunk(surgery.load(run, source, 1), source, **options)
  result = surgery.save(small, tmp_path / "small", run, source, done, 1)
  again = surgery.load_small(tmp_path / "small", source)
  x = source.splits["test"]["x"][:20]
  for each in (small, again):
    assert parameters(each.params["params"], each.head_params) == result["after"]["parameters"]
  one, other = (p.log_probs(jax.jit(p.apply)(p.params, x)[0]) for p in (small, again))
  np.testing.assert_array_equal(one, other)
  assert result["after"]["parameters"] < result["before"]["parameters"] == 64 * 24 + 2 * 24**2 + 240
  assert 0 < result["saved"] < 1
  assert runs.read(tmp_path / "small")["result"]["after"] == result["after"]
  assert runs.read(tmp_path / "small")["config"]["surgery"]["run"] == run.name


def test_a_cut_after_which_layers_are_superfluous(run, source):
  whole = surgery.load(run, source)
  small, done = surgery.shrunk(whole, source, cut="auto", tolerance=0.3)
  expected = cut.superfluous_after(whole, source, 0.3)
  assert done == {"cut": expected["layer"], "superfluous_after": expected}
  named, _ = surgery.shrunk(whole, source, cut=expected["layer"])
  assert jax.tree.map(np.shape, named.params) == jax.tree.map(np.shape, small.params)
  np.testing.assert_array_equal(named.head_params["kernel"], small.head_params["kernel"])


def test_the_parameters_of_named_ranks(run, source):
  small, done = surgery.shrunk(surgery.load(run, source), source, ranks={"layer2": 3})
  assert done["ranks"] == {"layer2": 3}
  assert small.params["params"]["layer2"]["down"].shape == (24, 3)
  assert parameters(small.params["params"]) == 64 * 24 + 3 * 48 + 24**2


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"ranks": {"layer7": 2}}, "'layer7' cannot be factored; those that can: layer1, layer2"),
    ({"ranks": {"layer2": 25}}, "rank = 25 of a kernel that is 24 x 24"),
    ({"ranks": {"layer2": 20}}, "saves none of 2,928 parameters"),
    ({"cut": "layer3/relu"}, "saves none of 2,928 .* up to 'layer3/relu' and its probe have 2,938"),
    ({"cut": "layer2/relu", "tolerance": 0.1}, "tolerance=0.1 is that of cut='auto': leave it out"),
    ({"cut": "auto", "tolerance": -1}, r"tolerance=-1 must lie in \[0, 1\)"),
    ({"cut": "layer9"}, "'layer9' does not exist; the network has layer1/relu"),
    ({}, "exactly one of rtol, fraction, ranks, cut; got none"),
    ({"rtol": 0.1, "cut": "layer1/relu"}, "got rtol, cut"),
    ({"rtol": 1.5}, "rtol=1.5 must lie between 0 and 1"),
    ({"rtol": 0.1, "method": "svd"}, "method='svd' is unknown"),
  ],
)
def test_what_cannot_be_done(run, source, options, message):
  with pytest.raises(ValueError, match=message):
    surgery.shrunk(surgery.load(run, source), source, **options)


def test_folders_that_are_refused(run, source, tmp_path):
  with pytest.raises(ValueError, match="is no finished run: it has no result.json"):
    surgery.load(tmp_path, source)
  with pytest.raises(ValueError, match="member=2 is not in .*: it has 0 to 1"):
    surgery.load(run, source, 2)
  with pytest.raises(ValueError, match="holds a whole network: read it with surgery.load"):
    surgery.load_small(run, source)
  whole = surgery.load(run, source)
  small, done = surgery.shrunk(whole, source, ranks={"layer2": 2})
  surgery.save(small, tmp_path / "small", run, source, done, 0)
  with pytest.raises(ValueError, match="holds a smaller network already"):
    surgery.load(tmp_path / "small", source)
  with pytest.raises(ValueError, match="holds a network already; choose another"):
    surgery.save(small, tmp_path / "small", run, source, done, 0)


def door(*arguments):
  command = [sys.executable, ROOT / "experiments/compress.py", *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_the_door(run, tmp_path):
  done = door(run, tmp_path / "small", "--fraction=0.2", "--member=1")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("parameters 2,928 -> ")
  assert runs.is_finished(tmp_path / "small")
  failed = door(tmp_path / "nothing", tmp_path / "other", "--rtol=1e-3")
  assert failed.returncode == 1
  (line,) = failed.stderr.strip().splitlines()
  assert line.startswith("ValueError: folder ") and "is no finished run" in line
