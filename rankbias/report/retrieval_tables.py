"""Accuracy against the size of the set, with the paired t-test of every remedy: HTML and CSV."""

import html

import numpy as np

from rankbias.report import remedies, tables
from rankbias.report.collect import Section, Sweep
from rankbias.report.remedies import ADAPTIVE, AS_TRAINED, FITTED


def html_tables(section: Section) -> list[str]:
  """The tables with their headings, if sets were measured."""
  if not remedies.measured(section):
    return []
  columns = remedies.columns(section)
  main = [c for c in (AS_TRAINED, ADAPTIVE, FITTED) if c in columns]
  others = [c for c in columns if c not in main]
  parts = ["<h3>Accuracy (%) against the size of the set</h3>", _main_table(section, main)]
  if others:
    parts += ["<h3>Accuracy (%) with the other remedies</h3>", _accuracies(section, others)]
    parts += ["<h3><i>p</i> of the other remedies</h3>", _tests(section, others)]
  seeds = len(remedies.measured(section))
  what = "; ".join(f"{remedies.name(c)}: {text}" for c, text in remedies.options(section).items())
  note = (
    f"Mean ± standard deviation (n − 1) over {seeds} seed{'s' * (seeds > 1)}; <i>p</i>: two-sided "
    "paired t-test over seeds against the head as trained. Ceiling: how often the largest logit "
    f"belongs to the largest item. {html.escape(what)}{'.' * bool(what)} In full precision, with "
    'entropies and largest weights: <a href="retrieval.csv">retrieval.csv</a>.'
  )
  return [*parts, f"<p>{note}</p>"]


def csv_table(sweep: Sweep) -> str:
  """One row a size: mean and deviation of all that was measured, p and mean gain of remedies."""
  rows = []
  for section in filter(remedies.measured, sweep.sections):
    found = _everything(section)
    sizes = zip(remedies.sizes(section).tolist(), remedies.sets(section), strict=True)
    for i, (n, sets) in enumerate(sizes):
      row = {"setting": section.label, "n": n, "sets": sets}
      row["seeds"] = len(remedies.measured(section))
      for key, values in found.items():
        finite = values[np.isfinite(values[:, i]), i]
        row[f"{key}_mean"], row[f"{key}_sd"], _ = tables.statistics(finite)
        if key in remedies.columns(section)[1:]:
          row[f"{key}_gain"] = tables.statistics(remedies.gain(section, key)[:, i])[0]
          row[f"{key}_p"] = remedies.p_values(section, key)[i]
      rows.append(row)
  return tables.rows_as_csv(rows)


def _main_table(section: Section, main: list[str]) -> str:
  """The head as trained, adaptive temperatures with their p, and the ceiling."""
  n, sets = remedies.sizes(section), remedies.sets(section)
  heads, cells = ["<i>n</i>", "sets"], [[f"{m:,}" for m in n], [f"{count:,}" for count in sets]]
  for column in main:
    heads.append(html.escape(remedies.name(column)))
    cells.append(_means(remedies.values(section, "accuracy", column)))
    if column != AS_TRAINED:
      heads.append("<i>p</i>")
      cells.append([p_text(p) for p in remedies.p_values(section, column)])
  heads.append("ceiling")
  cells.append(_means(remedies.values(section, "ceiling")))
  return tables.rows_as_html(heads, list(zip(*cells, strict=True)))


def _accuracies(section: Section, columns: list[str]) -> str:
  cells = [_means(remedies.values(section, "accuracy", c)) for c in columns]
  return _by_size(section, columns, cells)


def _tests(section: Section, columns: list[str]) -> str:
  cells = [[p_text(p) for p in remedies.p_values(section, c)] for c in columns]
  return _by_size(section, columns, cells)


def _by_size(section: Section, columns: list[str], cells: list[list[str]]) -> str:
  heads = ["<i>n</i>", *(html.escape(remedies.name(c)) for c in columns)]
  sizes = [f"{m:,}" for m in remedies.sizes(section)]
  return tables.rows_as_html(heads, list(zip(sizes, *cells, strict=True)))


def _means(values: np.ndarray) -> list[str]:
  """A cell a size of accuracies [seeds, sizes]."""
  column = tables.Column("", "", lambda m: None)
  return [tables.cell(each[np.isfinite(each)], column, len(each)) for each in values.T]


def p_text(p: float | None) -> str:
  """A p-value as HTML: two decimals, or one digit and a power of ten below a hundredth."""
  if p is None:
    return "–"
  if p >= 0.01:
    return f"{p:.2f}"
  digits, power = f"{p:.0e}".split("e")
  return f"{digits}·10<sup>−{abs(int(power))}</sup>"


def _everything(section: Section) -> dict[str, np.ndarray]:
  """{name: [seeds, sizes]}: accuracies under the names of their columns, and all else."""
  columns = remedies.columns(section)
  found = {c: remedies.values(section, "accuracy", c) for c in columns}
  found |= {kind: remedies.values(section, kind) for kind in ("ceiling", "spread")}
  for kind in ("entropy", "max_weight"):
    found |= {f"{c}_{kind}": remedies.values(section, kind, c) for c in columns}
  return found
