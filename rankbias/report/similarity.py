"""The figure of CKA: how alike the members of a sweep are, layer by layer."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Member, Section


def similarity(section: Section) -> Figure:
  """CKA of the last hidden layer between all members; by layer, with the lowest T that finished."""
  members = compared(section)
  figure, axes = style.panels(1, 2, 3.2, width_ratios=(1, 1.15))
  _heat_map(figure, axes[0, 0], members)
  _with_lowest(axes[0, 1], section, members)
  style.legend(figure, axes[0, 1])
  return figure


def compared(section: Section) -> list[Member]:
  """The finished members of the program that has most of them, in the order of T and seed."""
  programs: dict[str, list[Member]] = {}
  for m in section.finished():
    if m.similarity:
      programs.setdefault(m.folder, []).append(m)
  return max(programs.values(), key=len, default=[])


def between(first: list[Member], others: list[Member], layer: str) -> list[float]:
  """CKA of one layer between all pairs of networks, of different seeds where there are such."""
  pairs = [(a, b) for a, b in itertools.product(first, others) if a is not b]
  unlike = [(a, b) for a, b in pairs if a.record["seed"] != b.record["seed"]]
  values = [a.similarity[layer][b.index] for a, b in unlike or pairs]
  return [float(v) for v in values if np.isfinite(v)]


def _heat_map(figure: Figure, ax: Axes, members: list[Member]) -> None:
  layer = members[0].last_hidden or "logits"
  matrix = np.array([[a.similarity[layer][b.index] for b in members] for a in members])
  options = {"vmin": 0, "vmax": 1, "interpolation": "none"}
  image = ax.imshow(matrix, "viridis", **options)
  ax.grid(False)
  temperatures = [m.temperature for m in members]
  starts = [i for i, t in enumerate(temperatures) if i == 0 or t != temperatures[i - 1]]
  ends = [*starts[1:], len(members)]
  for start in starts[1:]:
    ax.axhline(start - 0.5, color="white", linewidth=0.8)
    ax.axvline(start - 0.5, color="white", linewidth=0.8)
  places = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)]
  labels = [f"{temperatures[start]:g}" for start in starts]
  ax.set_xticks(places, labels, rotation=90 if len(labels) > 6 else 0)
  ax.set_yticks(places, labels)
  ax.tick_params(length=0)
  ax.set_xlabel("temperature 𝑇 (within it, seeds)")
  ax.set_title(style.layer_title(layer))
  figure.colorbar(image, ax=ax, label="CKA", shrink=0.75)


def _with_lowest(ax: Axes, section: Section, members: list[Member]) -> None:
  lowest = members[0].temperature
  base = [m for m in members if m.temperature == lowest]
  layers = [k for k in section.layers if k in base[0].similarity]
  for t, look in style.looks(section.temperatures).items():
    own = [m for m in members if m.temperature == t]
    values = [between(own, base, layer) for layer in layers]
    shown = [(i, v) for i, v in enumerate(values, 1) if v]
    if shown:
      x = np.array([i for i, _ in shown])
      mean, low, high = np.array([(np.mean(v), min(v), max(v)) for _, v in shown]).T
      ax.plot(x, mean, **{**look, "markevery": max(1, len(x) // 10)})
      ax.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)
  style.layer_axis(ax, len(layers))
  ax.set_ylim(min(0, ax.get_ylim()[0]), 1.02)
  ax.set_title(f"with networks at 𝑇 = {lowest:g}")
  ax.set_ylabel("CKA")


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "similarity",
    "title": "How alike the networks are",
    "draw": similarity,
    "caption": "Linear CKA on the same images. Left: of the last hidden layer between all networks "
    "of a program; members of one seed begin alike. Right: of every layer with the networks of "
    "other seeds at the lowest temperature. Lines are means over pairs, bands from the lowest to "
    "the highest pair.",
    "spread": "pairs",
    "needs": lambda section: len(compared(section)) > 1,
  },
)
