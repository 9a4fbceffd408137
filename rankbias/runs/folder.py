"""A run's folder: made, appended to, finished and read back.

Every file except the two append-only logs is written to a temporary name and renamed, so a reader
(or a process killed at any moment) sees the old content or the new one, never half of it.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from rankbias.runs.identity import differences, plain

PathLike = str | os.PathLike


def prepare(
  folder: PathLike, *, name: str, config: Mapping, members: Sequence[Mapping], environment: Mapping
) -> pathlib.Path:
  """Makes the folder and writes config.json and environment.json, before anything is trained.

  A folder of the same run is kept: unless it is finished, the new environment is written and the
  earlier ones stay in its list "earlier".

  Raises:
    ValueError: the folder cannot be written, or holds a run of another configuration; nothing in it
      is overwritten then.
  """
  folder = pathlib.Path(folder)
  identity = plain({"name": name, "config": config, "members": list(members)})
  require_writable(folder)
  if (folder / "config.json").exists():
    found = differences(identity, _read_json(folder / "config.json"))
    if found:
      raise ValueError(
        f"folder {str(folder)!r} holds a run of another configuration; these fields differ:\n  "
        + "\n  ".join(found)
        + "\nNothing was changed. Give the fields their earlier values, or choose another folder "
        "with --workdir=DIR."
      )
    if is_finished(folder):
      return folder
  else:
    _write_json(folder / "config.json", identity)
  environment = plain(environment)
  if (folder / "environment.json").exists():
    earlier = _read_json(folder / "environment.json")
    environment["earlier"] = [*earlier.pop("earlier", []), earlier]
  _write_json(folder / "environment.json", environment)
  return folder


def append(folder: PathLike, rows: Iterable[Mapping], file: str = "metrics.jsonl") -> None:
  """Appends rows to a log, one JSON object a line, in one write; non-finite numbers become null."""
  text = "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows)
  with open(pathlib.Path(folder) / file, "a", encoding="utf-8") as f:
    f.write(text)


def trim(folder: PathLike, step: int) -> None:
  """Makes the logs fit a state restored at `step`: later metrics and torn last lines go.

  Rows of `step` itself stay; -1 drops all, for a start from nothing. timing.jsonl keeps its rows of
  every step, since that time was spent.
  """
  for file, last in (("metrics.jsonl", step), ("timing.jsonl", math.inf)):
    path = pathlib.Path(folder) / file
    if path.exists():
      rows = [row for row in _read_lines(path) if (row.get("step") or 0) <= last]
      text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
      _write(path, lambda f, text=text: f.write(text.encode()))


def finish(folder: PathLike, result: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays.npz, then result.json, each atomically: the run is finished when this returns."""
  folder = pathlib.Path(folder)
  _write(folder / "arrays.npz", lambda f: np.savez(f, **arrays))
  _write_json(folder / "result.json", result)


def is_finished(folder: PathLike) -> bool:
  """Tells whether the run wrote its result, which is the last thing it does."""
  return (pathlib.Path(folder) / "result.json").exists()


def read(folder: PathLike) -> dict[str, Any]:
  """Reads a run folder, finished or not.

  Returns:
    name, config, members, environment, metrics (list of rows), timing (list of rows), result (None
    while unfinished) and arrays (dict; empty while unfinished).
  """
  folder = pathlib.Path(folder)
  if not (folder / "config.json").exists():
    raise ValueError(f"folder {str(folder)!r} holds no run: it has no config.json")
  run = _read_json(folder / "config.json")
  environment = folder / "environment.json"
  run["environment"] = _read_json(environment) if environment.exists() else {}
  for key in ("metrics", "timing"):
    path = folder / f"{key}.jsonl"
    run[key] = _read_lines(path) if path.exists() else []
  run["result"] = _read_json(folder / "result.json") if is_finished(folder) else None
  run["arrays"] = {}
  if run["result"] is not None:
    with np.load(folder / "arrays.npz") as arrays:
      run["arrays"] = dict(arrays)
  return run


def find(root: PathLike) -> list[pathlib.Path]:
  """Lists the run folders directly below <workdir>/<config name>, in the order of their names."""
  return sorted(path.parent for path in pathlib.Path(root).glob("*/config.json"))


def require_writable(folder: PathLike) -> None:
  """Makes the folder if need be and raises ValueError unless files can be written in it."""
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable-{os.getpid()}"
    probe.write_bytes(b"x")
    probe.unlink()
  except OSError as error:
    raise ValueError(
      f"workdir: folder {str(folder)!r} cannot be written ({error.strerror}: "
      f"{str(error.filename)!r}); choose one that can with --workdir=DIR"
    ) from error


def _write(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
  """Writes a file so that it is seen whole or not at all, even after a power cut."""
  temporary = path.with_name(f".{path.name}.tmp")
  with open(temporary, "wb") as f:
    write(f)
    f.flush()
    os.fsync(f.fileno())
  os.replace(temporary, path)
  if os.name == "posix":  # the rename itself lives in the folder
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _write_json(path: pathlib.Path, value: Any) -> None:
  text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
  _write(path, lambda f: f.write(text.encode()))


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"file {str(path)!r} is not valid JSON ({error}); delete its folder to start that run again"
    ) from error


def _read_lines(path: pathlib.Path) -> list[dict]:
  """Reads a log; a last line without its newline was torn by a kill and is left out."""
  lines = path.read_bytes().split(b"\n")[:-1]
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise ValueError(
        f"line {number} of {str(path)!r} is not valid JSON ({error}); delete that line"
      ) from error
  return rows
