"""The captions of the figures, and when they are drawn again."""

import pathlib
from collections.abc import Sequence

from rankbias.report import study_figure, style
from rankbias.report.catalogue import KEPT, PLOTS, Plot
from rankbias.report.collect import Section, Sweep
from rankbias.report.study import study

MOST = 4  # settings whose sections stand open and have all figures

SPREADS = {  # how captions end; others name bars or bands
  "lines": "{} seeds.",
  "pairs": "{} seeds.",
  "pooled": "{} seeds together.",
  "dots": "Mean over {} seeds.",
}


def caption(plot: Plot, section: Section) -> str:
  """The plot's caption with how many seeds there are and what their spread is."""
  seeds = ({m.record["seed"] for m in section.finished(t)} for t in section.temperatures)
  counts = sorted({len(each) for each in seeds} - {0})
  each = " of each temperature" if len(section.temperatures) > 1 else ""
  if not plot.spread:
    seed = min((m.record["seed"] for m in section.finished() or section.members), default=0)
    which = f"One seed{each}, {seed} where it finished" if each else f"Seed {seed}"
    return f"{plot.caption} {which}."
  if not counts:
    return f"{plot.caption} No member finished."
  if counts == [1]:
    return f"{plot.caption} One seed{each}, hence no spread."
  n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
  if plot.spread in SPREADS:
    return f"{plot.caption} {SPREADS[plot.spread].format(n)}"
  mean = "Geometric mean" if plot.spread == "geometric" else "Mean"
  shape = "bars" if plot.spread == "bars" else "bands"
  return f"{plot.caption} {mean} over {n} seeds; {shape} from the lowest to the highest seed."


def shown(section: Section, *, few: bool = False) -> tuple[Plot, ...]:
  """The figures that have something to show; of members that all diverged, those of training.

  Args:
    few: leaves out those whose story the figure of a study tells, or that are details of one T.
  """
  return tuple(plot for plot in PLOTS if (not few or plot.name in KEPT) and plot.needs(section))


def is_folded(sweep: Sweep) -> bool:
  """Tells whether there are so many settings that the figure of the study speaks for them."""
  return len(sweep.sections) > MOST and study(sweep) is not None


def stem(plot: Plot, index: int) -> str:
  """The figure's file name without its ending; `index` counts sections."""
  return plot.name if index == 0 else f"{plot.name}-{index + 1}"


def draw(
  sweep: Sweep,
  *,
  formats: Sequence[str] = ("svg", "png"),
  redraw: bool = False,
  every: bool = False,
) -> None:
  """Draws into <folder>/figures/ what is missing or older than the newest result.json.

  Args:
    every: also of many settings, of which otherwise few figures are drawn.
  """
  folder = sweep.folder / "figures"
  folder.mkdir(exist_ok=True)
  newest = max((sweep.folder / name / "result.json").stat().st_mtime_ns for name in sweep.runs)
  chosen = [
    (folder / stem(plot, index), plot.draw, section)
    for index, section in enumerate(sweep.sections)
    for plot in shown(section, few=is_folded(sweep) and not every)
  ]
  compared = study(sweep)
  if compared and study_figure.panels(compared):
    chosen.insert(0, (folder / study_figure.NAME, study_figure.draw, compared))
  with style.styled():
    for path, make, subject in chosen:
      if redraw or any(_is_stale(path, kind, newest) for kind in formats):
        style.save(make(subject), path, formats)


def _is_stale(path: pathlib.Path, kind: str, newest: int) -> bool:
  file = path.with_name(f"{path.name}.{kind}")
  return not file.exists() or file.stat().st_mtime_ns < newest
