"""Figures of other data: what a linear probe finds in each layer, and how foreign images show."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Section

TASKS = {"id": "the network's own classes", "ood": "classes of other data"}


def probes(section: Section) -> Figure:
  """Test accuracy of the probe of every layer in and out of distribution, one line per T."""
  tasks = [task for task in TASKS if _probed(section, task)]
  figure, axes = style.panels(1, len(tasks), 2.7)
  for ax, task in zip(axes[0], tasks, strict=True):
    layers = by_layer(ax, section, ("probe", task), "test", 100)
    style.layer_axis(ax, len(layers))
    ax.set_title(TASKS[task])
    ax.set_ylabel("accuracy of the probe (%)")
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def by_layer(
  ax: Axes, section: Section, path: Sequence[str], key: str, times: float = 1.0
) -> list[str]:
  """Draws record[path][layer][key] of every layer that has it, one line per T; returns these."""
  found = [m.found(*path) or {} for m in section.finished()]
  layers = [k for k in section.layers if any(own.get(k, {}).get(key) is not None for own in found)]
  x = np.arange(1, len(layers) + 1)
  for t, look in style.looks(section.temperatures).items():
    curves = [[m.found(*path, k, key) for k in layers] for m in section.finished(t)]
    curves = [np.array(c, float) * times for c in curves if None not in c]
    style.band(ax, x, curves, {**look, "markevery": max(1, len(x) // 10)})
  return layers


def _probed(section: Section, task: str) -> bool:
  return any(m.found("probe", task) for m in section.finished())


FIGURES: tuple[dict[str, str | Callable], ...] = (  # of `plots.PLOTS`
  {
    "name": "probes",
    "title": "What a linear probe finds in each layer",
    "draw": probes,
    "caption": "Test accuracy of a linear classifier that is fitted to the frozen features of each "
    "layer, the logits last: to the network's own classes, and to those of other data.",
    "spread": "bands",
    "needs": lambda section: section.has("probe"),
  },
)
