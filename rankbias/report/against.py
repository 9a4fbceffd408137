"""Figures against temperature: rank by every definition, accuracy, speed."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Member, Section

MEASURES = {
  "covariance_rank": r"covariance rank ($\lambda_i > 10^{-3}\lambda_1$)",
  "numerical_rank": r"numerical rank ($\sigma_i > 10^{-3}\sigma_1$)",
  "effective_rank": "effective rank",
  "stable_rank": "stable rank",
  "participation_ratio": "participation ratio",
}


def rank(section: Section) -> Figure:
  """Rank of the last hidden layer and of the logits against T, by five definitions."""
  layers = section.layers[-2:]
  figure, axes = style.panels(1, len(layers), 2.9, sharey=True)
  looks = style.looks(list(range(len(MEASURES)))).values()
  for ax, layer in zip(axes[0], layers, strict=True):
    for look, (measure, label) in zip(looks, MEASURES.items(), strict=True):
      mean_and_bars(ax, section, _rank_of(layer, measure), {**look, "label": label})
    ax.set_title(style.layer_title(layer), pad=22 if section.diverged() else None)
  for ax in axes[0]:
    style.log_axis(ax, "rank (dimensions)")
    ax.axhline(section.classes - 1, label=f"𝐶 − 1 = {section.classes - 1}", **style.REFERENCE)
    _mark_diverged(ax, section)
    style.temperature_axis(ax, section.temperatures)
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0], 3)
  return figure


def accuracy(section: Section) -> Figure:
  """Train and test accuracy, and the step of 99 % train accuracy, against T."""
  figure, axes = style.panels(1, 2, 2.6)
  left, right = axes[0]
  dark, light, _ = style.looks([0, 1, 2]).values()
  for split, look in (("train", dark), ("test", light)):
    mean_and_bars(left, section, _accuracy_of(split), {**look, "label": f"{split} accuracy"})
  left.set_ylabel("accuracy (%)")
  left.margins(y=0.08)
  mean_and_bars(right, section, lambda m: m.record["step_99"], {**dark, "label": "reached"})
  _mark_never(right, section)
  style.log_axis(right, "step of 99 % train accuracy")
  for ax in (left, right):
    _mark_diverged(ax, section)
    style.temperature_axis(ax, section.temperatures)
    if len(ax.get_legend_handles_labels()[0]) > 1:
      ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1 if section.diverged() else 1), ncols=2)
  return figure


def mean_and_bars(ax: Axes, section: Section, get: Callable, look: dict) -> None:
  """Mean over seeds against T; the bar goes from the lowest to the highest seed."""
  values = {t: section.values(t, get) for t in section.temperatures}
  points = [(t, v.mean(), v.min(), v.max()) for t, v in values.items() if len(v)]
  if points:
    t, mean, low, high = np.array(points).T
    bars = np.array([mean - low, high - mean])
    bars = np.where(bars > 0, bars, np.nan)  # no cap on the marker where there is no spread
    ax.errorbar(t, mean, yerr=bars, capsize=2, elinewidth=0.8, **look)


def _mark_diverged(ax: Axes, section: Section) -> None:
  """Above every T at which members diverged: a cross and how many of how many."""
  for t in section.temperatures:
    lost = len(section.diverged(t))
    if lost:
      text = f"×\n{lost}/{lost + len(section.finished(t))}"
      place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
      ax.annotate(text, (t, 1), fontsize=7.5, linespacing=0.85, **place)


def _mark_never(ax: Axes, section: Section) -> None:
  """An open triangle at the last step for every T at which members never reached 99 %."""
  never = {}
  for t in section.temperatures:
    steps = [m.record["steps"] for m in section.finished(t) if m.record["step_99"] is None]
    if steps:
      never[t] = max(steps)
  if never:
    look = {"linestyle": "", "marker": "^", "markersize": 5, "markerfacecolor": "none"}
    ax.errorbar(list(never), list(never.values()), color="0.2", label="never reached", **look)


def _rank_of(layer: str, measure: str) -> Callable[[Member], float | None]:
  return lambda m: m.rank(layer, measure)


def _accuracy_of(split: str) -> Callable[[Member], float | None]:
  return lambda m: m.accuracy(split)


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "rank",
    "title": "Rank against temperature",
    "draw": rank,
    "caption": "Rank of the last hidden layer and of the logits after training, by five "
    "definitions. "
    "Covariance rank: eigenvalues of the covariance above 10<sup>−3</sup> of the largest "
    "(centred). Numerical rank: singular values above 10<sup>−3</sup> of the largest. Effective "
    "rank: exponential of the entropy of the normalised singular values. Stable rank: "
    "‖·‖<sub>F</sub>² / σ<sub>1</sub>². Participation ratio: (Σσ²)² / Σσ⁴. Dotted: one less than "
    "the number of classes <i>C</i>.",
    "spread": "bars",
    "needs": lambda section: section.has("ranks"),
  },
  {
    "name": "accuracy",
    "title": "Accuracy and speed",
    "draw": accuracy,
    "caption": "Train and test accuracy after training, and the end of the first epoch whose "
    "images were at "
    "least 99 % right when visited. An open triangle: some members never got there. A cross above "
    "a temperature: how many of its members diverged.",
    "spread": "bars",
    "needs": lambda section: section.has("train", "test"),
  },
)
