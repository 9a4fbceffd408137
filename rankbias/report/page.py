"""The page: figures, tables and the record of a sweep in one HTML file that needs no network."""

import html
import pathlib

from rankbias import runs
from rankbias.report import (
  answers,
  bottleneck_tables,
  language_tables,
  plots,
  remedies,
  retrieval_tables,
  style,
  tables,
)
from rankbias.report.collect import BOTTLENECK, PERPLEXITY, Section, Sweep, collect
from rankbias.report.finding import finding
from rankbias.report.record import record

CSS = """
:root { font: 16px/1.5 Charter, "Iowan Old Style", Cambria, Georgia, serif; color: #1a1a1a; }
body { max-width: 54rem; margin: 3rem auto; padding: 0 1.25rem; background: #fff; }
h1 { font-size: 1.9rem; line-height: 1.15; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .3rem; }
h1, h2, h3, th { font-weight: 600; break-after: avoid; }
sub, sup { font-size: .7em; line-height: 0; }
.lead { font-size: 1.08rem; margin: 0 0 1.4rem; }
.banner { border: 3px solid #b00020; background: #fdeaec; padding: .9rem 1.1rem; }
.banner b { display: block; font-size: 1.25rem; color: #b00020; }
.banner { margin: 0 0 1.6rem; }
.note { border-left: 3px solid #999; padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .92rem; }
dt { color: #666; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 2rem 0 2.6rem; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; line-height: 1.42; margin-top: .5rem; }
a { color: #555; }
.scroll { overflow-x: auto; break-inside: avoid; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; }
table { font-variant-numeric: tabular-nums lining-nums; }
th { text-align: right; vertical-align: bottom; line-height: 1.2; }
td { text-align: right; white-space: nowrap; }
td span { color: #666; }
th, td { padding: .28rem 0 .28rem .9rem; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
thead { border-top: 1.5px solid #1a1a1a; border-bottom: .75px solid #1a1a1a; }
tbody { border-bottom: 1.5px solid #1a1a1a; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre, code { font: .82rem/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { background: #f6f6f4; padding: .8rem 1rem; overflow-x: auto; }
@media print { body { max-width: none; margin: 0; } :root { font-size: 10.5pt; } }
"""


def write_report(
  folder: runs.folder.PathLike, *, figures: bool = True, pdf: bool = False, redraw: bool = False
) -> pathlib.Path:
  """Draws a sweep's figures and writes report.html and table.csv into <workdir>/<config name>.

  Where sets of many sizes were measured, retrieval.csv is written too; where output layers were
  fitted to distributions, bottleneck.csv, and where they are those of language models,
  language.csv.

  Args:
    folder: the folder that holds the run folders.
    figures: False leaves them out, which takes a fraction of a second.
    pdf: also writes each figure as PDF.
    redraw: draws also what is present and newer than every result.json.

  Returns:
    The path of report.html.
  """
  sweep = collect(folder)
  if figures:
    plots.draw(sweep, formats=("svg", "png", "pdf") if pdf else ("svg", "png"), redraw=redraw)
  (sweep.folder / "table.csv").write_text(tables.csv_table(sweep), encoding="utf-8")
  if any(remedies.measured(section) for section in sweep.sections):
    text = retrieval_tables.csv_table(sweep)
    (sweep.folder / "retrieval.csv").write_text(text, encoding="utf-8")
  if any(section.has(BOTTLENECK) for section in sweep.sections):
    text = bottleneck_tables.csv_table(sweep)
    (sweep.folder / "bottleneck.csv").write_text(text, encoding="utf-8")
  if any(section.has(PERPLEXITY) for section in sweep.sections):
    text = language_tables.csv_table(sweep)
    (sweep.folder / "language.csv").write_text(text, encoding="utf-8")
  path = sweep.folder / "report.html"
  path.write_text(_page(sweep, figures), encoding="utf-8")
  return path


def _page(sweep: Sweep, figures: bool) -> str:
  parts = [_banner(sweep), f"<h1>{html.escape(sweep.name)}</h1>"]
  if len(sweep.sections) == 1:
    parts.append(f'<p class="lead">{finding(sweep.sections[0])}</p>')
  parts += [*_notes(sweep), _what_was_run(sweep)]
  for index, section in enumerate(sweep.sections):
    if section.label:
      parts.append(f"<h2>{html.escape(section.label)}</h2>\n<p>{finding(section)}</p>")
    parts += _figures(sweep, section, index) if figures else []
    parts += language_tables.html_tables(sweep, section)
    parts += [*answers.html_tables(section), *retrieval_tables.html_tables(section)]
    parts += [*bottleneck_tables.html_tables(section), *_tables(section)]
  body = "\n".join([*parts, record(sweep)])
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{html.escape(sweep.name)}</title>\n"
    f"<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
  )


def _banner(sweep: Sweep) -> str:
  if not sweep.fallback:
    return ""
  wanted, used = map(html.escape, sweep.name.split("-fallback-", 1))
  return (
    f'<div class="banner" role="alert"><b>FALLBACK: these are not the results of {wanted}.</b> '
    f"The images that {wanted} asks for could not be had. In its place the whole recipe of {used} "
    f"was run: data, model, steps and sweep. Nothing on this page speaks about {wanted}.</div>"
  )


def _notes(sweep: Sweep) -> list[str]:
  """What a reader must know before the figures: missing, lost and mixed members."""
  notes = []
  if sweep.unfinished:
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in sweep.unfinished)
    notes.append(f"<b>Unfinished and not shown</b> (the same command continues them): {names}.")
  members = [m for section in sweep.sections for m in section.members]
  lost = [m for m in members if not m.finished]
  if lost:
    where = (
      f"<i>T</i> = {m.temperature:g} seed {m.record['seed']} at step {m.record['stopped_at']}"
      for m in lost
    )
    head = f"<b>{len(lost)} of {len(members)} members diverged</b> and are in no mean: "
    notes.append(head + ", ".join(where) + ".")
  if sweep.repeated:
    notes.append(f"{sweep.repeated} members are in several run folders; each is counted once.")
  if len(sweep.sections) > 1:
    notes.append("Runs differ in more than temperature and seed; each setting has its section.")
  if sweep.following:
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in sweep.following)
    notes.append(f"These fields change along with the temperature: {names}.")
  return [f'<p class="note">{note}</p>' for note in notes]


def _what_was_run(sweep: Sweep) -> str:
  every = list(sweep.runs.values())
  result, environment = every[0]["result"], every[0]["environment"]
  data, model = result["data"], result["model"]
  members = [m for section in sweep.sections for m in section.members]
  temperatures = ", ".join(f"{t:g}" for t in sorted({m.temperature for m in members}))
  steps = ", ".join(f"{n:,}" for n in sorted({m.record["steps"] for m in members}))
  seeds = len({m.record["seed"] for m in members})
  seconds = sum(row.get("seconds") or 0 for run in every for row in run["timing"])
  commands = dict.fromkeys(run["environment"].get("command", "") for run in every)
  sizes = sorted({run["result"]["model"]["parameters"] for run in every})
  parameters = f"{sizes[0]:,}" + f" to {sizes[-1]:,}" * (len(sizes) > 1)
  fixed = "" if "train" in data else f"; {data.get('test', 0):,} fixed test examples"
  rows = {
    "data": f"{environment.get('data') or data['name']}; {data['classes']} classes{fixed}",
    "measured on": _sets(sweep),
    "model": f"{model['name']}, {model['weight_layers']} weight layers, {parameters} parameters",
    "members": f"{len(members)}: T = {temperatures}; {seeds} seeds; {steps} steps",
    "command": "; ".join(filter(None, commands)),
    "machine": _machine(environment),
    "time": f"{seconds:,.0f} s in {len(every)} program{'s' if len(every) > 1 else ''}",
    "code": _code(environment),
  }
  items = "\n".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in rows.items() if v)
  return f"<dl>\n{items}\n</dl>"


def _sets(sweep: Sweep) -> str:
  """Of which sizes were sets measured, and how many of each?"""
  found = {}
  for section in filter(remedies.measured, sweep.sections):
    n, sets = remedies.sizes(section), remedies.sets(section)
    counts = {count: [m for m, k in zip(n, sets, strict=True) if k == count] for count in sets}
    parts = (
      f"{m[0]:,}{f' to {m[-1]:,}' if len(m) > 1 else ''} items: {count:,} sets of each size"
      for count, m in counts.items()
    )
    found["; ".join(parts)] = None
  return f"{'; '.join(found)}; the same ones for every seed and remedy" if found else ""


def _machine(environment: dict) -> str:
  devices = environment.get("devices") or []
  shown = f"{len(devices)} × {devices[0]}" if len(devices) > 1 else "".join(devices)
  cpus = f"{environment['cpus']} CPUs" if environment.get("cpus") else ""
  return ", ".join(filter(None, [environment.get("platform"), cpus, shown]))


def _code(environment: dict) -> str:
  git = environment.get("git")
  version = f"rankbias {environment.get('versions', {}).get('rankbias', '')}".strip()
  if not git:
    return version
  return f"{version}, commit {git['commit'][:12]}" + (" with local changes" * git["dirty"])


def _figures(sweep: Sweep, section: Section, index: int) -> list[str]:
  parts = []
  before = sum(len(plots.shown(earlier)) for earlier in sweep.sections[:index])
  for number, plot in enumerate(plots.shown(section), 1 + before):
    stem = plots.stem(plot, index)
    svg = (sweep.folder / "figures" / f"{stem}.svg").read_text(encoding="utf-8")
    links = " · ".join(f'<a href="figures/{stem}.{k}">{k.upper()}</a>' for k in ("svg", "png"))
    parts.append(
      f'<figure id="{stem}">\n{style.inline(svg, f"f{number}", plot.title)}\n'
      f"<figcaption><b>Figure {number}. {plot.title}.</b> {plots.caption(plot, section)} {links}"
      "</figcaption>\n</figure>"
    )
  return parts


def _tables(section: Section) -> list[str]:
  parts = []
  if section.has(BOTTLENECK) or section.has(PERPLEXITY):
    return parts
  for heading, columns in tables.tables(section).items():
    parts.append(f"<h3>{html.escape(heading)}</h3>\n{tables.html_table(section, columns)}")
  note = "Mean ± standard deviation (n − 1) over the seeds that finished. In full precision: "
  return [*parts, f'<p>{note}<a href="table.csv">table.csv</a>.</p>']
