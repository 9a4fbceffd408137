"""The run folder: names, atomic writing, resuming after a kill, and what happens to bad folders."""

import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest

from rankbias import runs

ROOT = pathlib.Path(runs.__file__).resolve().parents[2]
CONFIG = {"model": {"name": "mlp", "width": 256}, "optimizer": {"learning_rate": 0.02}, "steps": 4}
MEMBERS = [{"temperature": t, "seed": s} for t in (1.0, 10.0) for s in range(3)]


def python(code: str, path: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
  """Runs code in a process of its own, which imports rankbias from `path`."""
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    cwd=path,
    env=os.environ | {"PYTHONPATH": str(path)},
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.fixture
def folder(tmp_path):
  return runs.prepare(
    tmp_path / "job" / "run", name="job", config=CONFIG, members=MEMBERS, environment={"host": "a"}
  )


def test_a_finished_run_reads_back_what_was_written(folder):
  runs.append(
    folder, [{"step": 0, "member": 0, "loss": np.float32(0.5)}, {"step": 2, "loss": math.nan}]
  )
  runs.append(folder, [{"event": "train", "seconds": 1.5}], file="timing.jsonl")
  assert not runs.is_finished(folder)
  assert runs.read(folder)["result"] is None
  spectrum = np.array([3.0, 1.0, 1e-30])
  runs.finish(folder, {"members": [{"loss": math.inf}]}, {"0/spectrum/layer1/relu": spectrum})
  run = runs.read(folder)
  assert runs.is_finished(folder)
  assert run["config"] == CONFIG
  assert run["members"] == MEMBERS
  assert run["environment"] == {"host": "a"}
  assert run["metrics"] == [{"step": 0, "member": 0, "loss": 0.5}, {"step": 2, "loss": None}]
  assert run["timing"] == [{"event": "train", "seconds": 1.5}]
  assert run["result"] == {"members": [{"loss": None}]}
  np.testing.assert_array_equal(run["arrays"]["0/spectrum/layer1/relu"], spectrum)


def test_result_and_arrays_are_the_same_bytes_every_time(folder, tmp_path):
  other = runs.prepare(tmp_path / "b", name="job", config=CONFIG, members=MEMBERS, environment={})
  for each in (folder, other):
    runs.finish(each, {"loss": 0.1}, {"0/spectrum/logits": np.arange(3.0)})
  for file in ("result.json", "arrays.npz"):
    assert (folder / file).read_bytes() == (other / file).read_bytes()


def test_find_lists_run_folders_in_order(tmp_path):
  for name in ("b", "a", "c"):
    runs.prepare(tmp_path / name, name="job", config={}, members=[{}], environment={})
  (tmp_path / "figures").mkdir()
  assert [path.name for path in runs.find(tmp_path)] == ["a", "b", "c"]
  assert runs.find(tmp_path / "nowhere") == []


def test_trim_drops_later_rows_and_the_torn_last_line(folder):
  runs.append(folder, [{"step": s} for s in (0, 1, 2, 3)])
  runs.append(folder, [{"event": "train", "seconds": 1.0, "step": 3}], file="timing.jsonl")
  for file in ("metrics.jsonl", "timing.jsonl"):
    with open(folder / file, "a") as f:
      f.write('{"step": 4, "lo')
  assert [row["step"] for row in runs.read(folder)["metrics"]] == [0, 1, 2, 3]
  runs.trim(folder, 2)
  runs.append(folder, [{"step": 3}])
  assert (
    folder / "metrics.jsonl"
  ).read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n{"step": 3}\n'
  assert [row["step"] for row in runs.read(folder)["timing"]] == [3]
  runs.trim(folder, -1)
  assert runs.read(folder)["metrics"] == []


def test_a_kill_between_the_arrays_and_the_result_leaves_an_unfinished_run(folder):
  done = python(f"""
    import os, signal
    from rankbias import runs
    replace = os.replace
    def killed(source, target):
      if str(target).endswith("result.json"):
        os.kill(os.getpid(), signal.SIGKILL)
      replace(source, target)
    os.replace = killed
    runs.finish({str(folder)!r}, {{"loss": 1.0}}, {{"0/spectrum/logits": [1.0]}})
  """)
  assert done.returncode == -signal.SIGKILL
  assert (folder / "arrays.npz").exists()
  assert not runs.is_finished(folder)
  assert runs.read(folder)["arrays"] == {}
  runs.finish(folder, {"loss": 1.0}, {"0/spectrum/logits": np.array([2.0])})
  assert runs.read(folder)["arrays"]["0/spectrum/logits"] == [2.0]
  assert not list(folder.glob(".*"))


def test_resuming_keeps_the_run_and_records_both_environments(folder):
  before = (folder / "config.json").read_bytes()
  for host in ("b", "c"):
    runs.prepare(folder, name="job", config=CONFIG, members=MEMBERS, environment={"host": host})
  assert (folder / "config.json").read_bytes() == before
  assert runs.read(folder)["environment"] == {
    "host": "c",
    "earlier": [{"host": "a"}, {"host": "b"}],
  }
  runs.finish(folder, {}, {})
  runs.prepare(folder, name="job", config=CONFIG, members=MEMBERS, environment={"host": "d"})
  assert runs.read(folder)["environment"]["host"] == "c"


def test_environment_is_json_and_imports_no_jax():
  done = python("""
    import json, sys
    from rankbias import runs
    print(json.dumps(runs.environment(["TFRT_CPU_0"])))
    assert not {"jax", "flax", "optax", "matplotlib"} & set(sys.modules)
  """)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  assert found["versions"]["python"].startswith("3.")
  assert found["versions"]["numpy"] == np.__version__
  assert found["devices"] == ["TFRT_CPU_0"]
  assert found["command"].startswith("python")
  head = subprocess.run(
    ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
  )
  if (ROOT / ".git").exists() and head.returncode == 0:
    assert found["git"]["commit"] == head.stdout.strip()
  else:
    assert found["git"] is None


def test_environment_outside_a_checkout_has_no_commit(tmp_path):
  shutil.copytree(ROOT / "rankbias" / "runs", tmp_path / "rankbias" / "runs")
  (tmp_path / "rankbias" / "__init__.py").write_text('__version__ = "9"\n')
  done = python(
    "from rankbias import runs; e = runs.environment(); print(e['versions']['rankbias'], e['git'])",
    path=tmp_path,
  )
  assert done.stdout.split() == ["9", "None"], done.stderr


def test_a_folder_of_another_run_is_refused_and_left_alone(folder):
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  other = CONFIG | {"optimizer": {"learning_rate": 0.1}}
  with pytest.raises(
    ValueError, match=r"(?s)optimizer\.learning_rate: 0\.1 here, 0\.02 there.*--workdir"
  ):
    runs.prepare(folder, name="job", config=other, members=MEMBERS, environment={"host": "b"})
  with pytest.raises(ValueError, match=r'name: "other" here, "job" there'):
    runs.prepare(folder, name="other", config=CONFIG, members=MEMBERS, environment={})
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_below_a_file_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(
    ValueError, match=r"file/run' cannot be written \(Not a directory.*--workdir=DIR"
  ):
    runs.prepare(tmp_path / "file" / "run", name="job", config={}, members=[{}], environment={})


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_folder_without_write_permission_is_refused():
  with tempfile.TemporaryDirectory() as root:
    os.chmod(root, 0o555)  # root ignores this, hence the process that gives up being root
    done = python(f"""
      import os
      from rankbias import runs
      if os.getuid() == 0:
        os.setuid(65534)
      runs.prepare({root + "/run"!r}, name="job", config={{}}, members=[{{}}], environment={{}})
    """)
    assert done.returncode == 1
    assert (
      f"ValueError: workdir: folder '{root}/run' cannot be written (Permission denied"
      in done.stderr
    )
    assert "--workdir=DIR" in done.stderr
    assert os.listdir(root) == []


def test_a_damaged_file_is_named(folder):
  (folder / "metrics.jsonl").write_text('{"step": 0}\n{"st\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r"line 2 of .*metrics\.jsonl"):
    runs.read(folder)
  (folder / "config.json").write_text('{"name"')
  with pytest.raises(ValueError, match=r"config\.json' is not valid JSON"):
    runs.read(folder)
  with pytest.raises(ValueError, match=r"holds no run: it has no config\.json"):
    runs.read(folder.parent)


def test_a_value_that_json_cannot_hold_is_named_by_its_field(tmp_path):
  with pytest.raises(ValueError, match=r"field 'config\.optimizer\.schedule\[1\]' is .*JSON"):
    runs.prepare(
      tmp_path / "run",
      name="job",
      config={"optimizer": {"schedule": [0, object()]}},
      members=[{}],
      environment={},
    )
  assert not (tmp_path / "run").exists()
