"""The monitors in somebody else's training: they run, they print, and need rankbias.rank alone."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("monitor_plain", "monitor_linen", "monitor_nnx")
COMMON = {"argparse", "jax", "jax.numpy", "numpy", "optax", "sklearn.datasets", "rankbias.rank"}
OWN = {"monitor_linen": {"flax"}, "monitor_nnx": {"flax"}}


def path(name):
  return ROOT / f"examples/{name}.py"


def load(name):
  spec = importlib.util.spec_from_file_location(name, path(name))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def check(rows, steps, layers):
  assert [row["step"] for row in rows] == [step for step in steps for _ in layers]
  assert [row["layer"] for row in rows[: len(layers)]] == layers
  for row in rows:
    assert all(1 <= row[name] <= 64 for name in row if name not in ("step", "layer"))


@pytest.mark.slow
def test_plain_functions_lose_rank_at_high_temperature(capsys):
  found = load("monitor_plain").main(steps=300)
  last = {}
  for temperature, rows in found.items():
    layers = [*(f"layer{i}" for i in range(1, 6)), "logits"]
    check(rows, [0, 100, 200, 300], layers)
    last[temperature] = rows[-2]["covariance_rank"]
  assert last[100.0] < 0.6 * last[1.0]
  out = capsys.readouterr().out
  assert out.count("covariance_rank") == 2 and "T = 100" in out


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "layers"),
  [
    ("monitor_linen", [f"{n}/__call__" for n in ("conv1", "conv2", "hidden", "head")]),
    ("monitor_nnx", ["first", "second", "third"]),
  ],
)
def test_flax_networks_are_measured_while_they_learn(name, layers, capsys):
  rows = load(name).main(steps=60)
  check(rows, [0, 50], layers)
  first, last = rows[: len(layers)], rows[-len(layers) :]
  for before, after in zip(first, last, strict=True):
    assert before["effective_rank"] != after["effective_rank"], before["layer"]
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("loss ") and float(lines[0].split()[1]) < 2.2
  assert lines[1].split()[1:] == layers and len(lines) == 4


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_no_other_room(name):
  imported = set()
  for node in ast.walk(ast.parse(path(name).read_text())):
    if isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      imported.add(node.module)
  assert imported - COMMON == OWN.get(name, set())


def test_a_fresh_process_loads_the_ranks_alone():
  script = (
    f"import runpy, sys; runpy.run_path({str(path('monitor_plain'))!r}, run_name='imported');"
    "print(*sorted(m for m in sys.modules if m.split('.')[0] in ('rankbias', 'flax', 'orbax')))"
  )
  command = [sys.executable, "-c", script]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  loaded = done.stdout.split()
  assert "rankbias.rank.monitor" in loaded
  assert [m for m in loaded if m != "rankbias" and not m.startswith("rankbias.rank")] == []
