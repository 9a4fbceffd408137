"""The figure of calibration: how often a network is right that says it is sure, and how sure."""

import numpy as np
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Member, Section

LEAST = 10  # images of a bin, of all seeds together, that it takes to be shown
TITLES = {"before": "as trained", "after": "with the fitted temperature"}


def reliability(section: Section) -> Figure:
  """Accuracy against confidence in bins, before and after temperature scaling, one line per T."""
  figure, axes = style.panels(1, 2, 3.1, sharey=True)
  for ax, (when, title) in zip(axes[0], TITLES.items(), strict=True):
    ax.plot([0, 1], [0, 1], label="calibrated", **style.REFERENCE)
    for t, look in style.looks(section.temperatures).items():
      confidence, accuracy = pooled(section.finished(t), when)
      ax.plot(confidence, accuracy, **look)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=title)
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def pooled(members: list[Member], when: str) -> tuple[np.ndarray, np.ndarray]:
  """Mean confidence and accuracy of the bins over the images of all members, where they hold some.

  Each bin counts by its images.
  """
  tables = [m.found("calibration", when, "reliability") for m in members]
  tables = [table for table in tables if table]
  if not tables:
    return np.zeros(0), np.zeros(0)
  count, confidence, accuracy = (
    np.array([table[key] for table in tables], float) for key in ("count", "confidence", "accuracy")
  )
  total = count.sum(0)
  kept = total >= LEAST
  means = ((count * values).sum(0)[kept] / total[kept] for values in (confidence, accuracy))
  return tuple(means)


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "reliability",
    "title": "Calibration",
    "draw": reliability,
    "caption": "Accuracy against confidence, the largest probability, in bins of equal width, of "
    f"images the fit has not seen; bins with fewer than {LEAST} images of all seeds together are "
    "not shown. Left: as trained. Right: after temperature scaling. Dotted: calibrated; above it a "
    "network is too modest, below it too sure.",
    "spread": "pooled",
    "needs": lambda section: section.has("calibration"),
  },
)
