"""Exact answers against the length of the question, and how sharp the heads are: figures, table."""

import html
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rankbias.report import remedies, style, tables
from rankbias.report.collect import ANSWERS, Member, Section
from rankbias.report.remedies import AS_TRAINED

TRAINED = "test"  # the split of the lengths that were trained on
ENOUGH = 80.0  # per cent of exact answers from which on a comparison of lengths means something
TASKS = 3  # different ones that must be answered so well


def measured(section: Section) -> list[Member]:
  """The finished members whose answers were counted."""
  return [m for m in section.finished() if m.record.get(ANSWERS)]


def exact(section: Section) -> Figure:
  """Answers that are right in every character, against length: a panel for each algorithm."""
  found = _record(section)
  names = list(found["examples"])
  wide = min(len(names), 3 if len(names) != 4 else 2)
  figure, axes = style.panels(-(-len(names) // wide), wide, 2.3, sharey=True)
  looks = {c: {**v, "label": remedies.name(c)} for c, v in style.hues(_columns(section)).items()}
  for ax, name in zip(axes.flat, names, strict=False):
    splits = [s for s in _splits(section) if _value(found, AS_TRAINED, name, s) is not None]
    for column, look in looks.items():
      style.band(ax, range(len(splits)), _percent(section, column, name, splits), look)
    ax.set_title(name.replace("_", " "))
    ax.set_ylim(-3, 103)
    ax.set_xticks(range(len(splits)), [_lengths(found, s) for s in splits])
    ax.set_xlabel("length of the input")
  for ax in axes[:, 0]:
    ax.set_ylabel("exact answers (%)")
  for ax in list(axes.flat)[len(names) :]:
    ax.remove()
  style.legend(figure, axes, 4)
  return figure


def sharpness(section: Section) -> Figure:
  """Spread, entropy and largest weight of the heads as trained, against the number of keys."""
  figure, axes = style.panels(1, 3, 2.7)
  found = _record(section)
  keys = np.array([found["keys"][found["splits"].index(s)] for s in _splits(section)])
  layers = list(found["spread"][AS_TRAINED])
  titles = "spread δ of the logits (nats)", "entropy of the weights (nats)", "largest weight"
  for ax, kind, title in zip(axes[0], ("spread", "entropy", "max_weight"), titles, strict=True):
    for layer, color, marker in zip(
      layers, style.shades(len(layers)), style.MARKERS * len(layers), strict=False
    ):
      heads = _heads(section, kind, layer)  # [seeds and heads, splits]
      style.band(ax, keys, heads, {"color": color, "marker": marker, "label": layer})
    ax.set_ylabel(title)
    style.size_axis(ax, keys.tolist(), 3)
    ax.set_xlabel("number of keys")
  axes[0, 1].plot(keys, np.log(keys), **style.REFERENCE, label="uniform row")
  axes[0, 2].plot(keys, 1 / keys, **style.REFERENCE)
  style.legend(figure, axes, 5)
  return figure


def html_tables(section: Section) -> list[str]:
  """Exact answers in per cent: a row for each algorithm and column, if answers were counted."""
  if not measured(section):
    return []
  found = _record(section)
  heads = ["algorithm", "attention", *(_lengths(found, s) for s in _splits(section))]
  rows = []
  for name in found["examples"]:
    for column in _columns(section):
      cells = [_cell(section, column, name, split) for split in _splits(section)]
      rows.append([html.escape(name), html.escape(remedies.name(column)), *cells])
  seeds = len(measured(section))
  text = (
    f"Mean ± standard deviation (n − 1) over {seeds} seed{'s' * (seeds > 1)}. An answer is exact "
    "if it is right in every character."
  )
  return ["<h3>Exact answers (%)</h3>", tables.rows_as_html(heads, rows), f"<p>{text}</p>"]


def finding(section: Section) -> str:
  """Exact answers at the trained lengths; whether these allow a comparison of longer ones."""
  found = _record(section)
  values = {n: _percent(section, AS_TRAINED, n, [TRAINED]).mean() for n in found["examples"]}
  parts = ", ".join(f"{value:.1f} % of {html.escape(n)}" for n, value in values.items())
  tasks = _least_by_task(found.get("tasks", {}), values)
  known = sum(value >= ENOUGH for value in tasks.values())
  text = f"At the trained lengths ({_lengths(found, TRAINED)}) the exact answers are {parts}."
  if known < TASKS:
    once = ", names of one task counted once," if len(tasks) < len(values) else ""
    text += (
      f" Fewer than {TASKS} tasks{once} are answered to {ENOUGH:g} %: <b>the comparison of lengths "
      "is void</b>, since what was not learned cannot be lost."
    )
  return text


def _record(section: Section) -> dict[str, Any]:
  return measured(section)[0].record[ANSWERS]


def _least_by_task(tasks: dict[str, str], values: dict[str, float]) -> dict[str, float]:
  """The smallest value of each task; algorithms without one are tasks of their own."""
  least = {}
  for name, value in values.items():
    task = tasks.get(name, name)
    least[task] = min(value, least.get(task, value))
  return least


def _columns(section: Section) -> list[str]:
  return remedies.ordered(_record(section)["exact"])


def _splits(section: Section) -> list[str]:
  return [s for s in _record(section)["splits"] if s != "train"]


def _lengths(found: dict[str, Any], split: str) -> str:
  """16, or 4–12 for a split of many lengths."""
  lengths = found["lengths"][split]
  return f"{lengths[0]}–{lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"


def _value(found: dict[str, Any], column: str, name: str, split: str) -> float | None:
  return found["exact"][column][name][found["splits"].index(split)]


def _percent(section: Section, column: str, name: str, splits: list[str]) -> np.ndarray:
  """[seeds, splits]; every split has texts of the algorithm."""
  records = [m.record[ANSWERS] for m in measured(section)]
  return 100 * np.array([[_value(r, column, name, s) for s in splits] for r in records], float)


def _cell(section: Section, column: str, name: str, split: str) -> str:
  values = _percent(section, column, name, [split])[:, 0]
  known = values[np.isfinite(values)]
  return tables.cell(known, tables.Column("", "", lambda m: None), len(known))


def _heads(section: Section, kind: str, layer: str) -> np.ndarray:
  found = []
  for record in (m.record[ANSWERS] for m in measured(section)):
    places = [record["splits"].index(s) for s in _splits(section)]
    found.append(np.array(record[kind][AS_TRAINED][layer], float)[places].T)
  return np.concatenate(found)
