"""Run folders -> a sweep: its members, merged over folders, grouped by setting and temperature."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from rankbias import runs
from rankbias.report.setting import canonical, effective, output_layer, show

# The entry of a record whose figures show a size in place of T: each T then gets a section.
RETRIEVAL = "retrieval"
ANSWERS = "exact_match"  # likewise, but against the length of a question
PERPLEXITY = "perplexity"  # likewise, but of output layers side by side
# The entry of a record whose figures show width, head and the rest of these in one section.
BOTTLENECK = "bottleneck"
SHOWN = ("head", "model.width", "data.concentration", "optimizer.learning_rate")


class Member(NamedTuple):
  """One trained network: its entry in result.json, its measurements and its arrays."""

  folder: str
  index: int  # its place in the program of that folder
  layers: list[str]  # forward order, logits last
  record: dict[str, Any]
  rows: list[dict[str, Any]]  # measured through training, in the order of steps
  spectra: dict[str, np.ndarray]  # layer -> singular values, descending
  centered: dict[str, np.ndarray]
  weights: dict[str, np.ndarray]  # "<remedy>/<size of the set>" -> weights of attention
  curves: dict[str, np.ndarray]  # what an evaluation found beside numbers, by name
  similarity: dict[str, np.ndarray]  # layer -> CKA with every member of the program
  held_out: list[dict[str, Any]]  # measured through training on the split that selects
  setting: dict[str, Any]  # the effective configuration, flat, without temperature and seed

  @property
  def temperature(self) -> float:
    return self.record["temperature"]

  @property
  def finished(self) -> bool:
    return self.record["status"] == "finished"

  @property
  def last_hidden(self) -> str | None:
    return self.layers[-2] if len(self.layers) > 1 else None

  # What an evaluation found is null or absent in the record where the config does not ask for it.

  def found(self, *path: str) -> Any:
    """What stands in the record at record[path[0]][path[1]]..., or None."""
    value = self.record
    for key in path:
      value = (value or {}).get(key)
    return value

  def rank(self, layer: str, measure: str) -> float | None:
    return self.found("ranks", layer, measure)

  def norm(self, key: str) -> float | None:
    return self.found("norms", key)

  def accuracy(self, split: str) -> float | None:
    """In per cent."""
    found = self.found(split, "accuracy")
    return None if found is None else 100 * found


@dataclasses.dataclass(frozen=True)
class Section:
  """Members of one setting: they differ in temperature, in seed and in what follows these."""

  label: str  # what sets it apart from other sections; "" when it is the only one
  layers: list[str]  # forward order, logits last
  classes: int
  members: list[Member]

  @property
  def temperatures(self) -> list[float]:
    return sorted({m.temperature for m in self.members})

  @property
  def last_hidden(self) -> str | None:
    return self.layers[-2] if len(self.layers) > 1 else None

  def finished(self, temperature: float | None = None) -> list[Member]:
    return [m for m in self.members if m.finished and temperature in (None, m.temperature)]

  def diverged(self, temperature: float | None = None) -> list[Member]:
    return [m for m in self.members if not m.finished and temperature in (None, m.temperature)]

  def has(self, *entries: str) -> bool:
    """Tells whether a member finished with all these entries in its record."""
    return any(all(m.record.get(e) is not None for e in entries) for m in self.finished())

  def values(self, temperature: float, get: Callable[[Member], float | None]) -> np.ndarray:
    """One number per finished member at a temperature; missing ones are left out."""
    found = [get(m) for m in self.finished(temperature)]
    return np.array([v for v in found if v is not None and np.isfinite(v)], float)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """All that a page is made of."""

  name: str
  folder: pathlib.Path
  runs: dict[str, dict[str, Any]]  # finished run folders, by name, as runs.read returns them
  sections: list[Section]
  unfinished: list[str]  # folders without a result
  repeated: int  # members found in more than one folder, counted once
  following: list[str]  # fields with one value at each temperature, but not the same at all

  @property
  def fallback(self) -> bool:
    return "-fallback-" in self.name


def collect(folder: runs.folder.PathLike) -> Sweep:
  """Reads every run below <workdir>/<config name>.

  Raises:
    ValueError: no run there is finished.
  """
  folder = pathlib.Path(folder)
  found = runs.find(folder)
  done = {path.name: runs.read(path) for path in found if runs.is_finished(path)}
  unfinished = [path.name for path in found if path.name not in done]
  if not done:
    raise ValueError(
      f"folder {str(folder)!r} holds no finished run, but {len(unfinished)} unfinished; give "
      "WORKDIR/CONFIG_NAME, the folder that holds the run folders"
    )
  every = [member for name, run in done.items() for member in _members(name, run)]
  unique: dict[str, Member] = {}
  for m in every:
    unique.setdefault(canonical([m.setting, m.temperature, m.record["seed"]]), m)
  members = list(unique.values())
  splitting, following = varying(members)
  if any(m.record.get(BOTTLENECK) for m in members):
    splitting = [f for f in splitting if f not in SHOWN and not f.startswith("head.")]
  if any(m.record.get(PERPLEXITY) for m in members):
    splitting = _varying_within_heads(members)
  kinds = (RETRIEVAL, ANSWERS, PERPLEXITY)
  over_sizes = any(m.record.get(key) for m in members for key in kinds)
  if over_sizes and len({m.temperature for m in members}) > 1:
    splitting.append("temperature")
  return Sweep(
    name=next(iter(done.values()))["result"]["name"],
    folder=folder,
    runs=done,
    sections=_sections(members, splitting, done),
    unfinished=unfinished,
    repeated=len(every) - len(members),
    following=following,
  )


def _members(folder: str, run: dict) -> Iterable[Member]:
  layers = [*run["result"]["model"]["layers"], "logits"]
  for index, record in enumerate(run["result"]["members"]):
    own = [r for r in run["metrics"] if r["member"] == index]
    rows = [r for r in own if r["split"] == "measure"]
    held_out = [r for r in own if PERPLEXITY in r]
    spectra, centered = (
      {k: run["arrays"][key] for k in layers if (key := f"{index}/{kind}/{k}") in run["arrays"]}
      for kind in ("spectrum", "spectrum_centered")
    )
    weights, curves = (
      {k.removeprefix(start): v for k, v in run["arrays"].items() if k.startswith(start)}
      for start in (f"{index}/weights/", f"{index}/curves/")
    )
    alike = {k: v[index] for k in layers if (v := run["arrays"].get(f"similarity/{k}")) is not None}
    setting = effective(run["config"], record["overrides"])
    rows.sort(key=lambda r: r["step"])
    own = (spectra, centered, weights, curves, alike)
    yield Member(folder, index, layers, record, rows, *own, held_out, setting)


def varying(members: list[Member]) -> tuple[list[str], list[str]]:
  """Fields that take several values at one temperature, and fields that follow the temperature."""
  splitting, following = [], []
  for field in dict.fromkeys(field for m in members for field in m.setting):
    seen: dict[float, set[str]] = {}
    for m in members:
      seen.setdefault(m.temperature, set()).add(canonical(m.setting.get(field)))
    if any(len(values) > 1 for values in seen.values()):
      splitting.append(field)
    elif len(set().union(*seen.values())) > 1:
      following.append(field)
  return splitting, following


def _varying_within_heads(members: list[Member]) -> list[str]:
  """Fields that take several values with one and the same output layer."""
  groups: dict[str, list[Member]] = {}
  for m in members:
    groups.setdefault(canonical(output_layer(m.setting)), []).append(m)
  return list(dict.fromkeys(field for group in groups.values() for field in varying(group)[0]))


def _sections(members: list[Member], splitting: list[str], done: dict) -> list[Section]:
  groups: dict[str, list[Member]] = {}
  for m in members:
    fields = m.setting | {"temperature": m.temperature}
    label = ", ".join(f"{field} = {show(fields.get(field))}" for field in splitting)
    groups.setdefault(label, []).append(m)
  sections = []
  for label, group in groups.items():
    result = done[group[0].folder]["result"]
    group.sort(key=lambda m: (m.temperature, m.record["seed"]))
    sections.append(Section(label, group[0].layers, result["data"]["classes"], group))
  return sorted(sections, key=lambda section: -len(section.members))
