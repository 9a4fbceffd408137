"""Output layers of language models as numbers: perplexities, t-tests and ranks, HTML and CSV."""

import html
from collections.abc import Iterator
from typing import Any

import numpy as np

from rankbias.report import tables
from rankbias.report.bottleneck_tables import milliseconds
from rankbias.report.collect import PERPLEXITY, Member, Section, Sweep
from rankbias.report.language import LINEAR, heads, perplexities, welch_p
from rankbias.report.remedies import paired_p
from rankbias.report.retrieval_tables import p_text
from rankbias.report.setting import output_layer

RANK = "log_probability_rank"
LAST = "last_layer"
EPS = ("0.001", "0.0001", "1e-05")


def rows(sweep: Sweep, section: Section) -> Iterator[dict[str, Any]]:
  """What is known of every output layer: numbers, and arrays with one for each seed."""
  found = heads(section)
  splits = dict.fromkeys(s for own in found.values() for m in own for s in m.record[PERPLEXITY])
  for name, members in found.items():
    runs = [sweep.runs[m.folder] for m in members]
    row: dict[str, Any] = {"output layer": name, "seeds": len(members)}
    row["parameters"] = runs[0]["result"]["model"]["parameters"]
    row |= {split: perplexities(members, split) for split in splits}
    if LINEAR in found and name != LINEAR:
      row |= {f"{split} p": _tests(members, found[LINEAR], split) for split in splits}
    ranks = [m.record[RANK] for m in members if m.record.get(RANK)]
    row["Press rank"] = np.array([r["press_rank"] for r in ranks], float)
    for eps in EPS:
      row[f"effective rank {eps}"] = np.array([r["effective_rank"][eps] for r in ranks], float)
    last = [m.record[LAST] for m in members if m.record.get(LAST)]
    for title, key in (("never first", "never_first"), ("estimated width", "width")):
      row[title] = np.array([r[key] for r in last if r[key] is not None], float)
    row["best step"] = np.array([m.record["best"]["step"] for m in members if "best" in m.record])
    times = [t for t in map(milliseconds, runs) if t]
    row["milliseconds"] = np.array(times, float)
    yield row


def _tests(members: list[Member], base: list[Member], split: str) -> dict[str, float | None]:
  """Welch's t-test, and the paired one of the seeds that both have."""
  a, b = perplexities(members, split), perplexities(base, split)
  other = {m.record["seed"]: m.record[PERPLEXITY][split] for m in base}
  pairs = [(m.record[PERPLEXITY][split], other.get(m.record["seed"])) for m in members]
  differences = np.array([x - y for x, y in pairs if None not in (x, y)], float)
  return {"Welch": welch_p(a, b), "paired": paired_p(differences)}


def html_tables(sweep: Sweep, section: Section) -> list[str]:
  """The tables of output layers, if perplexities were measured."""
  found = list(rows(sweep, section))
  if not found:
    return []
  splits = list(heads(section)[found[0]["output layer"]][0].record[PERPLEXITY])
  names, ranked = ["output layer", "seeds", "parameters"], ["output layer", "Press rank"]
  for split in splits:
    names += [f"{split} perplexity", "<i>p</i>", "<i>p</i>, paired"]
  ranked += [f"effective rank at {eps}" for eps in ("10⁻³", "10⁻⁴", "10⁻⁵")]
  ranked += ["words never first", "estimated width", "best step", "ms a step"]
  main, ranks = [], []
  for row in found:
    own = [html.escape(row["output layer"])]
    cells = [*own, f"{row['seeds']}", f"{row['parameters']:,}"]
    for split in splits:
      tests = row.get(f"{split} p", {})
      cells += [_cell(row[split], 2), p_text(tests.get("Welch")), p_text(tests.get("paired"))]
    main.append(cells)
    numbers = ["Press rank", *(f"effective rank {eps}" for eps in EPS)]
    numbers += ["never first", "estimated width", "best step", "milliseconds"]
    ranks.append(own + [_cell(row[name], 0) for name in numbers])
  parts = ["<h3>Perplexity</h3>", tables.rows_as_html(names, main)]
  parts += ["<h3>Rank of the log-probabilities, and time</h3>", tables.rows_as_html(ranked, ranks)]
  return [*parts, f"<p>{_note(section)}</p>"]


def _note(section: Section) -> str:
  """What the numbers of the tables are, and each frozen map against the learned one."""
  return (
    "Mean ± standard deviation (n − 1) over seeds. <i>p</i>: two-sided t-test against the linear "
    "softmax, of unequal variances (Welch), and paired over the seeds that both have; not "
    "corrected for the number of tests. Press rank: singular values of the log-probabilities above "
    "the rounding of float32, ½ √(m + n + 1) ε σ<sub>1</sub>; effective rank at ε: the fewest "
    "that hold 1 − ε of the energy"
    f"{_matrix(section)}. Words never first: those that no features whatever could make the most "
    "probable, where logits are an increasing function of a linear layer. Estimated width: after "
    "which the singular values of doubly centred log-probabilities fall at least tenfold, if they "
    f"do. {_frozen(section)}In full precision: "
    '<a href="language.csv">language.csv</a>.'
  )


def csv_table(sweep: Sweep) -> str:
  """One row an output layer: mean, deviation and every seed's number of all that was measured."""
  found = []
  for section in sweep.sections:
    for row in rows(sweep, section):
      flat: dict[str, Any] = {"setting": section.label}
      for name, value in row.items():
        key = name.replace(" ", "_")
        if isinstance(value, np.ndarray):
          flat[f"{key}_mean"], flat[f"{key}_sd"], _ = tables.statistics(value)
        elif isinstance(value, dict):
          flat |= {f"{key}_{test.lower()}": p for test, p in value.items()}
        else:
          flat[key] = value
      found.append(flat)
  return tables.rows_as_csv(found)


def finding(section: Section) -> str:
  """The perplexities of the linear softmax and of the layer that is best on "valid"."""
  found = heads(section)
  splits = [
    s for s in ("valid", "test") if all(s in m[0].record[PERPLEXITY] for m in found.values())
  ]
  if not splits:
    return "No perplexity is of one split for all output layers."
  chosen, split = splits[0], splits[-1]  # who is best is not decided by what is then reported
  means = {name: perplexities(own, chosen) for name, own in found.items()}
  means = {name: values.mean() for name, values in means.items() if len(values)}
  if not means:
    return "No perplexity is finite."
  best = min(means, key=means.get)
  means = {name: perplexities(found[name], split).mean() for name in means}
  text = f"The {split} perplexity is {means[best]:.2f} with the layer best on {chosen}, {best}"
  if LINEAR in means and best != LINEAR:
    text += f", and {means[LINEAR]:.2f} with a linear softmax"
    p = _tests(found[best], found[LINEAR], split)["Welch"]
    several = f", one of {len(found) - 1} such tests" if len(found) > 2 else ""
    text += f" (<i>p</i> = {p_text(p)} by Welch's t-test{several})" if p is not None else ""
  return f"{text} (means over seeds)."


def _frozen(section: Section) -> str:
  """Each frozen map against the same one, learned, in a sentence."""
  found = heads(section)
  parts = []
  for members in found.values():
    own = output_layer(members[0].setting)
    twins = [n for n, m in found.items() if output_layer(m[0].setting) == own | {"frozen": False}]
    if own.get("frozen") and twins:
      split = "test" if "test" in members[0].record[PERPLEXITY] else "valid"
      test = _tests(found[twins[0]], members, split)
      a, b = (perplexities(m, split).mean() for m in (found[twins[0]], members))
      parts.append(
        f"{html.escape(twins[0])}: learned {a:.2f}, frozen {b:.2f} ({split}; <i>p</i> = "
        f"{p_text(test['Welch'])}, paired {p_text(test['paired'])}). "
      )
  return "".join(parts)


def _matrix(section: Section) -> str:
  found = [m.record[RANK] for own in heads(section).values() for m in own if m.record.get(RANK)]
  sizes = sorted({(r["contexts"], r["classes"]) for r in found})
  return f", of {', '.join(f'{m:,} contexts and {n:,} tokens' for m, n in sizes)}" if sizes else ""


def _cell(values: np.ndarray, decimals: int) -> str:
  return tables.cell(values, tables.Column("", "", lambda m: None, decimals), len(values))
