"""The example of the width of a last layer: what it counts, what it finds, and its script."""

import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples/width_from_outputs.py"
spec = importlib.util.spec_from_file_location("width_from_outputs", SCRIPT)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


def test_what_follows_is_counted():
  characters, rows = example.following("abcabdab", 2, 3)
  assert characters[:2] == ["a", "b"] and len(characters) == 3
  assert rows.shape == (2, 3)
  np.testing.assert_allclose(rows.sum(1), 1)
  np.testing.assert_allclose(sorted(rows.max(1)), [1, 1])


def test_the_width_shows_through_a_linear_head_and_not_through_others():
  targets = np.random.default_rng(0).dirichlet(np.full(24, 0.3), size=60)
  found = example.answers(jnp.asarray(targets, jnp.float32), 4, 300)
  assert set(found) == set(example.HEADS)
  lines = example.width_table(found).splitlines()
  cells = {line[:24].strip(): line[24:].split() for line in lines[1::2]}
  assert cells["linear"][:4] == ["4"] * 4
  for label in ("PLIF", "mixture of 3 softmaxes"):
    assert cells[label][:4] == ["none"] * 4


@pytest.mark.slow
def test_the_script_runs(tmp_path, capsys):
  flags = ["--width=3", "--pairs=40", "--characters=16", "--steps=30", f"--out={tmp_path}"]
  example.main(flags)
  out = capsys.readouterr().out
  assert "width found (gap)" in out and out.count("can never be first") == 7
  assert "width_from_outputs" in {path.stem for path in tmp_path.iterdir()}
