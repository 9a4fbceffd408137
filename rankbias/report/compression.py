"""The figure of compression: accuracy against how many parameters are left, without training."""

from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Member, Section

METHODS = {"activations": "factors of outputs", "weights": "factors of weights"}


def compression(section: Section) -> Figure:
  """Accuracy of the factored network and of the one cut at a layer, one line per T."""
  methods = [m for m in METHODS if any(_curve(own, m) for own in section.finished())]
  cut = any(m.found("compression", "cuts") for m in section.finished())
  figure, axes = style.panels(1, len(methods) + cut, 2.8, sharey=True)
  for ax, method in zip(axes[0], methods, strict=False):
    for t, look in style.looks(section.temperatures).items():
      _line(ax, [_curve(m, method) for m in section.finished(t)], look)
    ax.set_title(METHODS[method])
  if cut:
    for t, look in style.looks(section.temperatures).items():
      cuts = [m.found("compression", "cuts") or {} for m in section.finished(t)]
      _line(axes[0, -1], [[own[k] for k in section.layers if k in own] for own in cuts], look)
      _rings(axes[0, -1], section.finished(t), look)
    axes[0, -1].set_title("cut at a layer")
  for ax in axes[0]:
    ax.set_xlim(0, max(1.04, ax.get_xlim()[1]))  # a probe may have more parameters than it saves
    ax.xaxis.set_major_locator(ticker.MultipleLocator(0.25))
    ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.set_xlabel("share of the parameters")
    ax.set_ylabel("accuracy (%)")
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def _curve(member: Member, method: str) -> list[dict]:
  """The truncations by one method, the weakest first; at a fraction where no tolerance is."""
  rows = [r for r in member.found("compression", "curve") or () if r["method"] == method]
  return [r for r in rows if "rtol" in r] or rows


def _line(ax: Axes, curves: Sequence[Sequence[dict]], look: dict) -> None:
  """Means over seeds of share and accuracy at every level; a small dot for each seed."""
  curves = [[(1 - r["saved"], 100 * r["accuracy"]) for r in curve] for curve in curves if curve]
  if not curves:
    return
  points = np.array([c for c in curves if len(c) == len(curves[0])], float)
  order = np.argsort(-points.mean(0)[:, 0])
  ax.plot(*points.mean(0)[order].T, **look)
  if len(points) > 1:
    flat = points.reshape(-1, 2)
    ax.plot(*flat.T, ".", color=look["color"], markersize=4, alpha=0.5, markeredgewidth=0)


def _rings(ax: Axes, members: Sequence[Member], look: dict) -> None:
  """A ring around each seed's cut after which a probe finds the other layers superfluous."""
  found = [m.found("compression", "superfluous_after") for m in members]
  points = [(1 - own["saved"], 100 * own["accuracy"]) for own in found if own]
  if points:
    ring = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.0, "label": ""}
    ax.plot(*np.array(points).T, "o", color=look["color"], **ring)


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "compression",
    "title": "How small the network can be made",
    "draw": compression,
    "caption": "Test accuracy against the share of parameters that are left, without further "
    "training. Every layer's kernel is replaced by two factors of the rank of what comes in, at "
    "several tolerances, which keep its outputs on real inputs best, or its weights; where a layer "
    "would not become smaller it stays. Cut: all after a layer is replaced by its linear probe. "
    "Rings, one a seed: the first layer whose probe is as good as that of the last hidden layer, "
    "on training images held out from both. Small dots are seeds.",
    "spread": "dots",
    "needs": lambda section: section.has("compression"),
  },
)
