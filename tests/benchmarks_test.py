"""The benchmarks run, and write the rows that they promise."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FIELDS = {
  "rank.py": {"method", "median_s", "jnp_over_this", "numpy_over_this", "error", "scratch_bytes"},
  "attention.py": {"method", "kind", "length", "median_s", "over_stream", "scratch_bytes"},
  "language_models.py": {"layer", "median_s", "over_linear", "scratch_bytes", "parameters"},
  "output_layers.py": {"layer", "median_s", "over_dense", "over_chunked", "scratch_bytes"},
  "monitor.py": {"model", "every", "step_s", "blocks_percent_median", "processor_percent_median"},
  "normalizers.py": {"benchmark", "kind", "shape", "median_s", "ratio", "compile_s", "error"},
}


@pytest.mark.slow
@pytest.mark.parametrize("script", FIELDS)
def test_quick_run(script, tmp_path):
  out = tmp_path / "rows.jsonl"
  command = [sys.executable, ROOT / "benchmarks" / script, "--quick", f"--out={out}"]
  done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert FIELDS[script] <= set().union(*rows)
  assert f"{len(rows)} rows in {out}" in done.stdout
