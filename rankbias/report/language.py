"""Output layers of language models: perplexity while training, spectra of the log-probabilities."""

import json
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtr

from rankbias.report import style
from rankbias.report.collect import PERPLEXITY, Member, Section
from rankbias.report.setting import HEAD_RATE, name_of_head, output_layer

LINEAR = "linear"  # what the others are held against
CURVE = "log_probabilities"
FIRST = (LINEAR, "sigsoftmax", "generalized_sigsoftmax", "tanh_cap", "plif")  # as they are shown
MACHINE = 2.0**-23  # the relative rounding of float32
POINTS = 400  # of a spectrum on a logarithmic axis, where thousands cannot be told apart
STEEP = 0.1  # a fall of the logarithm from one singular value to the next that is drawn in any case


def heads(section: Section) -> dict[str, list[Member]]:
  """The measured members of every output layer, one for each seed; linear first, mixtures last."""
  groups: dict[str, list[Member]] = {}
  for m in section.finished():
    if m.record.get(PERPLEXITY):
      groups.setdefault(json.dumps(output_layer(m.setting), sort_keys=True), []).append(m)
  found = sorted(groups.values(), key=lambda own: _place(output_layer(own[0].setting)))
  return dict(zip(_names([output_layer(own[0].setting) for own in found]), found, strict=True))


def _place(own: dict[str, Any]) -> tuple:
  """The key of the order in which output layers are shown."""
  kind = FIRST.index(own["name"]) if own["name"] in FIRST else len(FIRST)
  options = HEAD_RATE in own, bool(own.get("frozen")), own.get("knots", 0), json.dumps(own)
  return kind, own["name"], *options


def _names(found: list[dict[str, Any]]) -> list[str]:
  """What each output layer is called, with those options in which layers of one name differ."""
  names = []
  for own in found:
    alike = [other for other in found if other["name"] == own["name"]]
    differ = [k for k in own if len({json.dumps(other.get(k)) for other in alike}) > 1]
    parts = [name_of_head(own["name"])]
    parts += [_option(k, own[k]) for k in sorted(differ) if own[k] is not False]
    names.append(", ".join(parts))
  return names


def _option(name: str, value: Any) -> str:
  name = name.replace("_", " ")
  if value is True:
    return name
  return f"{name} {value:,.6g}" if isinstance(value, int | float) else f"{name} {value}"


def perplexities(members: list[Member], split: str) -> np.ndarray:
  """The perplexity of every seed on a split; those that do not exist are left out."""
  found = [m.record[PERPLEXITY].get(split) for m in members]
  return np.array([v for v in found if v is not None], float)


def welch_p(a: np.ndarray, b: np.ndarray) -> float | None:
  """Two-sided t-test of two means whose variances may differ; None where it does not exist."""
  if min(len(a), len(b)) < 2:
    return None
  parts = [x.var(ddof=1) / len(x) for x in (a, b)]
  if not sum(parts) > 0:
    return None
  freedom = sum(parts) ** 2 / sum(
    part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True)
  )
  return float(2 * stdtr(freedom, -abs(a.mean() - b.mean()) / np.sqrt(sum(parts))))


def training(section: Section) -> Figure:
  """Perplexity on the split that selects, against the step, and what it is above the linear one."""
  found = {name: _curves(members) for name, members in heads(section).items()}
  found = {name: own for name, own in found.items() if len(own[0])}
  compared = LINEAR in found and len(found) > 1
  figure, axes = style.panels(1, 1 + compared, 3.0)
  base = dict(zip(found[LINEAR][0], found[LINEAR][1].mean(0), strict=True)) if compared else {}
  for name, look in style.hues(list(found)).items():
    steps, curves = found[name]
    style.band(axes[0, 0], steps, curves, look)
    if compared:
      both = [i for i, step in enumerate(steps) if step in base]
      own = curves[:, both] - np.array([base[steps[i]] for i in both])
      style.band(axes[0, 1], [steps[i] for i in both], own, look)
  for ax, label in zip(axes[0], ("perplexity", "perplexity above linear"), strict=False):
    ax.set_ylabel(label)
    ax.set_xlabel("training step")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  if compared:
    _zoom(axes[0, 1])
  style.legend(figure, axes, 3)
  return figure


def _zoom(ax: Axes) -> None:
  """Limits the vertical axis to what lines with several points do in their second half."""
  lines = [line.get_ydata() for line in ax.lines if len(line.get_ydata())]
  late = np.concatenate([y[len(y) // 2 :] for y in lines])
  pad = 0.15 * np.ptp(late) + 0.05
  ax.set_ylim(late.min() - pad, late.max() + pad)


def has_training(section: Section) -> bool:
  """Tells whether a perplexity was measured while members trained."""
  return any(m.held_out for members in heads(section).values() for m in members)


def _curves(members: list[Member]) -> tuple[list[int], np.ndarray]:
  """(steps, perplexities [seeds, steps]) at the steps that all seeds were measured at."""
  series = [{r["step"]: r[PERPLEXITY] for r in m.held_out if r[PERPLEXITY]} for m in members]
  series = [own for own in series if own]
  steps = sorted(set(series[0]).intersection(*series[1:])) if series else []
  return steps, np.array([[own[step] for step in steps] for own in series], float)


def spectra(section: Section) -> Figure:
  """Singular values of the log-probabilities over the largest, for every output layer."""
  figure, axes = style.panels(1, 1, 3.4)
  ax, level = axes[0, 0], 1.0
  found = heads(section)
  for name, look in style.hues(list(found)).items():
    curves = [m.curves[CURVE] for m in found[name] if CURVE in m.curves]
    curves = [np.maximum(v / v[0], 1e-12) for v in curves]
    if curves:
      table = found[name][0].record["log_probability_rank"]
      level = 0.5 * np.sqrt(table["contexts"] + table["classes"] + 1) * MACHINE
      own = {**look, "marker": ""}
      drawn = _drawn(np.log(curves))
      style.band(ax, drawn + 1, np.array(curves)[:, drawn], own, geometric=True)
  ax.axhline(level, **style.REFERENCE)
  ax.set_xscale("log")
  ax.set_yscale("log")
  ax.set_ylim(level / 100, 2)
  ax.set_xlabel("index of the singular value")
  ax.set_ylabel(r"$\sigma_i\,/\,\sigma_1$")
  style.legend(figure, axes, 3)
  return figure


def _drawn(logs: np.ndarray) -> np.ndarray:
  """Which of the singular values [seeds, n] are drawn: evenly many on the axis, and every edge."""
  n = logs.shape[1]
  even = np.geomspace(1, n, POINTS).round().astype(int) - 1
  edges = np.flatnonzero((np.diff(logs) < -STEEP).any(0))
  return np.unique([*even, *edges, *(edges + 1)])


def has_spectra(section: Section) -> bool:
  """Tells whether the rank of log-probabilities was measured."""
  return any(CURVE in m.curves for members in heads(section).values() for m in members)


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "perplexity",
    "title": "Perplexity while training",
    "draw": training,
    "caption": "Left: perplexity on the split that selects, of every output layer. Right: how much "
    "it is above the mean of the linear softmax at the same step, on an axis for the second half "
    "of training.",
    "spread": "bands",
    "needs": has_training,
  },
  {
    "name": "log_probabilities",
    "title": "Singular values of the log-probabilities",
    "draw": spectra,
    "caption": "Singular values of the matrix of log-probabilities, contexts by tokens, over the "
    "largest. Dotted: the rounding of float32, above which Press rank counts.",
    "spread": "geometric",
    "needs": has_spectra,
  },
)
