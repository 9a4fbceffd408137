"""How the code reads: a docstring for every file and public name, short files, short functions."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOPS = ("rankbias", "configs", "experiments", "benchmarks", "examples", "tests")
FILES = [ROOT / "setup.py", *(p for top in TOPS for p in sorted((ROOT / top).rglob("*.py")))]
NAMES = [p.relative_to(ROOT).as_posix() for p in FILES]

FILE_LINES, FUNCTION_LINES = 250, 60
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|ruff:|pylint:|pyright:|pragma: no cover)")


def faults(name, source):
  """What is wrong with a file, as a list of sentences."""
  found, lines, parsed = [], source.splitlines(), ast.parse(source)
  if not source.startswith(('"""', 'r"""')) or not ast.get_docstring(parsed):
    found.append("line 1 is no docstring that says what the file is")
  if len(lines) > FILE_LINES:
    found.append(f"{len(lines)} lines, {FILE_LINES} at most: split it at a noun")
  for node in ast.walk(parsed):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      length = node.end_lineno - node.lineno + 1
      if length > FUNCTION_LINES:
        found.append(f"{node.name} has {length} lines, {FUNCTION_LINES} at most")
  if name.startswith("rankbias/"):
    found += [f"public {n} has no docstring" for n in undocumented(parsed)]
  return found


def undocumented(parsed):
  """The public functions and classes of a module without a docstring."""
  kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
  public = [n for n in parsed.body if isinstance(n, kinds) and not n.name.startswith("_")]
  return [node.name for node in public if not ast.get_docstring(node)]


@pytest.mark.parametrize("name", NAMES)
def test_file(name):
  assert faults(name, (ROOT / name).read_text()) == []


def test_lint_is_switched_off_less_than_once_in_a_thousand_lines():
  lines = [line for path in FILES for line in path.read_text().splitlines()]
  suppressed = [line for line in lines if SUPPRESSION.search(line)]
  assert len(suppressed) < max(len(lines), 1000) / 1000, suppressed


def test_the_suppression_is_recognised():
  assert SUPPRESSION.search("import os  # noqa: F401")
  assert SUPPRESSION.search("x = f()  # type: ignore[arg-type]")
  assert not SUPPRESSION.search("x = 1  # noquestions")


@pytest.mark.parametrize(
  ("source", "fault"),
  [
    ("import os\n", "line 1 is no docstring"),
    ('\n"""Late."""\n', "line 1 is no docstring"),
    ('"""Long."""\n' + "x = 1\n" * 250, "251 lines, 250 at most"),
    ('"""A."""\ndef f():\n  """B."""\n' + "  x = 1\n" * 60, "f has 62 lines, 60 at most"),
    ('"""A."""\ndef f(): pass\n', "public f has no docstring"),
    ('"""A."""\nclass C:\n  x = 1\n', "public C has no docstring"),
  ],
)
def test_faults_are_found(source, fault):
  (found,) = faults("rankbias/a.py", source)
  assert fault in found


def test_a_good_file_has_none():
  good = '"""A."""\ndef f():\n  """B."""\ndef _g():\n  pass\n'
  assert faults("rankbias/a.py", good) == []
