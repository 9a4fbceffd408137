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
  study_figure,
  study_tables,
  style,
  tables,
)
from rankbias.report.collect import BOTTLENECK, PERPLEXITY, Section, Sweep, collect
from rankbias.report.finding import finding, of_study
from rankbias.report.record import folded, record
from rankbias.report.study import study
from rankbias.report.what_was_run import what_was_run

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
  folder: runs.folder.PathLike,
  *,
  figures: bool = True,
  pdf: bool = False,
  redraw: bool = False,
  every: bool = False,
) -> pathlib.Path:
  """Draws a sweep's figures and writes report.html and table.csv into <workdir>/<config name>.

  Where settings differ in more than temperature and seed, study.csv compares them. Where sets
  of many sizes were measured, retrieval.csv is written too; where output layers were fitted to
  distributions, bottleneck.csv, and where they are those of language models, language.csv.

  Args:
    folder: the folder that holds the run folders.
    figures: False leaves them out, which takes a fraction of a second.
    pdf: also writes each figure as PDF.
    redraw: draws also what is present and newer than every result.json.
    every: draws all figures of every setting also where these are many.

  Returns:
    The path of report.html.
  """
  sweep = collect(folder)
  if figures:
    formats = ("svg", "png", "pdf") if pdf else ("svg", "png")
    plots.draw(sweep, formats=formats, redraw=redraw, every=every)
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
  if text := study_tables.csv_table(sweep):
    (sweep.folder / "study.csv").write_text(text, encoding="utf-8")
  path = sweep.folder / "report.html"
  path.write_text(_page(sweep, figures, every), encoding="utf-8")
  return path


def _page(sweep: Sweep, figures: bool, every: bool) -> str:
  parts = [_banner(sweep), f"<h1>{html.escape(sweep.name)}</h1>"]
  if len(sweep.sections) == 1:
    parts.append(f'<p class="lead">{finding(sweep.sections[0])}</p>')
  elif said := of_study(compared) if (compared := study(sweep)) else "":
    parts.append(f'<p class="lead">{said}</p>')
  parts += [*_notes(sweep), what_was_run(sweep), *_study(sweep, figures)]
  number, many = 1 + sum("<figure" in part for part in parts), plots.is_folded(sweep)
  for index, section in enumerate(sweep.sections):
    chosen = plots.shown(section, few=many and not every) if figures else ()
    own = _figures(sweep, section, index, chosen, number)
    number += len(chosen)
    own += language_tables.html_tables(sweep, section)
    own += [*answers.html_tables(section), *retrieval_tables.html_tables(section)]
    own += [*bottleneck_tables.html_tables(section), *_tables(section)]
    label, said = html.escape(section.label), f"<p>{finding(section)}</p>"
    if many:
      parts.append(folded(f"<b>{label}</b>", "\n".join([said, *own])))
    else:
      parts += [f"<h2>{label}</h2>\n{said}"] * bool(label) + own
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


def _study(sweep: Sweep, figures: bool) -> list[str]:
  """The settings and temperatures side by side, where there are several."""
  found = study(sweep)
  if not found:
    return []
  parts = []
  if figures and study_figure.panels(found):
    text = study_figure.caption(found)
    parts.append(_figure(sweep, study_figure.NAME, study_figure.TITLE, text, 1))
  parts += study_tables.html_tables(found)
  return ["<h2>Overview</h2>", *parts] if parts else []


def _figures(
  sweep: Sweep, section: Section, index: int, chosen: tuple[plots.Plot, ...], number: int
) -> list[str]:
  return [
    _figure(sweep, plots.stem(plot, index), plot.title, plots.caption(plot, section), i)
    for i, plot in enumerate(chosen, number)
  ]


def _figure(sweep: Sweep, stem: str, title: str, caption: str, number: int) -> str:
  svg = (sweep.folder / "figures" / f"{stem}.svg").read_text(encoding="utf-8")
  links = " · ".join(f'<a href="figures/{stem}.{k}">{k.upper()}</a>' for k in ("svg", "png"))
  return (
    f'<figure id="{stem}">\n{style.inline(svg, f"f{number}", title)}\n'
    f"<figcaption><b>Figure {number}. {title}.</b> {caption} {links}"
    "</figcaption>\n</figure>"
  )


def _tables(section: Section) -> list[str]:
  parts = []
  if section.has(BOTTLENECK) or section.has(PERPLEXITY):
    return parts
  for heading, columns in tables.tables(section).items():
    parts.append(f"<h3>{html.escape(heading)}</h3>\n{tables.html_table(section, columns)}")
  note = "Mean ± standard deviation (n − 1) over the seeds that finished. In full precision: "
  return [*parts, f'<p>{note}<a href="table.csv">table.csv</a>.</p>']
