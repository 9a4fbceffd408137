"""One row per temperature: means and standard deviations over seeds, as HTML and CSV."""

import csv
import html
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rankbias.report.collect import Member, Section, Sweep

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


def tables(section: Section) -> dict[str, list[Column]]:
  """The page's tables: heading -> columns."""
  found = {
    "Training": [
      Column("learning_rate", "learning rate", lambda m: m.record["learning_rate"], None, False),
      Column("train_accuracy", "train accuracy (%)", _percent("train"), 2),
      Column("test_accuracy", "test accuracy (%)", _percent("test"), 2),
      Column("step_99", "step of 99 %", lambda m: m.record["step_99"], 0),
      Column("mean_norm", "‖z‖", _norm("mean_norm"), None),
      Column("tempered_mean_norm", "‖z‖ / T", _norm("tempered_mean_norm"), None),
    ]
  }
  if section.last_hidden:
    heading = f"Rank of the last hidden layer ({section.last_hidden})"
    found[heading] = _ranks(section.last_hidden, "last_hidden")
  found["Rank of the logits"] = _ranks("logits", "logits")
  return found


def html_table(section: Section, columns: list[Column]) -> str:
  """A table of mean ± standard deviation, one row per temperature."""
  heads = ["<i>T</i>", "seeds", *(html.escape(c.heading) for c in columns)]
  rows = []
  for t in section.temperatures:
    n, lost = len(section.finished(t)), len(section.diverged(t))
    seeds = f"{n}" + (f" <b>+ {lost} diverged</b>" if lost else "")
    rows.append([f"{t:g}", seeds, *(_cell(section.values(t, c.get), c, n) for c in columns)])
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
    norms = dict.fromkeys(key for m in section.finished() for key in m.record["norms"])
    columns += [Column(f"logits_{key}", "", _norm(key)) for key in norms]
    for t in section.temperatures:
      row = {"setting": section.label, "temperature": t}
      row |= {"finished": len(section.finished(t)), "diverged": len(section.diverged(t))}
      for column in columns:
        mean, sd, n = _statistics(section.values(t, column.get))
        row |= {f"{column.key}_mean": mean, f"{column.key}_sd": sd}
        if column.key == "step_99":
          row["step_99_reached"] = n
      rows.append(row)
  text = io.StringIO()
  fields = dict.fromkeys(field for row in rows for field in row)
  writer = csv.DictWriter(text, list(fields), lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _ranks(layer: str, prefix: str) -> list[Column]:
  def get(measure: str) -> Callable[[Member], float | None]:
    return lambda m: m.rank(layer, measure)

  return [Column(f"{prefix}_{key}", heading, get(key)) for key, heading in RANKS.items()]


def _percent(split: str) -> Callable[[Member], float]:
  return lambda m: 100 * m.record[split]["accuracy"]


def _norm(key: str) -> Callable[[Member], float | None]:
  return lambda m: m.record["norms"].get(key)


def _statistics(values: np.ndarray) -> tuple[float | None, float | None, int]:
  """(mean, standard deviation with n - 1, n); None where it does not exist."""
  n = len(values)
  return (float(values.mean()) if n else None, float(values.std(ddof=1)) if n > 1 else None, n)


def _cell(values: np.ndarray, column: Column, expected: int) -> str:
  mean, sd, n = _statistics(values)
  if mean is None:
    return "–"
  decimals = column.decimals
  if decimals is None:
    size = int(np.floor(np.log10(abs(mean)))) if mean else 0
    decimals = max(0, 2 - size)
  text = f"{mean:,.{decimals}f}"
  if column.spread and sd is not None:
    text += f" <span>± {sd:,.{decimals}f}</span>"
  return text + (f" <b>({n} of {expected})</b>" if n < expected else "")
