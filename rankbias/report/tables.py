"""One row per temperature: means and standard deviations over seeds, as HTML and CSV."""

import csv
import html
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rankbias.report.collect import BOTTLENECK, PERPLEXITY, Member, Section, Sweep

RANKS = {
  "covariance_rank": "covariance rank",
  "numerical_rank": "numerical rank",
  "effective_rank": "effective rank",
  "rankme": "RankMe",
  "stable_rank": "stable rank",
  "participation_ratio": "participation ratio",
  "energy_rank": "energy rank",
}


class Column(NamedTuple):
  """A quantity of a member, its heading and how it is written."""

  key: str
  heading: str
  get: Callable[[Member], float | None]
  decimals: int | None = 1  # None: three significant digits of the mean
  spread: bool = True
  needs: str = ""  # the entry of the record without which there is no such column


def tables(section: Section) -> dict[str, list[Column]]:
  """The page's tables: heading -> columns, of what was measured at every temperature."""
  if section.has(BOTTLENECK) or section.has(PERPLEXITY):
    return {}  # its members differ in more, and have tables of their own
  found = {
    "Training": [
      Column("learning_rate", "learning rate", lambda m: m.record["learning_rate"], None, False),
      Column("train_accuracy", "train accuracy (%)", _percent("train"), 2, needs="train"),
      Column("test_accuracy", "test accuracy (%)", _percent("test"), 2, needs="test"),
      # Where nothing was visited twice there are no accuracies of epochs, and no "train" either.
      Column("step_99", "step of 99 %", lambda m: m.record["step_99"], 0, needs="train"),
      Column("mean_norm", "‖z‖", _norm("mean_norm"), None, needs="norms"),
      Column("tempered_mean_norm", "‖z‖ / T", _norm("tempered_mean_norm"), None, needs="norms"),
    ]
  }
  if section.last_hidden:
    heading = f"Rank of the last hidden layer ({section.last_hidden})"
    found[heading] = _ranks(section.last_hidden, "last_hidden")
  found["Rank of the logits"] = _ranks("logits", "logits")
  if section.finished():
    found = {k: [c for c in v if not c.needs or section.has(c.needs)] for k, v in found.items()}
  return {heading: columns for heading, columns in found.items() if columns}


def html_table(section: Section, columns: list[Column]) -> str:
  """A table of mean ± standard deviation, one row per temperature."""
  heads = ["<i>T</i>", "seeds", *(html.escape(c.heading) for c in columns)]
  rows = []
  for t in section.temperatures:
    n, lost = len(section.finished(t)), len(section.diverged(t))
    seeds = f"{n}" + (f" <b>+ {lost} diverged</b>" if lost else "")
    rows.append([f"{t:g}", seeds, *(cell(section.values(t, c.get), c, n) for c in columns)])
  return rows_as_html(heads, rows)


def rows_as_html(heads: list[str], rows: list[list[str]]) -> str:
  """A table of cells that are HTML already."""
  head = "".join(f"<th>{cell}</th>" for cell in heads)
  body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
  return (
    '<div class="scroll"><table>\n'
    f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
  )


def csv_table(sweep: Sweep) -> str:
  """The same numbers and all norms in full precision, all sections in one table."""
  rows = []
  for section in sweep.sections:
    columns = [c for group in tables(section).values() for c in group]
    norms = dict.fromkeys(k for m in section.finished() for k in m.record.get("norms") or {})
    columns += [Column(f"logits_{key}", "", _norm(key)) for key in norms]
    for t in section.temperatures:
      row = {"setting": section.label, "temperature": t}
      row |= {"finished": len(section.finished(t)), "diverged": len(section.diverged(t))}
      for column in columns:
        mean, sd, n = statistics(section.values(t, column.get))
        row |= {f"{column.key}_mean": mean, f"{column.key}_sd": sd}
        if column.key == "step_99":
          row["step_99_reached"] = n
      rows.append(row)
  return rows_as_csv(rows)


def rows_as_csv(rows: list[dict]) -> str:
  """A table whose columns are the fields of all rows, in the order of their first mention."""
  text = io.StringIO()
  fields = dict.fromkeys(field for row in rows for field in row)
  writer = csv.DictWriter(text, list(fields), lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _ranks(layer: str, prefix: str) -> list[Column]:
  def get(measure: str) -> Callable[[Member], float | None]:
    return lambda m: m.rank(layer, measure)

  return [
    Column(f"{prefix}_{key}", heading, get(key), needs="ranks") for key, heading in RANKS.items()
  ]


def _percent(split: str) -> Callable[[Member], float | None]:
  return lambda m: m.accuracy(split)


def _norm(key: str) -> Callable[[Member], float | None]:
  return lambda m: m.norm(key)


def statistics(values: np.ndarray) -> tuple[float | None, float | None, int]:
  """(mean, standard deviation with n - 1, n); None where it does not exist."""
  n = len(values)
  return (float(values.mean()) if n else None, float(values.std(ddof=1)) if n > 1 else None, n)


def cell(values: np.ndarray, column: Column, expected: int) -> str:
  """Mean ± standard deviation of finite numbers, and how many there are if some are missing."""
  mean, sd, n = statistics(values)
  if mean is None:
    return "–"
  text = number(mean, sd if column.spread else None, column.decimals)
  return text + (f" <b>({n} of {expected})</b>" if n < expected else "")


def number(mean: float, spread: float | None, decimals: int | None) -> str:
  """mean ± spread, as HTML; decimals None: three significant digits of the mean."""
  if decimals is None:
    size = int(np.floor(np.log10(abs(mean)))) if mean else 0
    decimals = max(0, 2 - size)
  text = f"{mean:,.{decimals}f}"
  return text if spread is None else f"{text} <span>± {spread:,.{decimals}f}</span>"
