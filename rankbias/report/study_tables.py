"""The settings of a study side by side: a row for each and T, as HTML, and all numbers as CSV."""

import html

from rankbias.report import tables
from rankbias.report.collect import Sweep
from rankbias.report.quantities import GROUPS
from rankbias.report.study import Study, by_temperature, estimate, measured, short, study

NOTE = (
  "Mean ± half the width of its 95 % confidence interval, by Student's <i>t</i> over the seeds "
  "that finished; one seed has none. All quantities in full precision: "
  '<a href="study.csv">study.csv</a>.'
)


def html_tables(found: Study) -> list[str]:
  """One table for each group of quantities that were measured."""
  parts = []
  for heading, group in GROUPS.items():
    quantities = measured(found, group)
    if quantities:
      heads = ["setting", "<i>T</i>", "seeds", *(html.escape(q.title) for q in quantities)]
      rows = _rows(found, quantities)
      if not found.fields:
        heads, rows = heads[1:], [row[1:] for row in rows]
      rows = tables.rows_as_html(heads, rows)
      parts += [f"<h3>{html.escape(heading)}</h3>", rows]
  return [*parts, f"<p>{NOTE}</p>"] if parts else []


def _rows(found: Study, quantities) -> list[list[str]]:
  rows = []
  for label, members in found.settings.items():
    for i, (t, group) in enumerate(by_temperature(members).items()):
      n = sum(m.finished for m in group)
      seeds = f"{n}" + (f" <b>+ {len(group) - n} diverged</b>" if n < len(group) else "")
      cells = [_cell(estimate(group, q), q.decimals, n) for q in quantities]
      rows.append([html.escape(label) if i == 0 else "", f"{t:g}", seeds, *cells])
  return rows


def _cell(found, decimals: int | None, expected: int) -> str:
  if found.mean is None:
    return "–"
  text = tables.number(found.mean, found.half, decimals)
  return text + (f" <b>({found.n} of {expected})</b>" if found.n < expected else "")


def csv_table(sweep: Sweep) -> str:
  """A row for each setting, T and quantity: mean, half-width of the 95 % interval, seeds."""
  found = study(sweep)
  if found is None:
    return ""
  quantities, rows = measured(found), []
  for label, members in found.settings.items():
    for t, group in by_temperature(members).items():
      own = {name: group[0].setting.get(f) for name, f in _columns(found)}
      for q in quantities:
        mean, half, n = estimate(group, q)
        row = {"setting": label, "temperature": t, **own, "quantity": q.key}
        rows.append({**row, "mean": mean, "half_width": half, "n": n})
  return tables.rows_as_csv(rows) if rows else ""


def _columns(found: Study) -> list[tuple[str, str]]:
  """The names of the varied fields, and the fields."""
  taken = ("setting", "temperature", "quantity", "mean", "half_width", "n")
  names = [name.replace(" ", "_") for name in short(found.fields)]
  names = [f if n in taken else n for n, f in zip(names, found.fields, strict=True)]
  return list(zip(names, found.fields, strict=True))
