"""From the command line to folders: fallback, dry run, sweep grouping, and errors before work."""

import importlib
import math
import pathlib
import shutil

import pytest

from rankbias import data, experiment, launch, runs, sweep
from rankbias.config import load, override

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def run(path, arg, overrides, workdir, **options):
  """Launches a config as experiments/main.py does; returns what was said."""
  config, _ = load(path, arg)
  said = []
  planned = launch.plan(
    f"{path}:{arg}", override(config, overrides), overrides, str(workdir), **options
  )
  if options.get("dry_run"):
    return launch.describe(planned, said.append), "\n".join(said)
  return launch.carry_out(planned, say=said.append), "\n".join(said)


@pytest.fixture
def no_cifar(monkeypatch):
  """A machine with neither the data nor a network."""
  real = data.load

  def load_data(name, **options):
    if name == "digits":
      return real(name, **options)
    raise data.DatasetUnavailable(
      name, folder="nowhere", reason="No network in this test.", remedies="None."
    )

  monkeypatch.setattr(data, "load", load_data)


@pytest.mark.slow
def test_fallback_runs_the_whole_other_recipe_in_a_folder_of_its_own(tmp_path, no_cifar):
  page, said = run(CONFIGS / "cifar_T.py", "smoke", {"steps": 3}, tmp_path)
  assert page == tmp_path / "cifar_T-smoke-fallback-digits" / "report.html"
  (folder,) = runs.find(page.parent)
  read = runs.read(folder)
  assert read["result"]["data"]["name"] == "digits"
  expected = load(CONFIGS / "digits_T.py", "smoke")[0]
  assert read["config"]["steps"] == expected.steps
  assert read["members"] == load(CONFIGS / "digits_T.py", "smoke")[1](expected)
  lines = said.splitlines()
  assert "NOT cifar10" in lines[0] and lines[-1] == lines[0] and "Ignored: steps" in lines[0]
  assert not (tmp_path / "cifar_T-smoke").exists()


def test_without_fallback_missing_data_are_an_error(tmp_path, no_cifar):
  with pytest.raises(data.DatasetUnavailable, match="No network in this test"):
    run(CONFIGS / "cifar_T.py", "smoke", {"data.fallback": "None"}, tmp_path)
  assert not any(tmp_path.iterdir())


def test_dry_run_lists_members_and_trains_nothing(tmp_path):
  page, said = run(CONFIGS / "digits_T.py", "", {}, tmp_path, dry_run=True)
  assert page is None and not any(tmp_path.iterdir())
  assert "12 members of 412,160 parameters, 4000 steps of 128 images" in said
  assert "temperature=1000.0, seed=2, learning rate after its rule=0.112468" in said
  assert " MiB" in said


def test_an_override_replaces_its_axis_and_sweep_false_runs_one(tmp_path):
  _, said = run(CONFIGS / "digits_T.py", "", {"temperature": 3.0}, tmp_path, dry_run=True)
  assert "3 members" in said and "seed=2" in said and "temperature=1.0" not in said
  assert "/temperature=3_seed=0-2-" in said  # the folder's name shows it
  _, said = run(CONFIGS / "digits_T.py", "", {}, tmp_path, dry_run=True, use_sweep=False)
  assert "1 member of" in said


def test_members_share_a_program_unless_they_differ_in_structure_or_convolve():
  config, _ = load(CONFIGS / "digits_T.py")
  numbers = [{"temperature": t, "optimizer.learning_rate": 0.1} for t in (1.0, 2.0)]
  assert [len(g.members) for g in sweep.group(config, numbers, "w")] == [2]
  both = [{**n, "model.width": w} for n in numbers for w in (32, 64)]
  groups = sweep.group(config, both, "w")
  assert [len(g.members) for g in groups] == [2, 2]
  assert [g.config.model.width for g in groups] == [32, 64]
  assert len({g.folder for g in groups}) == 2
  config.members_per_program = 1
  assert len(sweep.group(config, both, "w")) == 4
  config, _ = load(CONFIGS / "cifar_T.py", "resnet18,smoke")
  assert [len(g.members) for g in sweep.group(config, [{"seed": 0}, {"seed": 1}], "w")] == [1, 1]


def test_the_folder_does_not_depend_on_the_machine():
  config, _ = load(CONFIGS / "digits_T.py")
  here = experiment.run_folder(config, "w", [{}])
  there = override(config, {"data.dir": "/data", "checkpoint_every": 7, "data.download": False})
  assert experiment.run_folder(there, "w", [{}]) == here
  assert experiment.run_folder(override(config, {"steps": 5}), "w", [{}]) != here


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"temperature": 0.0}, "temperature=0.0 must be a finite number > 0"),
    ({"temperature": -1.0}, "temperature=-1.0 must be a finite number > 0"),
    ({"model.name": "mpl"}, "model.name='mpl' is unknown; .*did you mean 'mlp'"),
    ({"data.name": "cifar"}, "data.name='cifar' is unknown; .*did you mean 'cifar10'"),
    ({"batch_size": 30}, "batch_size=30 does not divide over 4 devices; use 28 or 32"),
    ({"optimizer.name": "sdg"}, "optimizer.name='sdg' is unknown"),
    ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate=-1.0"),
    ({"steps": 0}, "steps=0 must be at least 1"),
    ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ({"dtype": "float64"}, "JAX_ENABLE_X64=1"),
    ({"model.width": -3}, "width"),
    ({"seed": -1}, "seed=-1 must lie in"),
    ({"seed": 2**32}, "seed=4294967296 must lie in"),
    ({"init_scale": math.nan}, "init_scale=nan must be a finite number > 0"),
    ({"measure.images": 0}, "measure.images=0 must be at least 1"),
    ({"measure.count": -1}, "measure.count=-1 must be at least 0"),
    ({"members_per_program": -1}, "members_per_program=-1 must be at least 0"),
    ({"steps_per_call": -1}, "steps_per_call=-1 must be at least 0"),
    ({"checkpoint_every": -5}, "checkpoint_every=-5 must be at least 0"),
    ({"data.crop": -1}, "data.crop=-1 must be at least 0"),
    ({"data.limit": -1}, "data.limit=-1 must be at least 0"),
    ({"evaluate.spectra.images": 0}, "evaluate.spectra.images=0 must be at least 1"),
    ({"optimizer.head_learning_rate": -1.0}, "optimizer.head_learning_rate=-1.0"),
    ({"head": {"name": "plif", "knots": 1}}, "num_knots = 1 must be at least 2"),
    ({"head": {"name": "linear", "bais": True}}, "no known option of head 'linear'"),
    ({"head": {"name": "mixture_of_softmaxes", "components": 0}}, "components=0 must be at least"),
  ],
)
def test_bad_configs_are_refused_before_anything_happens(tmp_path, overrides, message):
  with pytest.raises(ValueError, match=message):
    run(CONFIGS / "digits_T.py", "smoke", overrides, tmp_path)
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("spectra", {"imags": 3}, "evaluate.spectra.imags is unknown; use images, max_features, split"),
    ("accuracy", {"images": 3}, "evaluate.accuracy.images is unknown; use no option"),
    ("spectrum", {}, "evaluate.spectrum is unknown; use accuracy, spectra"),
  ],
)
def test_unknown_evaluations_and_options_are_refused_before_training(
  tmp_path, name, options, message
):
  config, _ = load(CONFIGS / "digits_T.py", "smoke")
  config.evaluate[name] = options
  with pytest.raises(ValueError, match=message):
    sweep.run(config, [{}], tmp_path)
  assert not any(tmp_path.iterdir())


def test_members_that_diverge_are_said(tmp_path, monkeypatch):
  config, _ = load(CONFIGS / "digits_T.py", "smoke")
  members = [{"temperature": t, "seed": 0} for t in (1.0, 2.0)]
  ends = [{"status": "finished"}, {"status": "diverged", "stopped_at": 7}]
  result = {"members": [{"overrides": m, **e} for m, e in zip(members, ends, strict=True)]}
  monkeypatch.setattr(experiment, "run", lambda *args, **options: result)
  said = []
  sweep.run(config, members, tmp_path, source=object(), say=said.append)
  assert said == ["diverged at step 7: temperature=2.0, seed=0"]


def test_a_bad_member_stops_the_sweep_before_the_first_one(tmp_path):
  config, _ = load(CONFIGS / "digits_T.py", "smoke")
  with pytest.raises(ValueError, match=r"temperature=-3.0"):
    sweep.run(config, [{"temperature": 1.0}, {"temperature": -3.0}], tmp_path)
  assert not any(tmp_path.iterdir())


def test_unwritable_workdir_is_refused_before_training(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="cannot be written .*--workdir"):
    run(CONFIGS / "digits_T.py", "smoke", {}, tmp_path / "file")


def test_resume_of_another_run_changes_nothing(tmp_path):
  run(CONFIGS / "digits_T.py", "smoke", {}, tmp_path)
  (folder,) = runs.find(tmp_path / "digits_T-smoke")
  before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
  with pytest.raises(ValueError, match=r"config.steps: 7 here, 40 there"):
    run(CONFIGS / "digits_T.py", "smoke", {"steps": 7}, tmp_path, resume=str(folder))
  assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
  _, said = run(CONFIGS / "digits_T.py", "smoke", {}, tmp_path, resume=str(folder))
  assert "finished already" in said
  shutil.rmtree(folder)
  with pytest.raises(ValueError, match="holds no run"):
    run(CONFIGS / "digits_T.py", "smoke", {}, tmp_path, resume=str(folder))


def test_main_is_importable_and_short():
  spec = importlib.util.spec_from_file_location("main", CONFIGS.parent / "experiments" / "main.py")
  assert spec is not None
  text = (CONFIGS.parent / "experiments" / "main.py").read_text()
  assert text.count("\n") < 60
