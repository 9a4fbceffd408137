"""The example of somebody else's training step: it learns, and needs of rankbias the ops alone."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "examples/third_party_training.py"


@pytest.fixture(scope="module")
def example():
  spec = importlib.util.spec_from_file_location("third_party_training", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.slow
def test_every_variant_learns(example, capsys):
  results = example.main(steps=100)
  assert list(results) == list(example.VARIANTS) and len(results) >= 4
  for name, row in results.items():
    assert np.isfinite(list(row.values())).all(), name
    assert row["last_loss"] < 0.3 * row["first_loss"], name
    assert row["accuracy"] > 0.8, name
    # More items compete than in training; a guess is right one time in eight.
    assert 0.3 < row["accuracy_long"] < row["accuracy"], name
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 1 + len(results)
  assert all(line.startswith(name) for line, name in zip(lines[1:], results, strict=True))


def test_labels_are_the_symbols_of_the_highest_priority(example):
  symbols, priorities, labels = map(np.asarray, example.examples(jax.random.key(0), 20, 5))
  assert symbols.shape == priorities.shape == (20, 5)
  for row in range(20):
    assert labels[row] == symbols[row, priorities[row].argmax()]


def test_it_imports_jax_optax_and_the_ops_alone():
  imported = set()
  for node in ast.walk(ast.parse(PATH.read_text())):
    if isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      imported.add(node.module)
  assert imported == {"argparse", "functools", "jax", "jax.numpy", "optax", "rankbias.ops"}


def test_a_fresh_process_loads_no_other_room():
  script = (
    f"import runpy, sys; runpy.run_path({str(PATH)!r}, run_name='imported');"
    "print(*sorted(m for m in sys.modules if m.split('.')[0] in ('rankbias', 'flax', 'orbax')))"
  )
  command = [sys.executable, "-c", script]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  loaded = done.stdout.split()
  assert "rankbias.ops" in loaded
  assert [m for m in loaded if m != "rankbias" and not m.startswith("rankbias.ops")] == []
