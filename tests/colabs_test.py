"""Notebooks: short cells, no outputs, and a run from top to bottom in their smoke setting."""

import ast
import json
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
CELL_LINES = 16
# Members of each run.
TRAINED = {
  "rank_and_temperature": [2],
  "reproduce_figures": [2, 2],
  "sharp_attention": [2],
  "softmax_bottleneck": [],
  "softmax_family": [],
}


def code(path):
  return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebooks_are_there():
  assert {path.stem for path in NOTEBOOKS} == set(TRAINED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
  def test_is_valid_and_starts_with_a_title(self, path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")

  def test_holds_no_outputs(self, path):
    assert [cell.outputs for cell in code(path) if cell.outputs] == []
    assert {cell.execution_count for cell in code(path)} == {None}

  def test_imports_rankbias_and_defines_nothing_long(self, path):
    sources = [cell.source for cell in code(path)]
    assert any("import rankbias" in source for source in sources)
    for source in sources:
      assert len(source.splitlines()) <= CELL_LINES
      plain = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
      kinds = ast.FunctionDef | ast.ClassDef
      long = [n for n in ast.walk(ast.parse(plain)) if isinstance(n, kinds) and len(n.body) > 5]
      assert long == []

  def check_sliders(self, cells):
    """The cell of a widget goes on after an error of its callback, so that it is asked here."""
    for cell in cells:
      if "ipywidgets" in cell.source and cell.cell_type == "code":
        assert "error" not in {output.output_type for output in cell.outputs}
        drawn = {kind for output in cell.outputs for kind in output.get("data", {})}
        assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= drawn

  @pytest.mark.slow
  def test_runs_from_top_to_bottom(self, path, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("RANKBIAS_WORKDIR", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 3
    self.check_sliders(notebook.cells)
    results = [json.loads(result.read_text()) for result in tmp_path.rglob("result.json")]
    assert [len(result["members"]) for result in results] == TRAINED[path.stem]
