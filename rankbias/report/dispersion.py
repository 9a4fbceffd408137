"""Figures of why a head disperses, and of what is done about it: bounds, inverse temperatures."""

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import remedies, style
from rankbias.report.collect import RETRIEVAL, Section

COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)  # the published beta(H), highest power first
ENTROPY_FLOOR = 0.5  # nats; at and below it beta is 1
KEPT = (0.5, 0.9)  # weights of one item, for which the right panel shows the spread they need


def bounds(section: Section) -> Figure:
  """The largest weight between its bounds, and the spread beside the one it would need."""
  figure, axes = style.panels(1, 2, 3.3)
  left, right = axes[0]
  n, spread = remedies.sizes(section), remedies.values(section, "spread")
  _between(left, n, spread.mean(0))
  looks = remedies.looks(section)
  for column in (remedies.AS_TRAINED, remedies.ADAPTIVE, remedies.FITTED):
    if column in looks:
      found = remedies.values(section, "max_weight", column)
      style.band(left, n, found, looks[column])
  style.band(right, n, spread, looks[remedies.AS_TRAINED])
  for weight, dash in zip(KEPT, ((0, (1, 1.2)), (0, (5, 1.5))), strict=True):
    needed = _log_rivals(n) + np.log(weight / (1 - weight))
    look = {"color": style.HUES[3], "linestyle": dash, "label": f"needed for a weight of {weight}"}
    right.plot(n, np.where(needed > 0, needed, np.nan), **look)
  style.log_axis(right, "spread 𝛿 of the logits (nats)")
  for ax in axes[0]:
    style.size_axis(ax, n, 6)
  style.legend(figure, axes, 3)
  return figure


def log_bounds(n: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """log 1/(1 + (n-1) e^delta) and log 1/(1 + (n-1) e^-delta), between which every weight lies."""
  return tuple(-np.logaddexp(0, _log_rivals(n) + sign * spread) for sign in (1, -1))


def evenly_spaced(n: np.ndarray, spread: np.ndarray) -> np.ndarray:
  """The largest of n weights whose logits lie at equal distances over the spread."""
  spaced = (np.exp(-np.linspace(0, delta, m)) for m, delta in zip(n, spread, strict=True))
  return np.array([1 / weights.sum() for weights in spaced])


def _log_rivals(n: np.ndarray) -> np.ndarray:
  """log(n - 1), which is -inf where an item is alone."""
  return np.log(n - 1, where=n > 1, out=np.full(len(n), -np.inf))


def _between(ax: Axes, n: np.ndarray, spread: np.ndarray) -> None:
  """What the spread allows, on axes that end a little below a uniform row."""
  low, high = log_bounds(n, spread)
  bottom = 0.3 / n[-1]
  shown = np.maximum(np.exp(low), bottom / 10)
  ax.fill_between(n, shown, np.exp(high), color="0.94", linewidth=0, zorder=0)
  line = {"color": "0.45", "linewidth": 1.0}
  ax.plot(n, np.exp(high), **line, linestyle=(0, (6, 2)), label="upper bound")
  if low.max() > np.log(bottom):
    ax.plot(n, np.exp(low), **line, linestyle=(0, (3, 1.5, 1, 1.5)), label="lower bound")
  else:
    text = f"lower bound $10^{{{low[0] / np.log(10):.0f}}}$ to $10^{{{low[-1] / np.log(10):.0f}}}$"
    ax.annotate(f"↓ {text}", (0.03, 0.03), xycoords="axes fraction", fontsize=8.5, color="0.3")
  ax.plot(n, evenly_spaced(n, spread), color="0.45", linestyle="-", linewidth=0.8,
          label="logits evenly spaced")  # fmt: skip
  ax.plot(n, 1 / n, label="uniform row: 1/𝑛", **style.REFERENCE)
  style.log_axis(ax, "largest weight")
  ax.set_ylim(bottom, 1.6)
  ax.yaxis.set_major_locator(ticker.LogLocator(base=10))
  ax.yaxis.set_major_formatter(ticker.LogFormatterMathtext())


def inverse_temperature(section: Section) -> Figure:
  """The published beta(H) with its range, and the curves that were fitted to the heads."""
  fitted = [m.record[RETRIEVAL].get("fitted") for m in remedies.measured(section)]
  fitted = [curve for curve in fitted if curve]
  figure, axes = style.panels(1, 1 + bool(fitted), 2.8, sharex=True)
  last = max(np.log(remedies.sizes(section)[-1]), valid_range()[1] + 1)
  h = np.linspace(0, last, 1000)
  _polynomial(axes[0, 0], h)
  _visited(axes[0, 0], section)
  for ax in axes[0, 1:]:
    _fits(ax, h, fitted)
  for ax in axes[0]:
    ax.set_xlim(0, last)
    ax.set_xlabel("entropy 𝐻 of the row (nats)")
  style.legend(figure, axes, 2)
  return figure


def polynomial(entropy: np.ndarray) -> np.ndarray:
  """The published inverse temperature, at least 1."""
  sharpened = np.maximum(np.polyval(COEFFICIENTS, entropy), 1)
  return np.where(entropy > ENTROPY_FLOOR, sharpened, 1.0)


def valid_range() -> tuple[float, float]:
  """The entropies between which the polynomial is above 1."""
  roots = np.roots(np.subtract(COEFFICIENTS, (0, 0, 0, 0, 1)))
  low, high = sorted(roots[(abs(roots.imag) < 1e-9) & (roots.real > ENTROPY_FLOOR)].real)
  return float(low), float(high)


def _polynomial(ax: Axes, h: np.ndarray) -> None:
  low, high = valid_range()
  ax.axvspan(low, high, color="0.94", zorder=0)
  text = f"above 1 for\n{low:.2f} < 𝐻 < {high:.2f}"
  ax.text((low + high) / 2, 0.62, text, ha="center", va="center", fontsize=8.5)
  raw = np.polyval(COEFFICIENTS, h)
  ax.plot(h, raw, color="0.45", linestyle=(0, (1, 1.2)), label="polynomial alone")
  ax.plot(h, polynomial(h), color=style.HUES[1], label="published 𝛽(𝐻)")
  ax.set_ylim(0, 3)
  ax.set_ylabel("inverse temperature 𝛽")


def _visited(ax: Axes, section: Section) -> None:
  """Where the heads are: a dot at their mean entropy as trained for every size."""
  h = remedies.values(section, "entropy", remedies.AS_TRAINED).mean(0)
  n = remedies.sizes(section)
  look = {"color": style.HUES[0], "linestyle": "", "marker": "o", "markersize": 3}
  ends = f"{n[0]:,}" + (f" to {n[-1]:,}" if len(n) > 1 else "")
  ax.plot(h, polynomial(h), **look, label=f"at the mean 𝐻 as trained, 𝑛 = {ends}")


def _fits(ax: Axes, h: np.ndarray, fitted: list[dict]) -> None:
  """A line a seed over the entropies that were seen; beyond them the end is kept."""
  label = "fitted, a line a seed"
  for curve, color in zip(fitted, style.shades(len(fitted)), strict=True):
    x, y = curve["entropies"], curve["values"]
    ax.plot([0, x[0]], [y[0]] * 2, [x[-1], h[-1]], [y[-1]] * 2, color=color, linewidth=0.6,
            linestyle=(0, (1, 1.2)))  # fmt: skip
    ax.plot(x, y, color=color, linewidth=0.9, marker="o", markersize=2.5, label=label)
    label = ""
  ax.plot(h, polynomial(h), color=style.HUES[1], label="published 𝛽(𝐻)")
  style.log_axis(ax, "inverse temperature 𝛽")
