"""Draws the softmax family: on one vector, on three logits, and on rows that grow, with numbers.

python examples/softmax_family.py --out=docs/figures

softmax_family_vector: what every map of ops.NORMALIZERS makes of the same eight logits.
softmax_family_simplex: the first of three weights, for every map onto the simplex. White where it
  is exactly 0, and within the dashed line exactly 1.
softmax_family_length: what a logit that leads n - 1 equal ones by g = 5 gets, and what they get.
  Softmax leaves it e^g / (e^g + n - 1), scalable softmax 1 / (1 + (n - 1) n^(-s g)), which goes to
  1 where s g > 1, and entmax all where g >= 1 / (alpha - 1). Adaptive temperature stops sharpening
  where the entropy of softmax leaves the range of its fit, at 5.945 nats.

It prints the numbers of the last one. Takes half a minute.
"""

import argparse
import pathlib
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from rankbias import ops
from rankbias.report import style

LOGITS = np.float32([1.75, 1.25, 1.25, 0.75, 0.5, 0, -0.75, -1.5])
HIGH, LOW = 3.0, -2.0  # the logit that leads, and all others
ZERO = {"color": "#c1272d", "marker": "x", "markersize": 3.5, "linestyle": ""}
OUTLINE = {"color": "0.2", "linewidth": 0.7}


class Member(NamedTuple):
  """A map at the setting at which it is drawn."""

  name: str  # in ops.NORMALIZERS
  title: str
  own: dict | None = None

  def __call__(self, logits):
    if self.name == "power_mechanism":  # takes values that are not negative
      logits = np.maximum(logits, 0)
    return np.asarray(ops.normalizer(self.name, **(self.own or {}))(logits))


DENSE = [
  Member("softmax", "softmax"),
  Member("exponential_mechanism", "exp. mechanism, $ε$ = 1", {"epsilon": 1.0}),
  Member("logistic_softmax", "logistic-softmax"),
  Member("multimax", "MultiMax", {"ranges": (0.0, 1.0), "slopes": (-1.0, -0.5)}),
  Member("sigsoftmax", "sigsoftmax"),
  Member("adaptive_temperature_softmax", "adaptive temperature"),
  Member("scalable_softmax", "scalable, $s$ = 1", {"scale": 1.0}),
]
SPARSE = [
  Member("entmax", "1.25-entmax", {"alpha": 1.25}),
  Member("entmax15", "1.5-entmax"),
  Member("sparsemax", "sparsemax"),
  Member("piecewise_linear_softmax", "PLSoftMax, $δ$ = 2", {"delta": 2.0}),
]
CUT = [
  Member("t_softmax", "$t$-softmax, $t$ = 2", {"t": 2.0}),
  Member("r_softmax", "$r$-softmax, rate 0.4", {"rate": 0.4}),
  Member("topk_softmax", "top $k$ = 2, ties kept", {"k": 2}),
  Member("power_mechanism", "power 2 of max($z$, 0)", {"alpha": 2.0}),
]
FREE = [
  Member("softmax_plus_n", "softmax + 1"),
  Member("softpick", "softpick"),
  Member("sigmoid_weights", "sigmoids"),
]
GROUPS = {
  "dense": (DENSE, "#31688e"),
  "sparse": (SPARSE, "#21918c"),
  "cut": (CUT, "#35b779"),
  "any mass": (FREE, "#b5651d"),
}
ON_SIMPLEX = DENSE + SPARSE + CUT

LENGTH_MAPS = {
  "softmax": (ops.softmax, {"color": "#443983"}),
  "adaptive temperature": (
    ops.adaptive_temperature_softmax,
    {"color": "#31688e", "linestyle": (0, (5, 1.5))},
  ),
  "1.1-entmax": (
    partial(ops.entmax, alpha=1.1),
    {"color": "#1f8a70", "linestyle": (0, (5, 1.5, 1, 1.5))},
  ),
  "scalable softmax, $s$ = 0.43": (
    partial(ops.scalable_softmax, scale=0.43),
    {"color": "#b5651d", "linestyle": (0, (1, 1.2))},
  ),
  "1.5-entmax": (ops.entmax15, {"color": "#6ece58", "linewidth": 4, "zorder": 1.5}),
  "sparsemax": (ops.sparsemax, {"color": "0.2", "linewidth": 0.8, "zorder": 1.5}),
}


def draw_vector():
  """Returns the figure of the weights of LOGITS under every map, one panel each."""
  drawn = [(name, m, color) for name, (group, color) in GROUPS.items() for m in group]
  figure, axes = style.panels(-(-(len(drawn) + 1) // 4), 4, 1.12)
  for ax in axes.flat:
    ax.set(xticks=[], xlim=(-0.7, len(LOGITS) - 0.3), axisbelow=True)
  first, *others = axes.flat
  first.bar(range(len(LOGITS)), LOGITS, color="0.6")
  first.axhline(0, **OUTLINE)
  first.set_title("the logits $z$", loc="left")
  for ax, (name, member, color) in zip(others, drawn, strict=False):
    _bars(ax, member, color)
    if ax in axes[:, -1] or member is FREE[-1]:
      side = {"rotation": 270, "ha": "left", "va": "center", "color": color}
      ax.text(1.04, 0.5, name, transform=ax.transAxes, **side)
  _key(others[len(drawn) :])
  return figure


def _bars(ax, member, color):
  """One panel: the weights as bars, zeros marked, softmax as an outline."""
  weights, places = member(LOGITS), np.arange(len(LOGITS))
  ax.bar(places, weights, color=color)
  ax.stairs(np.asarray(ops.softmax(LOGITS)), np.arange(len(LOGITS) + 1) - 0.5, **OUTLINE)
  zeros = places[weights == 0]
  ax.plot(zeros, np.full(len(zeros), 0.035), **ZERO)
  ax.set(ylim=(0, 0.75), yticks=[0, 0.25, 0.5, 0.75], yticklabels=["0", "", "0.5", ""])
  ax.set_title(member.title, loc="left")
  if member in FREE:
    ax.text(0.97, 0.93, f"mass {weights.sum():.2f}", transform=ax.transAxes, ha="right", va="top")


def _key(spare):
  """What the marks mean, in place of the panels that are left."""
  for ax in spare:
    ax.axis("off")
  handles = [Line2D([], [], **OUTLINE, label="softmax"), Line2D([], [], **ZERO, label="exactly 0")]
  spare[0].legend(handles=handles, loc="center left", borderaxespad=0)


def draw_simplex(resolution=120):
  """Returns the figure of the first weight of (z1, z2, 0), one panel for every map."""
  figure, axes = style.panels(3, 5, 1.5, sharex=True, sharey=True)
  z = np.float32(np.arange(resolution) + 0.5) / resolution * 6 - 3
  logits = np.stack([*np.meshgrid(z, z), np.zeros((len(z), len(z)), np.float32)], -1)
  for ax, member in zip(axes.flat, ON_SIMPLEX, strict=True):
    weights = member(logits)
    _first_weight(ax, z, weights[..., 0], weights[..., 1:].sum(-1))
    ax.set_title(member.title, loc="left", fontsize=8.5)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
  style.outer_labels(axes)
  scale = ScalarMappable(cmap="viridis")
  bar = figure.colorbar(scale, ax=axes, location="bottom", aspect=50, ticks=[0, 0.25, 0.5, 0.75, 1])
  bar.ax.grid(visible=False)
  bar.set_label("$p_1$ of logits ($z_1$, $z_2$, 0); white: exactly 0, beyond the dashes: exactly 1")
  return figure


def _first_weight(ax, z, first, others):
  """One panel: p1 as colour, its contours, and the borders beyond which weights are zero."""
  image = np.where(first == 0, np.nan, first)
  ax.imshow(image, extent=(-3, 3, -3, 3), origin="lower", vmin=0, vmax=1, interpolation="none")
  ax.contour(z, z, first, [0.25, 0.5, 0.75], colors="white", linewidths=0.5)
  for values, dashes in ((first, "solid"), (np.where(first == 0, np.nan, others), "dashed")):
    if np.nanmin(values) == 0:
      # At 1e-7, above rounding. The fourth root is straight where 1.25-entmax leaves zero.
      line = {"colors": "black", "linewidths": 0.8, "linestyles": dashes}
      ax.contour(z, z, values**0.25, [1e-7**0.25], **line)
  ax.grid(visible=False)


def rows(lengths):
  """Returns the logit HIGH among n - 1 of LOW for every n, a row each, and which entries exist."""
  logits = np.full((len(lengths), max(lengths)), LOW, np.float32)
  logits[:, 0] = HIGH
  return logits, np.arange(max(lengths)) < np.asarray(lengths)[:, None]


def shares(normalizer, lengths):
  """Returns what the logit HIGH gets among n - 1 of LOW, and what those get, for every n."""
  logits, where = rows(lengths)
  weights = np.asarray(normalizer(logits, where=where))
  return weights[:, 0], weights[:, 1:].sum(1)


def length_table(longest=2**16):
  """Returns the numbers of `draw_length` as text, and where adaptive temperature sharpens."""
  lengths = [n for n in (16, 64, 256, 1024, 2**16) if n <= longest]
  lines = [" " * 29 + "".join(f"{f'n = {n:,}':>18}" for n in lengths)]
  for name, (normalizer, _) in LENGTH_MAPS.items():
    pairs = zip(*shares(normalizer, lengths), strict=True)
    cells = [f"{f'{kept:.3g} ({lost:.0e})':>18}" for kept, lost in pairs]
    lines.append(f"{name.replace('$', ''):<29}" + "".join(cells))
  every = np.arange(2, min(longest, 1024) + 1)
  logits, where = rows(every)
  sharp = every[ops.entropy_polynomial(ops.entropy(logits, where=where)) > 1]
  return "\n".join([*lines, f"adaptive temperature sharpens from n = {sharp[0]} to {sharp[-1]}"])


def draw_length(longest=2**16):
  """Returns the figure of the mass that one logit keeps among n, and of the mass it loses."""
  figure, axes = style.panels(1, 2, 2.8)
  left, right = axes[0]
  lengths = np.unique(np.round(2 ** np.arange(4, np.log2(longest) + 0.01, 0.125)).astype(int))
  for name, (normalizer, look) in LENGTH_MAPS.items():
    kept, lost = shares(normalizer, lengths)
    left.plot(lengths, kept, label=name, **look)
    if lost.any():
      right.plot(lengths, lost, **look)
  left.set(ylim=(0, 1.04), ylabel="weight of the logit ahead")
  right.set_ylim(1e-6, 3)
  style.log_axis(right, "weight of all others")
  exact = {"ha": "left", "va": "bottom", "transform": right.transAxes}
  right.text(0.03, 0.04, "1.5-entmax and sparsemax: exactly 0", **exact)
  for ax in axes.flat:
    ax.set_xscale("log", base=2)
    ax.set(xlim=(16, longest), xlabel="length of the row $n$")
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda n, _: f"{n:,.0f}"))
  style.legend(figure, left, columns=3)
  return figure


def main(arguments=None):
  """Draws the figures into a folder."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/figures"))
  parser.add_argument("--format", default="svg", choices=["svg", "png", "pdf"])
  parser.add_argument("--resolution", type=int, default=120, help="points along a logit")
  parser.add_argument("--longest", type=int, default=2**16, help="length of the longest row")
  flags = parser.parse_args(arguments)
  flags.out.mkdir(parents=True, exist_ok=True)
  with style.styled():
    figures = {
      "vector": draw_vector(),
      "simplex": draw_simplex(flags.resolution),
      "length": draw_length(flags.longest),
    }
    for name, figure in figures.items():
      style.save(figure, flags.out / f"softmax_family_{name}", [flags.format])
  print("weight of the logit ahead (of all others)", length_table(flags.longest), sep="\n")


if __name__ == "__main__":
  main()
