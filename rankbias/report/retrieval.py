"""Figures against the size of the set: accuracy and entropy, for every remedy."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import remedies, style
from rankbias.report.collect import Section
from rankbias.report.remedies import ADAPTIVE, AS_TRAINED, FITTED

CEILING = {"color": "0.55", "linestyle": (0, (4, 2)), "label": "ceiling", "zorder": 3}


def accuracy(section: Section) -> Figure:
  """Accuracy of the head as trained and with an adaptive temperature; what every remedy gains."""
  columns = remedies.columns(section)
  figure, axes = style.panels(1, 1 + (len(columns) > 1), 3.2)
  n, looks = remedies.sizes(section), remedies.looks(section)
  for column in (c for c in (AS_TRAINED, ADAPTIVE, FITTED) if c in columns):
    style.band(axes[0, 0], n, remedies.values(section, "accuracy", column), looks[column])
  style.band(axes[0, 0], n, remedies.values(section, "ceiling"), CEILING)
  axes[0, 0].axhline(100 / section.classes, label="chance", **style.REFERENCE)
  axes[0, 0].set_ylim(0, 103)
  axes[0, 0].set_ylabel("accuracy (%)")
  for ax in axes[0, 1:]:
    _gains(ax, section, columns[1:], looks)
  for ax in axes[0]:
    style.size_axis(ax, n, 6 if len(columns) > 1 else 11)
  style.legend(figure, axes, 4)
  return figure


def entropy(section: Section) -> Figure:
  """Entropy of the weights, one line for every remedy, below the entropy of a uniform row."""
  figure, axes = style.panels(1, 1, 3.2)
  ax, n, looks = axes[0, 0], remedies.sizes(section), remedies.looks(section)
  uniform = style.REFERENCE | {"label": "log 𝑛, a uniform row"}
  ax.plot(n, np.log(n), **uniform)
  ends = [(n[-1], np.log(n[-1]), uniform)]
  for column, look in looks.items():
    found = remedies.values(section, "entropy", column)
    style.band(ax, n, found, look)
    ends.append((n[-1], found.mean(0)[-1], look))
  ax.set_ylabel("entropy of the weights (nats)")
  ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])
  style.size_axis(ax, n, 11)
  _end_labels(ax, ends)
  return figure


def _gains(ax: Axes, section: Section, columns: list[str], looks: dict) -> None:
  """Points above the same head as trained: means, as bands of so many would cover each other."""
  n = remedies.sizes(section)
  for column in columns:
    ax.plot(n, np.mean(remedies.gain(section, column), 0), **looks[column])
  gap = remedies.values(section, "ceiling") - remedies.values(section, "accuracy", AS_TRAINED)
  ax.plot(n, gap.mean(0), **CEILING)
  ax.axhline(0, **style.REFERENCE)
  ax.set_ylabel("gain in accuracy (points)")


def _end_labels(ax: Axes, ends: list[tuple[float, float, dict]]) -> None:
  """Labels beside the right ends (x, y) of lines, moved apart where they would overlap."""
  low, high = ax.get_ylim()
  size = matplotlib.rcParams["legend.fontsize"]
  gap = 1.25 * size / (ax.figure.get_figheight() * 0.8 * 72)  # of the height of the axes, about
  ends = sorted(ends, key=lambda end: end[1])
  places = [(y - low) / (high - low) for _, y, _ in ends]
  for i in range(1, len(places)):
    places[i] = max(places[i], places[i - 1] + gap)
  places[-1] = min(places[-1], 1)
  for i in reversed(range(len(places) - 1)):
    places[i] = min(places[i], places[i + 1] - gap)
  for (x, y, look), place in zip(ends, places, strict=True):
    color = look["color"]
    line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0, 0.5)}
    options = {"textcoords": "axes fraction", "va": "center", "color": color, "fontsize": size}
    ax.annotate(look["label"], (x, y), (1.05, place), arrowprops=line, **options)
