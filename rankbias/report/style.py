"""How figures look: sizes, type, one colour and marker per temperature, axes, saving."""

import contextlib
import pathlib
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 6.75  # inches: the text width of a two-column page
MARKERS = "osD^vPX<>p"
DASHES = ["-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 1, 2, 1, 2))]
# Told apart without red and green too; black for what others are held against.
HUES = ["#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7"]
HUES += ["#56b4e9", "#882255", "#e69f00", "#332288", "#777777"]
REFERENCE = {"color": "0.2", "linewidth": 0.8, "linestyle": (0, (1, 2)), "zorder": 1}
LAST = ("𝐶", "ceiling", "chance", "calibrated")  # how the labels of reference lines begin
RC = {
  "font.family": "STIXGeneral",
  "mathtext.fontset": "stix",
  "font.size": 9,
  "axes.titlesize": 9.5,
  "axes.labelsize": 9.5,
  "xtick.labelsize": 8.5,
  "ytick.labelsize": 8.5,
  "legend.fontsize": 8.5,
  "legend.frameon": False,
  "legend.handlelength": 2.6,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.linewidth": 0.6,
  "axes.grid": True,
  "grid.color": "0.9",
  "grid.linewidth": 0.5,
  "xtick.major.width": 0.6,
  "ytick.major.width": 0.6,
  "xtick.minor.width": 0.4,
  "ytick.minor.width": 0.4,
  "lines.linewidth": 1.2,
  "lines.markersize": 3.8,
  "lines.markeredgewidth": 0.6,
  "savefig.dpi": 200,
  "svg.hashsalt": "rankbias",
  "pdf.fonttype": 42,
}


@contextlib.contextmanager
def styled():
  """Figures drawn and saved inside look like ours, whatever the caller's settings, which stay."""
  kept = ("backend", "interactive", "webagg")
  default = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(kept)}
  with matplotlib.rc_context(default | RC):
    yield


def panels(rows: int, columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
  """A figure over the whole width with a grid of axes; `height` of one row in inches."""
  figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
  axes = figure.subplots(rows, columns, squeeze=False, **options)
  return figure, axes


def shades(count: int) -> list[str]:
  """Colours from dark to light, so that their order survives greyscale."""
  colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.84, max(count, 2)))
  return [matplotlib.colors.to_hex(color) for color in colors[:count]]


def looks(temperatures: list[float]) -> dict[float, dict]:
  """Line options for each temperature: dark to light in order of T, each its own marker."""
  colors = shades(len(temperatures))
  return {
    t: {
      "color": colors[i],
      "marker": MARKERS[i % len(MARKERS)],
      "linestyle": DASHES[i % len(DASHES)],
      "label": f"𝑇 = {t:g}",
    }
    for i, t in enumerate(temperatures)
  }


def hues(names: Sequence[str]) -> dict[str, dict]:
  """Line options for kinds that have no order: each its own colour and marker."""
  return {
    name: {
      "color": HUES[i % len(HUES)],
      "marker": MARKERS[i % len(MARKERS)],
      "linestyle": DASHES[i // len(HUES) % len(DASHES)],
      "label": name,
    }
    for i, name in enumerate(names)
  }


def band(axes: Axes, x, curves: Sequence, look: dict, *, geometric: bool = False) -> None:
  """The mean of the curves as a line; from the lowest to the highest as a band."""
  if not len(curves):
    return
  y = np.array(curves, float)
  if geometric:
    y = np.log(np.where(y > 0, y, np.nan))
  mean, low, high = y.mean(0), y.min(0), y.max(0)
  if geometric:
    mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
  axes.plot(x, mean, **look)
  if len(curves) > 1:
    axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def layer_title(layer: str) -> str:
  """Names a layer as figures show it."""
  return "logits" if layer == "logits" else f"last hidden layer ({layer})"


def outer_labels(axes: np.ndarray) -> None:
  """Keeps axis labels where several panels share them: at the left and at the bottom."""
  for ax in axes[:, 1:].flat:
    ax.set_ylabel("")
  for ax in axes[:-1].flat:
    ax.set_xlabel("")


LINE = 0.19  # inches of a line of a legend


def legend(figure: Figure, axes: Axes | np.ndarray, columns: int = 6) -> None:
  """One legend for all panels, below them; reference lines last."""
  found = [ax.get_legend_handles_labels() for ax in np.ravel(axes)]
  unique = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
  pairs = [(handle, label) for label, handle in unique.items()]
  pairs.sort(key=lambda pair: pair[1].startswith(LAST))
  for count in range(min(columns, len(pairs)), 0, -1):  # as many columns as there is room for
    options = {"loc": "outside lower center", "ncols": count, "columnspacing": 1.4}
    drawn = figure.legend(*zip(*pairs, strict=True), **options)
    if count == 1 or drawn.get_window_extent().width <= figure.bbox.width:
      rows = -(-len(pairs) // count) - -(-len(pairs) // min(columns, len(pairs)))
      figure.set_figheight(figure.get_figheight() + LINE * rows)
      return
    drawn.remove()


def log_axis(axes: Axes, label: str) -> None:
  """A logarithmic vertical axis with plain numbers at 1, 2, 5, 10, ... if there are few."""
  axes.set_yscale("log")
  axes.yaxis.set_minor_locator(ticker.NullLocator())
  low, high = axes.get_ylim()
  if high / low < 5:  # room for at least two labelled ticks
    low, high = np.sqrt(low * high) / 2.3, np.sqrt(low * high) * 2.3
    axes.set_ylim(low, high)
  subs = (1, 2, 5) if high / low < 3e3 else (1,)
  axes.yaxis.set_major_locator(ticker.LogLocator(base=10, subs=subs, numticks=20))
  if low >= 1e-3 and high < 1e5:
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  axes.set_ylabel(label)


def temperature_axis(axes: Axes, temperatures: list[float]) -> None:
  """A logarithmic axis with a tick at every T, labelled where there is room."""
  axes.set_xscale("log")
  t = np.array(temperatures)
  low, high = t.min(), t.max()
  pad = (high / low) ** 0.06 if high > low else 3.0
  axes.set_xlim(low / pad, high * pad)
  room = np.log10(high * pad * pad / low) * 0.085
  order = sorted(temperatures, key=lambda v: (np.log10(v) % 1 > 1e-9, v))  # powers of ten first
  labelled: list[float] = []
  for v in order:
    if all(abs(np.log10(v / other)) > room for other in labelled):
      labelled.append(v)
  axes.xaxis.set_major_locator(ticker.FixedLocator(sorted(labelled)))
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
  axes.xaxis.set_minor_locator(ticker.FixedLocator([v for v in temperatures if v not in labelled]))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  axes.set_xlabel("temperature 𝑇")


def step_axis(axes: Axes, last: int) -> None:
  """Logarithmic from step 1 on, with step 0 at the left end."""
  axes.set_xscale("symlog", linthresh=1, linscale=0.5)
  powers = [10**k for k in range(int(np.log10(max(last, 1))) + 1)]
  axes.set_xlim(-0.12, max(last, 1) * 1.25)
  axes.xaxis.set_major_locator(ticker.FixedLocator([0, *powers]))
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(_power))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.set_xlabel("training step")


def layer_axis(axes: Axes, count: int) -> None:
  """Numbers in forward order; the last is the logits."""
  step = max(1, -(-(count - 1) // 7))
  ticks = [i for i in range(1, count) if (i - 1) % step == 0 and (step == 1 or count - i >= step)]
  axes.set_xticks([*ticks, count], [*map(str, ticks), "logits"])
  axes.set_xlim(1 - 0.06 * count, count + 0.06 * count)
  axes.set_xlabel("layer")


def size_axis(axes: Axes, sizes: Sequence[int], most: int) -> None:
  """A logarithmic axis with a tick at every size of a set, at most `most` of them labelled."""
  axes.set_xscale("log")
  pad = (max(sizes) / min(sizes)) ** 0.04 if len(sizes) > 1 else 2.0
  axes.set_xlim(min(sizes) / pad, max(sizes) * pad)
  ordered = sorted(sizes)
  labelled = ordered[:: -(-len(ordered) // most)]
  axes.xaxis.set_major_locator(ticker.FixedLocator(labelled))
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda n, _: f"{n:,.0f}"))
  axes.xaxis.set_minor_locator(ticker.FixedLocator([n for n in ordered if n not in labelled]))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  axes.set_xlabel("size 𝑛 of the set")


def _power(value: float, _) -> str:
  return f"{value:g}" if value <= 1000 else f"$10^{{{np.log10(value):g}}}$"


def save(figure: Figure, stem: pathlib.Path, formats: Sequence[str]) -> None:
  """Writes stem.svg, stem.png and so on, the same bytes every time."""
  figure.draw_without_rendering()
  figure.set_layout_engine("none")  # the layout is computed once for all files
  undated = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}
  for kind in formats:
    figure.savefig(stem.with_suffix(f".{kind}"), metadata=undated[kind])


def inline(svg: str, prefix: str, title: str) -> str:
  """An SVG file as part of a page: no prologue, ids of its own, its size left to the page."""
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
  svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
  head, rest = svg.split(">", 1)
  head = re.sub(r' (width|height|version)="[^"]*"', "", head)
  return f'{head} role="img" aria-label="{title}">{rest}'
