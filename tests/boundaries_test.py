"""Who may import whom: the arrows between the rooms, held against every import statement."""

import ast
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# These are all the arrows between the rooms of rankbias. Doors may open on any of them.
GROUND = {room: set() for room in ("ops", "rank", "data", "train", "runs", "config")}
BUILT = {"models": {"ops"}, "evaluate": {"ops", "rank"}, "report": {"runs"}, "gp": {"ops"}}
BELOW = {"models", "evaluate", "ops", "data", "train", "runs", "config"}
WIRING = {
  "network": {"models", "data", "train"},
  "program": BELOW | {"network"},
  "record": {"program", "runs", "data", "evaluate", "train"},
  "result": {"evaluate", "train"},
  "selection": {"program", "record", "data", "evaluate", "train"},
  "warm_start": {"runs", "train"},
  "experiment": BELOW | {"program", "record", "result", "selection", "warm_start"},
  "sweep": BELOW | {"network", "experiment"},
  "command": {"config"},
  "launch": BELOW | {"program", "record", "experiment", "sweep", "report"},
  "surgery": {"network", "evaluate", "train", "runs", "config"},
}
ARROWS = {"__init__": set(), **GROUND, **BUILT, **WIRING, "configs": {"config"}}
DOORS = {"experiments", "colabs", "benchmarks", "examples"}
RECIPES = {"configs", "tests", *DOORS}

PURE = {"jax", "numpy", "scipy", "jaxtyping"}  # all that ops and rank stand on
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}  # what brings jax along
WITHOUT_JAX = {"configs", "report", "runs", "config"}
NO_NOUN = {"utils", "util", "helpers", "helper", "common", "misc"}


def room_of(path):
  """The room of a file: rankbias/ops/softmax.py is in ops, rankbias/runs.py is runs."""
  parts = pathlib.PurePosixPath(path).with_suffix("").parts
  return parts[1] if parts[0] == "rankbias" else parts[0]


def imports(path, source):
  """Every (module, imported name or None) of a file, also in functions, relative and dynamic."""
  package = pathlib.PurePosixPath(path).parent.parts
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) - node.level + 1] if node.level else ()
      module = ".".join([*base, *([node.module] if node.module else [])])
      yield from ((module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
      name = getattr(node.func, "attr", getattr(node.func, "id", ""))
      if name in ("import_module", "__import__"):
        yield str(node.args[0].value), None


def violations(files):
  """The complaints about a tree {path: source}, empty when every arrow is one of the design."""
  return [
    complaint for path, source in files.items() for complaint in complaints(path, source, files)
  ]


def complaints(path, source, files):
  parts = pathlib.PurePosixPath(path).with_suffix("").parts
  words = {word for part in parts for word in part.split("_")}
  for word in sorted(words & NO_NOUN):
    yield f"{path}: {word!r} is no noun: name the file after what it holds"
  room = room_of(path)
  if parts[0] == "tests":
    return
  if parts[0] == "rankbias" and room not in ARROWS:
    yield f"{path}: the design has no room {room!r}"
    return
  for module, name in imports(path, source):
    reason = refusal(path, room, module, name, files)
    if reason:
      yield f"{path}: {room} imports {module}{'.' + name if name else ''}: {reason}"


def refusal(path, room, module, name, files):
  """Why this import is not allowed, or None."""
  top = module.split(".")[0]
  if top == "rankbias":
    return refused_arrow(room, module, name)
  inside = path.startswith("rankbias/")
  if room == "__init__" and inside:
    return "rankbias/__init__.py imports nothing"
  if inside and top in RECIPES:
    return "recipes know the kitchen, not the reverse"
  siblings = {pathlib.PurePosixPath(p).stem for p in files if p.startswith("configs/")}
  if room == "configs" and top in siblings | {"configs"}:
    return "configs do not import each other"
  if room in WITHOUT_JAX and top in JAX:
    return "this room works without jax"
  if room in ("ops", "rank") and top not in PURE | sys.stdlib_module_names:
    return f"ops and rank stand on {', '.join(sorted(PURE))} and the standard library alone"
  return (
    "TensorFlow and PyTorch are never needed" if top in ("tensorflow", "torch") and inside else None
  )


def refused_arrow(room, module, name):
  target = module.split(".")[1] if "." in module else name
  if target is None or target == "__version__" or room in DOORS or target == room:
    return None
  allowed = ARROWS.get(room, set())
  return None if target in allowed else f"allowed are {sorted(allowed) or 'none'}"


def tree():
  tops = ["rankbias", *sorted(RECIPES)]
  paths = [p for top in tops for p in sorted((ROOT / top).rglob("*.py"))]
  return {str(p.relative_to(ROOT).as_posix()): p.read_text() for p in paths}


def test_every_import_is_an_arrow_of_the_design():
  files = tree()
  assert len(files) > 10
  assert violations(files) == []


def test_pmap_is_spelled_once():
  spelled = [path for path, source in tree().items() if spells_pmap(path, source)]
  assert spelled == ["rankbias/train/parallel.py"]
  assert spells_pmap("rankbias/a.py", "f = jax.pmap(g)")
  assert spells_pmap("rankbias/a.py", "from jax import pmap")
  assert not spells_pmap("rankbias/a.py", "f = parallel.pmap(g)")


def spells_pmap(path, source):
  """Whether a file of the package takes pmap from jax itself."""
  nodes = ast.walk(ast.parse(source))
  uses = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
  return path.startswith("rankbias/") and (
    "jax.pmap" in uses or ("jax", "pmap") in set(imports(path, source))
  )


@pytest.mark.parametrize(
  ("path", "line"),
  [
    ("rankbias/ops/a.py", "import jax.numpy as jnp, numpy, functools"),
    ("rankbias/ops/a.py", "from rankbias.ops.softmax import softmax"),
    ("rankbias/ops/a.py", "from .softmax import softmax"),
    ("rankbias/models/heads.py", "from rankbias import ops"),
    ("rankbias/evaluate/spectra.py", "from rankbias import ops, rank"),
    ("rankbias/report/page.py", "import matplotlib; from .. import runs"),
    ("rankbias/runs.py", "from rankbias import __version__"),
    ("rankbias/sweep.py", "from rankbias.experiment import run"),
    ("rankbias/experiment.py", "from rankbias import data, program, runs"),
    ("rankbias/data/tfds.py", "def f():\n  import tensorflow_datasets"),
    ("configs/a.py", "from rankbias.config import product; import ml_collections"),
    ("experiments/main.py", "from rankbias import sweep; import jax"),
  ],
)
def test_allowed(path, line):
  assert violations({path: line}) == []


@pytest.mark.parametrize(
  ("path", "line", "message"),
  [
    (
      "rankbias/ops/a.py",
      "from rankbias import rank",
      "imports rankbias.rank: allowed are none",
    ),
    ("rankbias/rank/a.py", "import rankbias.ops.softmax", "rank imports rankbias.ops.softmax"),
    ("rankbias/ops/a.py", "def f():\n  import flax", "ops imports flax: ops and rank stand on"),
    ("rankbias/rank/a.py", "from sklearn import svm", "rank imports sklearn.svm: ops and rank"),
    ("rankbias/ops/a.py", "from ..data import load", "ops imports rankbias.data.load"),
    ("rankbias/models/a.py", "from .. import data", "models imports rankbias.data"),
    (
      "rankbias/models/a.py",
      "from rankbias.train.loop import fit",
      "imports rankbias.train",
    ),
    ("rankbias/models/a.py", "from rankbias import ops, rank", "models imports rankbias.rank"),
    ("rankbias/evaluate/a.py", "import rankbias.models", "evaluate imports rankbias.models"),
    ("rankbias/train/a.py", "from rankbias import ops", "train imports rankbias.ops"),
    ("rankbias/train/a.py", "from ..evaluate import f", "train imports rankbias.evaluate.f"),
    ("rankbias/data/a.py", "from rankbias import runs", "data imports rankbias.runs"),
    ("rankbias/experiment.py", "def f():\n  from rankbias import sweep", "imports rankbias.sweep"),
    ("rankbias/program.py", "from rankbias import experiment", "imports rankbias.experiment"),
    ("rankbias/surgery.py", "from rankbias import data", "surgery imports rankbias.data"),
    ("rankbias/gp.py", "from . import rank", "gp imports rankbias.rank"),
    ("rankbias/experiment.py", "import configs.digits_T", "recipes know the kitchen"),
    ("rankbias/report/a.py", "from tests import conftest", "recipes know the kitchen"),
    ("rankbias/report/a.py", "import jax", "report imports jax: this room works without jax"),
    ("rankbias/runs.py", "def f():\n  import jax", "this room works without jax"),
    ("rankbias/config.py", "import optax", "this room works without jax"),
    ("rankbias/__init__.py", "from rankbias import ops", "__init__ imports rankbias.ops"),
    ("rankbias/__init__.py", "import jax", "imports nothing"),
    ("rankbias/data/a.py", "import tensorflow as tf", "never needed"),
    ("rankbias/models/a.py", "f = importlib.import_module('rankbias.data')", "rankbias.data"),
    ("rankbias/toolbox/a.py", "import os", "the design has no room 'toolbox'"),
    ("rankbias/ops/utils.py", "", "'utils' is no noun"),
    ("tests/data/common/a_test.py", "", "'common' is no noun"),
    ("rankbias/train/train_helpers.py", "", "'helpers' is no noun"),
    ("configs/a.py", "import jax.numpy as jnp", "this room works without jax"),
    ("configs/a.py", "def get_config():\n  import flax", "this room works without jax"),
    ("configs/a.py", "from rankbias import data", "allowed are ['config']"),
    ("configs/a.py", "from configs import digits_T", "configs do not import each other"),
    ("configs/a.py", "import b", "configs do not import each other"),
    ("configs/a.py", "from . import b", "configs do not import each other"),
  ],
)
def test_forbidden(path, line, message):
  found = violations({path: line, "configs/b.py": ""})
  assert len(found) == 1
  assert message in found[0]


@pytest.mark.parametrize(
  ("module", "foreign"),
  [
    ("rankbias", "jax numpy"),
    ("rankbias.ops", "flax optax orbax tensorflow_datasets ml_collections absl rankbias.rank"),
    ("rankbias.rank", "flax optax orbax tensorflow_datasets ml_collections absl rankbias.ops"),
    ("rankbias.models", "tensorflow_datasets optax rankbias.data rankbias.train rankbias.rank"),
    ("rankbias.data", "tensorflow_datasets tensorflow flax optax"),
    ("rankbias.runs", "jax flax optax"),
    ("rankbias.config", "jax flax optax"),
    ("rankbias.report", "jax flax optax"),
  ],
)
def test_a_fresh_process_loads_nothing_foreign(module, foreign):
  if not any((ROOT / (module.replace(".", "/") + end)).exists() for end in (".py", "/__init__.py")):
    pytest.skip(f"{module} is not there")
  script = f"""
    import sys
    import {module}
    loaded = set({foreign.split()!r}) & set(sys.modules)
    sys.exit(f"{module} loads {{sorted(loaded)}}" if loaded else 0)
  """
  command = [sys.executable, "-c", textwrap.dedent(script)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
