"""The README cannot rot: its commands parse, its paths and extras exist, its Python runs."""

import ast
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXTRACT = ROOT / ".ci" / "readme_command.py"


def run(*command):
  return subprocess.run(command, capture_output=True, text=True, check=False)


def extracted(name):
  done = run(sys.executable, EXTRACT, name)
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


def blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def setup_argument(name):
  """The value of an argument of setup()."""
  for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
    if isinstance(node, ast.keyword) and node.arg == name:
      return ast.literal_eval(node.value)
  raise KeyError(name)


@pytest.mark.parametrize("name", ["main", "test"])
class TestCommands:
  def test_is_one_line_that_bash_can_read(self, name):
    command = extracted(name)
    assert "\n" not in command
    done = run("bash", "-n", "-c", command)
    assert done.returncode == 0, done.stderr

  def test_makes_its_environment_and_uses_that(self, name):
    steps = [step.split() for step in extracted(name).split("&&")]
    assert steps[0] == ["python3", "-m", "venv", ".venv"]
    assert steps[1][0] == ".venv/bin/pip"
    assert steps[2][0] == ".venv/bin/python"

  def test_installs_extras_that_exist(self, name):
    extras = re.findall(r"\.\[([\w,]+)\]", extracted(name))
    assert set(",".join(extras).split(",")) - {""} <= set(setup_argument("extras_require"))


def test_the_test_command_runs_pytest_with_what_the_test_extra_installs():
  command = extracted("test")
  assert ".[test]" in command
  assert "-m pytest" in command
  wanted = " ".join(setup_argument("extras_require")["test"])
  assert "pytest>" in wanted
  assert "pytest-xdist" in wanted or " -n" not in command


def test_the_main_command_runs_the_main_config():
  assert extracted("main").endswith("experiments/main.py --config=configs/digits_T.py")


def test_every_command_names_files_that_exist():
  lines = [line for block in blocks("bash") for line in block.splitlines()]
  words = [word for line in lines if not line.startswith("#") for word in shlex.split(line)]
  files = {re.sub(r"^--config=|:\w+$", "", w) for w in words if re.search(r"\.py(:\w+)?$", w)}
  assert "experiments/main.py" in files
  assert [file for file in sorted(files) if not (ROOT / file).exists()] == []


def test_every_folder_and_link_exists():
  folders = re.findall(r"^\| `([\w/]+)` \|", README, re.MULTILINE)
  links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
  assert "rankbias/ops" in folders
  paths = folders + [link.split("#")[0] for link in links]
  assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_python_of_the_readme_runs():
  names = {}
  for code in blocks("python"):
    exec(compile(code, "README.md", "exec"), names)
  assert 1 <= float(names["dimensions"]) <= 10
  assert names["spectrum"].shape == (10,)


def test_an_unmarked_command_is_an_error():
  done = run(sys.executable, EXTRACT, "absent")
  assert done.returncode != 0
  assert "marks 0 commands as 'absent', expected exactly one" in done.stderr


def test_the_citation_has_the_version_of_the_package():
  from rankbias import __version__

  assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.fixture(scope="module")
def fresh_copy(tmp_path_factory):
  """A copy of the checkout that has run the main command, and what that printed."""
  folder = tmp_path_factory.mktemp("fresh")
  unwanted = (".git", ".venv*", "build", "dist", "__pycache__", "*.egg-info", ".*_cache")
  copy = shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*unwanted))
  shutil.rmtree(copy / "runs", ignore_errors=True)  # results of the user's own
  python3 = folder / "python3"  # `python3` in the command means the Python of these tests
  python3.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
  python3.chmod(0o755)
  kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "JAX", "XLA", "TF"))}
  env = kept | {"PATH": f"{folder}:{os.environ['PATH']}"}
  options = {"cwd": copy, "env": env, "capture_output": True, "text": True, "check": False}
  done = subprocess.run(["bash", "-c", extracted("main")], **options)
  again = subprocess.run(extracted("main").split("&&")[-1].split(), **options)
  shutil.rmtree(copy / ".venv")  # a gigabyte
  return copy, done, again


@pytest.mark.slow
class TestMainCommand:
  def test_ends_in_a_page_with_figures(self, fresh_copy):
    copy, done, _ = fresh_copy
    assert done.returncode == 0, done.stdout + done.stderr
    page = (copy / "runs" / "digits_T" / "report.html").read_text()
    assert page.count("<svg") >= 5

  def test_does_nothing_when_all_is_done(self, fresh_copy):
    _, _, again = fresh_copy
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout

  def test_a_high_temperature_halves_the_rank_at_equal_accuracy(self, fresh_copy):
    copy, _, _ = fresh_copy
    (result,) = (copy / "runs" / "digits_T").glob("*/result.json")
    result = json.loads(result.read_text())
    last = result["model"]["layers"][-1]
    members = {(m["temperature"], m["seed"]): m for m in result["members"]}
    for seed in (0, 1, 2):
      cold, hot = members[1.0, seed], members[1000.0, seed]
      assert cold["train"]["accuracy"] == hot["train"]["accuracy"] == 1
      assert abs(cold["test"]["accuracy"] - hot["test"]["accuracy"]) <= 0.03
      ranks = [m["ranks"][last]["covariance_rank"] for m in (hot, cold)]
      assert ranks[0] < ranks[1] / 2
