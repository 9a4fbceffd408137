"""A run killed at any moment ends, started again, with the result of one never killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rankbias import runs

ROOT = pathlib.Path(__file__).parent.parent
OPTIONS = ("--config.checkpoint_every=5", "--config.steps=60", "--config.steps_per_call=4")


def command(workdir, *more):
  main = ROOT / "experiments" / "main.py"
  config = ROOT / "configs" / "digits_T.py"
  return [
    *(sys.executable, str(main), f"--config={config}:smoke", f"--workdir={workdir}"),
    *(*OPTIONS, *more),
  ]


def start(workdir, *more):
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.Popen(
    command(workdir, *more),
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  output, _ = process.communicate(timeout=200)
  assert process.returncode == 0, output
  return output


def only_folder(workdir):
  (folder,) = runs.find(workdir / "digits_T-smoke")
  return folder


def wait_for(condition, process):
  """Waits until the condition holds, at most a minute; fails if the process ends before."""
  for _ in range(6000):
    if condition():
      return
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.01)
  raise AssertionError("the moment to kill never came")


def logged(workdir, step):
  """True once metrics.jsonl holds a row of `step`."""
  paths = list(workdir.glob("*/*/metrics.jsonl"))
  return bool(paths) and f'"step": {step},' in paths[0].read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  finish(start(workdir))
  return only_folder(workdir)


def same(folder, other, rows=True):
  assert (folder / "result.json").read_bytes() == (other / "result.json").read_bytes()
  assert (folder / "arrays.npz").read_bytes() == (other / "arrays.npz").read_bytes()
  if rows:
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_sigkill_at_several_moments(tmp_path, uninterrupted):
  moments = [
    lambda: any(tmp_path.glob("*/*/config.json")),  # before anything is trained
    lambda: logged(tmp_path, 0),  # after the first measurement
    lambda: any(tmp_path.glob("*/*/checkpoints/5*")),  # while a checkpoint is being written
    lambda: logged(tmp_path, 32),
    lambda: logged(tmp_path, 60),  # trained, not evaluated
    lambda: any(tmp_path.glob("*/*/*arrays.npz*")),  # while the result is being written
  ]
  killed = 0
  for moment in moments:
    process = start(tmp_path)
    wait_for(moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed += not runs.is_finished(only_folder(tmp_path))
  assert killed >= len(moments) - 1  # the last kill may come too late
  finish(start(tmp_path))
  same(only_folder(tmp_path), uninterrupted)


@pytest.mark.slow
def test_sigterm_checkpoints_and_a_finished_run_is_left_alone(tmp_path, uninterrupted):
  process = start(tmp_path)
  wait_for(lambda: logged(tmp_path, 12), process)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=100)
  assert process.returncode == 1
  assert "Interrupted: stopped on request after" in output
  assert "continues from step" in finish(start(tmp_path))
  same(only_folder(tmp_path), uninterrupted, rows=False)  # running means start anew at the stop
  before = {path: path.stat().st_mtime_ns for path in only_folder(tmp_path).rglob("*")}
  output = finish(start(tmp_path))
  assert "finished already" in output
  after = {path: path.stat().st_mtime_ns for path in only_folder(tmp_path).rglob("*")}
  assert before == after


@pytest.mark.slow
def test_resume_of_another_configs_run_lists_the_differences(tmp_path, uninterrupted):
  process = start(tmp_path, f"--resume={uninterrupted}", "--config.optimizer.learning_rate=0.5")
  output, _ = process.communicate(timeout=100)
  assert process.returncode != 0
  assert "config.optimizer.learning_rate: 0.5 here, 0.02 there" in output
  assert "Nothing was changed" in output
  assert "finished already" in finish(start(tmp_path, f"--resume={uninterrupted}"))
