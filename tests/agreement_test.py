"""One device, four devices and two processes with two each do the same: real processes, float64."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from rankbias import runs

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "configs" / "tiny_resnet.py"


def start(workdir, *arguments, devices):
  environment = {
    **os.environ,
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "PYTHONPATH": str(ROOT),
  }
  command = [sys.executable, str(ROOT / "experiments/main.py"), f"--config={CONFIG}"]
  workdir.mkdir(parents=True, exist_ok=True)
  log = workdir / f"log{len(list(workdir.glob('log*')))}.txt"  # a full pipe would block a peer
  with open(log, "w") as output:
    process = subprocess.Popen(
      [*command, f"--workdir={workdir}", *arguments],
      env=environment,
      stdout=output,
      stderr=subprocess.STDOUT,
    )
  return process, log


def finish(started, timeout=300):
  process, log = started
  process.wait(timeout=timeout)
  assert process.returncode == 0, log.read_text()


def results(workdir):
  """All numbers of all members' results, and the spectra."""
  numbers = {}
  for folder in runs.find(workdir / "tiny_resnet"):
    run = runs.read(folder)
    flat, _ = jax.tree_util.tree_flatten_with_path(run["result"]["members"])
    numbers |= {
      f"{folder.name}{jax.tree_util.keystr(path)}": value
      for path, value in flat
      if isinstance(value, float) and "tolerance" not in jax.tree_util.keystr(path)
    }
    numbers |= {f"{folder.name}/{name}": value for name, value in run["arrays"].items()}
  return numbers


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


@pytest.mark.slow
def test_devices_and_processes_agree(tmp_path):
  for devices in (1, 4):
    finish(start(tmp_path / str(devices), devices=devices))
  job = f"--distributed=127.0.0.1:{free_port()},2,"
  pair = [start(tmp_path / "pair", job + str(rank), devices=2) for rank in (0, 1)]
  for started in pair:
    finish(started)
  one = results(tmp_path / "1")
  assert len(one) > 50
  for other in (results(tmp_path / "4"), results(tmp_path / "pair")):
    assert other.keys() == one.keys()
    for name, value in one.items():
      scale = np.max(np.abs(value))
      np.testing.assert_allclose(other[name], value, rtol=1e-9, atol=1e-9 * scale, err_msg=name)


@pytest.mark.slow
def test_when_one_process_fails_all_end_at_once(tmp_path):
  job = f"--distributed=127.0.0.1:{free_port()},2,"
  (first, log), (second, _) = (
    start(tmp_path, job + rank, "--config.steps=100000", devices=2) for rank in ("0", "1")
  )
  for _ in range(1000):
    if any((tmp_path / "tiny_resnet").glob("*/metrics.jsonl")):
      break
    with pytest.raises(subprocess.TimeoutExpired):
      second.wait(timeout=0.2)  # it must not end by itself
  second.kill()
  first.wait(timeout=60)
  assert first.returncode != 0, log.read_text()
  second.wait(timeout=10)
