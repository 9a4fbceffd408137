"""What a run is called and how two configurations differ; values as JSON can hold them."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def run_id(config: Mapping, members: Sequence[Mapping]) -> str:
  """Names a run: its overrides, readable, and eight hex digits of a hash of config and members.

  Pass the scientific configuration alone: what describes the machine (data folder, devices) would
  change the name. 1 and 1.0 are the same value.

  Example: "temperature=1,10,100_seed=0-2-5f0c2a91".
  """
  text = json.dumps(_canonical({"config": config, "members": list(members)}), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]
  fields = list(dict.fromkeys(field for member in members for field in member))
  short = [field.rsplit(".", 1)[-1] for field in fields]
  parts = []
  for field, last in zip(fields, short, strict=True):
    values = list(dict.fromkeys(_label(m[field]) for m in members if field in m))
    parts.append(f"{last if short.count(last) == 1 else field}={_compact(values)}")
  readable = re.sub(r"[^\w.=,+-]+", "_", "_".join(parts) or "base")
  return f"{readable[:100].rstrip('_.,-')}-{digest}"


def differences(a: Mapping, b: Mapping) -> list[str]:
  """Lists the fields in which two nested dicts differ, `a` being here and `b` there.

  Example: ["optimizer.learning_rate: 0.02 here, 0.1 there"].
  """
  here, there = dict(_flat(_canonical(a))), dict(_flat(_canonical(b)))
  fields = list(dict.fromkeys([*here, *there]))

  def show(side: dict, field: str) -> str:
    return json.dumps(side[field]) if field in side else "absent"

  return [
    f"{field}: {show(here, field)} here, {show(there, field)} there"
    for field in fields
    if show(here, field) != show(there, field)
  ]


def plain(value: Any, path: str = "") -> Any:
  """Turns nested dicts, sequences and arrays into what JSON can say; NaN and infinity into None."""
  if isinstance(value, Mapping) or hasattr(value, "items"):
    return {str(k): plain(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
  if isinstance(value, list | tuple | set | frozenset | range):
    return [plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, "__array__"):
    return plain(np.asarray(value).tolist(), path)
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, bool | int | str):
    return value
  raise ValueError(
    f"field {path!r} is {value!r} of type {type(value).__name__}, which JSON cannot hold; use "
    "numbers, strings, lists or dicts"
  )


def _canonical(value: Any) -> Any:
  """The plain value with whole floats as ints, so that 1 and 1.0 are one configuration."""

  def whole(v: Any) -> Any:
    if isinstance(v, dict):
      return {k: whole(x) for k, x in v.items()}
    if isinstance(v, list):
      return [whole(x) for x in v]
    return int(v) if isinstance(v, float) and v.is_integer() else v

  return whole(plain(value))


def _flat(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
  """Yields (dotted path, leaf); a list of plain values is one leaf."""
  if isinstance(value, dict) and value:
    for k, v in value.items():
      yield from _flat(v, f"{path}.{k}".lstrip("."))
  elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
    for i, v in enumerate(value):
      yield from _flat(v, f"{path}[{i}]")
  else:
    yield path, value


def _label(value: Any) -> str:
  value = _canonical(value)
  return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def _compact(values: list[str]) -> str:
  """Joins values: consecutive integers as 0-4, a few as 1,10,100, many as 0.1..1000(9)."""
  if len(values) > 2 and all(re.fullmatch(r"\d+", v) for v in values):
    first, last = int(values[0]), int(values[-1])
    if [int(v) for v in values] == list(range(first, last + 1)):
      return f"{first}-{last}"
  return ",".join(values) if len(values) <= 6 else f"{values[0]}..{values[-1]},{len(values)}"
