"""The figure of a study: a panel for each quantity, a line for each setting, with intervals."""

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.quantities import FIGURE, QUANTITIES, Quantity
from rankbias.report.study import TEMPERATURE, Study, estimate, measured, short

COLUMNS = 3
HEIGHT = 1.75  # inches of a row of panels
ROOM = 3  # ranges of the means that bars may take on either side of them
DODGE = 0.012  # of the width of a panel, between lines, so that their bars can be told apart
NAME, TITLE = "study", "All quantities side by side"


def draw(found: Study) -> Figure:
  """Means and 95 % confidence intervals of what was measured, against the axis of the study."""
  quantities = panels(found)
  columns = min(COLUMNS, len(quantities))
  rows = -(-len(quantities) // columns)
  figure, axes = style.panels(rows, columns, HEIGHT if rows > 1 else 2.4)
  looks = _looks(found)
  for ax, quantity in zip(axes.flat, quantities, strict=False):
    lines = {name: _line(found, name, quantity) for name in found.lines}
    _limits(ax, quantity, [points for points in lines.values() if points.size])
    _horizontal(ax, found)
    for i, (name, points) in enumerate(lines.items()):
      if points.size:
        _bars(ax, points, i - (len(lines) - 1) / 2, looks[name])
    ax.set_title(quantity.title)
  for ax in axes.flat[len(quantities) :]:
    ax.remove()
  for i, ax in enumerate(axes.flat[: len(quantities)]):
    if i + columns < len(quantities):
      ax.set_xlabel("")
  if len(found.lines) > 1:
    style.legend(figure, axes[0], 4)
  return figure


def panels(found: Study) -> list[Quantity]:
  """The quantities of the figure that were measured."""
  there = {q.key: q for q in measured(found, QUANTITIES)}
  return [there[key] for key in FIGURE if key in there]


def caption(found: Study) -> str:
  """What the panels show and how the intervals are computed, in HTML."""
  groups = [members for line in found.lines.values() for members in line.values()]
  counts = [estimate(members, q).n for q in panels(found) for members in groups]
  seeds = sorted(set(counts) - {0})
  n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
  against = {TEMPERATURE: "the temperature", "": "the setting"}.get(found.axis)
  against = against or f"<code>{found.axis}</code>"
  text = f"What was measured after training against {against}, "
  text += "a line for each setting: " * (len(found.lines) > 1)
  text += f"mean over {n} seed{'s' if seeds[-1] > 1 else ''}"
  if seeds[-1] > 1:
    text += "; bars, cut where they leave the panel: the 95 % confidence interval of the "
    text += "mean, by Student's <i>t</i> over seeds"
    text += "; a single seed has none" * (seeds[0] == 1)
  lost = sum(not m.finished for g in found.settings.values() for m in g)
  text += f". {lost} members that diverged are in no mean" * bool(lost)
  says = dict.fromkeys(q.says for q in panels(found) if q.says)
  return " ".join([f"{text}.", *says])


def _looks(found: Study) -> dict[str, dict]:
  if not found.ordered:
    return style.hues(list(found.lines))
  looks = style.looks(list(range(len(found.lines)))).values()
  return {name: {**look, "label": name} for name, look in zip(found.lines, looks, strict=True)}


def _line(found: Study, name: str, quantity: Quantity) -> np.ndarray:
  """[points, 3]: place on the axis, mean, half-width (NaN of one seed)."""
  points = []
  for place, value in enumerate(found.values):
    mean, half, _ = estimate(found.lines[name].get(value, ()), quantity)
    if mean is not None:
      points.append((value if _is_log(found) else place, mean, np.nan if half is None else half))
  return np.array(points, float)


def _bars(ax: Axes, points: np.ndarray, rank: float, look: dict) -> None:
  x, mean, half = points.T
  moved = ax.transAxes.inverted().transform(ax.transData.transform(np.c_[x, mean]))
  moved[:, 0] += DODGE * rank
  x = ax.transData.inverted().transform(ax.transAxes.transform(moved))[:, 0]
  ax.errorbar(x, mean, yerr=np.where(half > 0, half, np.nan), capsize=1.5, elinewidth=0.7, **look)


def _limits(ax: Axes, quantity: Quantity, lines: list[np.ndarray]) -> None:
  """Room for all means, and for bars unless they dwarf these or go where no value can be."""
  _, mean, half = np.concatenate(lines).T
  half = np.nan_to_num(half)
  if quantity.log and mean.min() > 0:
    span = mean.max() / mean.min()
    room, pad = max(span, 1.5), max(span**0.08, 1.1)
    ends = np.where(mean > half, mean - half, mean.min() / room)
    low, high = max(ends.min(), mean.min() / room), min(np.max(mean + half), mean.max() * room)
    ax.set_ylim(low / pad, high * pad)
    style.log_axis(ax, "")
    return
  room = ROOM * np.ptp(mean) or 0.1 * np.abs(mean).max() or 1.0
  low = max(np.min(mean - half), mean.min() - room)
  high = min(np.max(mean + half), mean.max() + room)
  pad = 0.08 * (high - low) or room
  least, most = quantity.limits
  low, high = max(low - pad, least - pad), min(high + pad, most + pad)
  ax.set_ylim(low, high)
  ax.yaxis.set_major_locator(ticker.MaxNLocator(5))


def _is_log(found: Study) -> bool:
  """Tells whether the values of the axis are positive numbers; others have places side by side."""
  return bool(found.axis) and min(found.values) > 0


def _horizontal(ax: Axes, found: Study) -> None:
  if not _is_log(found):
    ax.set_xlim(-0.4, len(found.values) - 0.6)
    long = not found.axis
    labels = [v if long else f"{v:g}" for v in found.values]
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(range(len(labels)), labels, **turned)
    ax.set_xlabel("" if long else short([found.axis])[0])
    return
  style.temperature_axis(ax, found.values)
  if found.axis != TEMPERATURE:
    ax.set_xlabel(short([found.axis])[0])
