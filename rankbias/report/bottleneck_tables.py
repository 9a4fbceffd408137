"""Output layers on distributions as numbers: HTML tables by head and width, CSV, a sentence."""

import html
from collections.abc import Callable

import numpy as np

from rankbias.report import tables
from rankbias.report.bottleneck import Cell, Key, axes_of, cells
from rankbias.report.collect import BOTTLENECK, Section, Sweep

EPS = "0.001"  # of the effective rank in the tables
TABLES: dict[str, tuple[int | None, Callable[[Cell], np.ndarray]]] = {
  "KL(target ‖ layer) in nats": (3, lambda c: c.values("kl")),
  "Modes matched (%)": (1, lambda c: 100 * c.values("mode_match")),
  "Press rank of the log-probabilities": (0, lambda c: c.values("press_rank")),
  "Effective rank of the log-probabilities at 10⁻³": (0, lambda c: c.values("effective_rank", EPS)),
  "Classes that can be the argmax": (0, lambda c: c.values("argmaxable")),
  "Parameters": (0, lambda c: c.values("parameters")[:1]),
}


def html_tables(section: Section) -> list[str]:
  """A table for each measure, a row for each concentration and head, a column for each width."""
  found = cells(section)
  if not found:
    return []
  concentrations, widths, heads = axes_of(found)
  parts = []
  for heading, (decimals, get) in TABLES.items():
    column = tables.Column("", "", lambda m: None, decimals)
    rows = []
    for a in concentrations:
      for head in heads:
        own = [found.get(Key(a, d, head)) for d in widths]
        texts = [_cell(get(c), column) if c else "–" for c in own]
        rows.append([f"{a:g}", html.escape(head), *texts])
    names = ["concentration", "output layer", *(f"<i>d</i> = {d}" for d in widths)]
    parts += [f"<h3>{heading}</h3>", tables.rows_as_html(names, rows)]
  seeds = sorted({len(c.members) for c in found.values()})
  many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
  rates = sorted({m.record["learning_rate"] for m in section.finished()})
  text = (
    f"Mean ± standard deviation (n − 1) over {many} seed{'s' * (seeds[-1] > 1)}, each with targets "
    f"of its own, at the one of the learning rates {', '.join(f'{r:g}' for r in rates)} with the "
    "lower mean KL. Which classes can be the argmax is decided where the logits are an increasing "
    'map of a linear layer. In full precision, with times: <a href="bottleneck.csv">'
    "bottleneck.csv</a>."
  )
  return [*parts, f"<p>{text}</p>"]


def _cell(values: np.ndarray, column: tables.Column) -> str:
  return tables.cell(values, column, len(values))


def csv_table(sweep: Sweep) -> str:
  """One row a cell: mean and deviation of all that was measured, and the time of a step."""
  rows = []
  for section in sweep.sections:
    for key, cell in cells(section).items():
      row = {"setting": section.label, **key._asdict()}
      row |= {"learning_rate": cell.rate, "seeds": len(cell.members)}
      measured = {m: cell.values(m) for m in ("kl", "mode_match", "press_rank", "argmaxable")}
      for eps in cell.members[0].record[BOTTLENECK]["effective_rank"]:
        measured[f"effective_rank_{eps}"] = cell.values("effective_rank", eps)
      for name, values in measured.items():
        row[f"{name}_mean"], row[f"{name}_sd"], _ = tables.statistics(values)
      row["parameters"] = int(cell.values("parameters")[0])
      row["milliseconds"] = milliseconds(sweep.runs[cell.members[0].folder])
      rows.append(row)
  return tables.rows_as_csv(rows)


def milliseconds(run: dict) -> float | None:
  """The time of a step of one member, of those side by side; without the call that compiled."""
  timed = [r for r in run["timing"] if r["event"] == "train"]
  compiled = [r["step"] for r in run["timing"] if r["event"] == "compile"]
  steps = max((r["step"] for r in timed), default=0) - min(compiled, default=0)
  if not timed or steps <= 0:
    return None
  return 1e3 * sum(r["seconds"] for r in timed) / steps / len(run["result"]["members"])


def finding(section: Section) -> str:
  """The linear layer and the best of the others, where the linear one misses most modes."""
  found = cells(section)
  linear = {k: c for k, c in found.items() if k.head == "linear"}
  if not linear:
    return f"{len(found)} settings were measured, none of them with a linear layer."
  concentrations, widths, _ = axes_of(found)
  a, d = concentrations[(len(concentrations) - 1) // 2], widths[(len(widths) - 1) // 2]
  rivals = {k.head: c for k, c in found.items() if k[:2] == (a, d)}
  best = min(rivals, key=lambda head: rivals[head].values("kl").mean())

  def both(cell):
    kl, modes = cell.values("kl").mean(), 100 * cell.values("mode_match").mean()
    return f"a KL of {kl:.3g} nats and {modes:.0f} % of the modes"

  text = f"At concentration {a:g} and width {d} the linear layer reaches {both(rivals['linear'])}"
  if best != "linear":
    text += f", the best of the others ({html.escape(best)}) {both(rivals[best])}"
  return f"{text} (means over seeds)."
