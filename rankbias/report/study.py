"""A sweep of several settings as one study: its axis, its lines, and means with their confidence.

An interval is Student's t over seeds: mean +- t(n - 1) s / sqrt(n) at 95 %; one seed has none.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from rankbias.report.collect import ANSWERS, BOTTLENECK, RETRIEVAL, Member, Sweep, varying
from rankbias.report.quantities import QUANTITIES, Quantity
from rankbias.report.setting import show

LEVEL = 0.95
TEMPERATURE = "temperature"
BASE = "base"  # the setting that others change, or without what others have
OTHERS = (RETRIEVAL, ANSWERS, BOTTLENECK)  # sweeps whose pages compare their settings themselves
Fields = dict[str, Any]


class Estimate(NamedTuple):
  """A mean over seeds; `half` is half the width of its confidence interval, None of one seed."""

  mean: float | None
  half: float | None
  n: int


class Study(NamedTuple):
  """The members of a sweep by what sets them apart.

  Attributes:
    fields: what varies beside temperature and seed.
    settings: label -> members that have these fields alike, at any temperature.
    axis: the field of the horizontal axis, or "" where it has a place for each setting.
    values: on the axis, ascending if they are numbers.
    lines: label -> {value on the axis: members}.
    ordered: whether the lines are those of a number, ascending.
  """

  fields: list[str]
  settings: dict[str, list[Member]]
  axis: str
  values: list[Any]
  lines: dict[str, dict[Any, list[Member]]]
  ordered: bool


def study(sweep: Sweep) -> Study | None:
  """Compares the settings and temperatures of a sweep.

  None where there is one of both, or the page compares them in other tables.
  """
  members = [m for section in sweep.sections for m in section.members]
  together = len(sweep.sections) == 1  # then its members differ in what a section may differ in
  fields = [] if together else varying(members)[0]
  one = not fields and len({m.temperature for m in members}) == 1
  if one or any(m.record.get(key) for m in members for key in OTHERS):
    return None
  labels = _labels([_own(m, fields) for m in members], fields)
  settings: dict[str, list[Member]] = {}
  for label, m in sorted(zip(labels, members, strict=True), key=lambda p: _place(p[1], fields)):
    settings.setdefault(label, []).append(m)
  axis = _axis(members, fields)
  others = [field for field in (TEMPERATURE, *fields) if field != axis] if axis else []
  others = [field for field in others if len({_key(_value(m, field)) for m in members}) > 1]
  names = _labels([_own(m, others) for m in members], others)
  of_setting = dict(zip(map(id, members), labels, strict=True))
  lines: dict[str, dict[Any, list[Member]]] = {}
  for name, m in sorted(zip(names, members, strict=True), key=lambda p: _place(p[1], others)):
    value = _value(m, axis) if axis else of_setting[id(m)]
    lines.setdefault(name, {}).setdefault(value, []).append(m)
  values = list(dict.fromkeys(value for line in lines.values() for value in line))
  ordered = len(others) == 1 and _is_numeric(members, others[0])
  return Study(fields, settings, axis, sorted(values) if axis else list(settings), lines, ordered)


def estimate(members: Sequence[Member], quantity: Quantity) -> Estimate:
  """The quantity's mean over the members that finished, and how sure it is."""
  found = [quantity.get(m) for m in members if m.finished]
  values = np.array([v for v in found if v is not None and np.isfinite(v)], float)
  n = len(values)
  if n < 2:
    return Estimate(float(values[0]) if n else None, None, n)
  half = stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(n)
  return Estimate(float(values.mean()), float(half), n)


def measured(found: Study, quantities: Sequence[Quantity] = QUANTITIES) -> list[Quantity]:
  """The quantities that at least one member has."""
  groups = found.settings.values()
  return [q for q in quantities if any(estimate(group, q).n for group in groups)]


def by_temperature(members: Sequence[Member]) -> dict[float, list[Member]]:
  """Temperature, ascending -> members."""
  temperatures = sorted({m.temperature for m in members})
  return {t: [m for m in members if m.temperature == t] for t in temperatures}


def _value(member: Member, field: str) -> Any:
  """A field of the configuration; a regulariser that is not there has weight 0."""
  if field == TEMPERATURE:
    return member.temperature
  value = member.setting.get(field)
  return 0.0 if value is None and field.startswith("regularizers.") else value


def _own(member: Member, fields: Sequence[str]) -> Fields:
  return {field: _value(member, field) for field in fields}


def _axis(members: Sequence[Member], fields: Sequence[str]) -> str:
  """Temperature, or the number that varies alone and has more values than it; "" for neither."""
  counts = {f: len({_key(_value(m, f)) for m in members}) for f in (TEMPERATURE, *fields)}
  numbers = [f for f in fields if _is_numeric(members, f)]
  alone = len(numbers) == 1 and not _few_at_a_time(_changes([_own(m, fields) for m in members]))
  if alone and (counts[TEMPERATURE] == 1 or counts[numbers[0]] > counts[TEMPERATURE]):
    return numbers[0]
  return TEMPERATURE if counts[TEMPERATURE] > 1 else ""


def _is_numeric(members: Sequence[Member], field: str) -> bool:
  values = [_value(m, field) for m in members]
  return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _place(member: Member, fields: Sequence[str]) -> list:
  """The key of the order of settings: numbers ascending, texts as they come alphabetically."""
  values = [_value(member, f) for f in fields]
  return [(0, v, "") if isinstance(v, int | float) else (1, 0, show(v)) for v in values]


def _labels(found: Sequence[Fields], fields: Sequence[str]) -> list[str]:
  """What each setting is called: "width = 64", or by what it changes where each changes little.

  Fields that do not exist in a setting are left out.
  """
  names = dict(zip(fields, short(fields), strict=True)) | {TEMPERATURE: "𝑇"}
  changes = _changes(found)
  shown = changes if _few_at_a_time(changes) else [fields] * len(found)
  parts = [
    [f"{names[f]} = {_text(own[f])}" for f in chosen if own[f] is not None]
    for own, chosen in zip(found, shown, strict=True)
  ]
  return [", ".join(own) or BASE * bool(fields) for own in parts]


def _changes(found: Sequence[Fields]) -> list[list[str]]:
  """The fields of each setting whose value is not the most common one."""
  usual = {f: Counter(_key(own[f]) for own in found).most_common(1)[0][0] for f in found[0]}
  return [[f for f in own if _key(own[f]) != usual[f]] for own in found]


def _few_at_a_time(changes: Sequence[Sequence[str]]) -> bool:
  """Tells whether all other settings change one of them in some of several fields, not in all."""
  fields = {f for own in changes for f in own}
  return len(fields) > 1 and [] in changes and max(map(len, changes)) < len(fields)


def short(fields: Sequence[str]) -> list[str]:
  """The last parts of dotted names, as many as tell them apart and mean something."""
  last = [field.rpartition(".")[2] for field in fields]
  taken = [name == "name" or last.count(name) > 1 for name in last]
  names = [field if long else name for field, name, long in zip(fields, last, taken, strict=True)]
  return [name.replace("_", " ") for name in names]


def _key(value: Any) -> str:
  """Equal for values that are one setting: 1 and 1.0."""
  whole = isinstance(value, float) and value.is_integer()
  return json.dumps(int(value) if whole else value, sort_keys=True, default=str)


def _text(value: Any) -> str:
  return f"{value:,.6g}" if isinstance(value, float) else show(value)
