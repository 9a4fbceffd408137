"""Figures of training: norm and rank of the logits, and their singular values, step by step."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Member, Section
from rankbias.report.spectra import RTOL

PANELS = 10  # temperatures with a panel of singular values, at most
LINES = 20  # singular values drawn in one panel, at most


def norm_and_rank(section: Section) -> Figure:
  """Raw and tempered logits norm, and the rank of the last hidden layer and of the logits."""
  figure, axes = style.panels(2, 2, 2.2, sharex=True)
  shown = [("logits:mean_norm", r"$\|z\|_2$", "logits norm, raw"),
           ("logits:tempered_mean_norm", r"$\|z\|_2\,/\,T$", "logits norm, tempered"),
           (f"{section.layers[-2:][0]}:covariance_rank", None, "rank of the last hidden layer"),
           ("logits:covariance_rank", None, "rank of the logits")]  # fmt: skip
  for ax, (field, ylabel, title) in zip(axes.flat, shown, strict=True):
    for t, look in style.looks(section.temperatures).items():
      _through_training(ax, section.finished(t), section.diverged(t), field, look)
    ax.set_title(title)
    style.log_axis(ax, ylabel or "covariance rank (dimensions)")
  last = max([m.rows[-1]["step"] for m in section.members if m.rows], default=1)
  for ax in axes.flat:
    style.step_axis(ax, last)
  for ax in axes[0]:
    ax.set_xlabel("")
  style.legend(figure, axes[0, 0])
  return figure


def singular_values(section: Section) -> Figure:
  """Singular values of the logits through training, one panel per T."""
  chosen = spread_out(section.temperatures, PANELS)
  columns = min(len(chosen), 5 if len(chosen) in (5, 9, 10) else 4)
  rows = -(-len(chosen) // columns)
  figure, axes = style.panels(rows, columns, 2.3 if rows == 1 else 1.9, sharex=True, sharey=True)
  last = 1
  for ax, t in zip(axes.flat, chosen, strict=False):
    members = section.finished(t) or section.diverged(t)
    steps, values = series(members[0], "logits:singular_values")
    if len(steps):
      _lines(ax, steps, values)
      last = max(last, steps[-1])
    ax.set_title(f"𝑇 = {t:g}" + ("" if members[0].finished else ", diverged"))
    style.log_axis(ax, "")
  for ax in axes.flat:
    style.step_axis(ax, last)
  for ax in axes.flat[len(chosen) :]:
    ax.remove()
  for ax in axes[:-1].flat:
    ax.set_xlabel("")
  for ax in axes[:, 0]:
    ax.set_ylabel(r"$\sigma_i$ of the logits")
  return figure


def _lines(ax: Axes, steps: np.ndarray, values: np.ndarray) -> None:
  """One line per singular value, or an even choice on a log scale of the index if many."""
  chosen = np.arange(values.shape[1])
  if len(chosen) > LINES:
    chosen = np.unique(np.logspace(0, np.log10(len(chosen)), LINES).astype(int)) - 1
  positive = np.where(values > 0, values, np.nan)
  for i, color in zip(chosen, style.shades(len(chosen)), strict=True):
    ax.plot(steps, positive[:, i], color=color, linewidth=0.9)
  ax.plot(steps, RTOL * positive[:, 0], **style.REFERENCE)


def _through_training(
  ax: Axes, finished: list[Member], diverged: list[Member], field: str, look: dict
) -> None:
  """Mean and band over the finished members; each diverged one a thin line that ends in a cross."""
  found = [s for m in finished if len((s := series(m, field))[0])]
  if found:
    steps = sorted(set(found[0][0]).intersection(*(s[0] for s in found[1:])))
    curves = [values[np.isin(x, steps)] for x, values in found]
    style.band(ax, steps, curves, look)
  for m in diverged:
    steps, values = series(m, field)
    if len(steps):
      ax.plot(steps, values, color=look["color"], linewidth=0.7, linestyle=look["linestyle"])
      ax.plot(steps[-1:], values[-1:], "x", color=look["color"], markersize=6, markeredgewidth=1.4)


def series(member: Member, field: str) -> tuple[np.ndarray, np.ndarray]:
  """(steps, values) of a measured number or list, where it is finite."""
  rows = [(r["step"], r[field]) for r in member.rows if r.get(field) is not None]
  rows = [(s, v) for s, v in rows if not (isinstance(v, list) and None in v)]
  return np.array([s for s, _ in rows]), np.array([v for _, v in rows], float)


def spread_out(values: list[float], count: int) -> list[float]:
  """At most `count` of the values, evenly."""
  if len(values) <= count:
    return values
  return [values[round(i)] for i in np.linspace(0, len(values) - 1, count)]


def was_trained(section: Section) -> bool:
  """Tells whether anything was measured through training."""
  return any(m.rows for m in section.members)


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "training",
    "title": "Logits norm and rank through training",
    "draw": norm_and_rank,
    "caption": "Mean Euclidean norm of a row of logits, as it is and divided by <i>T</i>, and the "
    "covariance "
    "rank, on fixed examples. The step axis is logarithmic from 1 on; 0 is the "
    "initialisation. A thin line that ends in a cross is a member that diverged.",
    "spread": "bands",
    "needs": was_trained,
  },
  {
    "name": "singular_values",
    "title": "Singular values of the logits through training",
    "draw": singular_values,
    "caption": "The singular values of the logits matrix on fixed examples, the largest darkest "
    f"(at most {LINES}, evenly on a logarithmic scale of the index), one panel per "
    "temperature. Dotted: 10<sup>−3</sup> of the largest, below which numerical rank does not "
    "count.",
    "spread": "",
    "needs": was_trained,
  },
)
