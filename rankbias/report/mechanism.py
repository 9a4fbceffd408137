"""Figures of the mechanism: alignment, gain and norm of every kernel, and ranks of its gradient."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.against import mean_and_bars
from rankbias.report.collect import Member, Section
from rankbias.report.training import series, spread_out

PANELS = 4  # temperatures with a column of panels, at most
PARTS = {
  "log_weights": "singular values",
  "log_gain": "alignment (gain)",
  "log_nonlinearity": "between kernels",
}
THROUGH = {
  "alignment": "alignment",
  "log_gain": "gain",
  "log_weights": r"$\|W\|_2$",
}


def kernels(members: Sequence[Member], measure: str) -> list[str]:
  """The kernels that a measure was taken of, in forward order."""
  columns = dict.fromkeys(k for m in members for row in m.rows[:1] for k in row)
  return [k.removesuffix(f":{measure}") for k in columns if k.endswith(f":{measure}")]


def alignment(section: Section) -> Figure:
  """Alignment, gain and norm of each kernel through training, a column of panels for each T."""
  chosen = spread_out([t for t in section.temperatures if section.finished(t)], PANELS)
  names = kernels(section.members, "alignment")
  figure, axes = style.panels(len(THROUGH), len(chosen), 1.6, sharex=True, sharey="row")
  last = 1
  for row, (measure, label) in zip(axes, THROUGH.items(), strict=True):
    for ax, t in zip(row, chosen, strict=True):
      member = section.finished(t)[0]
      for name, color in zip(names, style.shades(len(names)), strict=True):
        steps, values = series(member, f"{name}:{measure}")
        if len(steps):
          values = np.exp(values) if measure.startswith("log") else values
          ax.plot(steps, values, color=color, linewidth=1.0)
          last = max(last, steps[-1])
      ax.set_ylabel(label)
  for ax in axes[1:].flat:  # which share their limits along a row
    style.log_axis(ax, ax.get_ylabel())
  for ax, t in zip(axes[0], chosen, strict=True):
    ax.set_title(f"𝑇 = {t:g}")
  for ax in axes.flat:
    style.step_axis(ax, last)
  style.outer_labels(axes)
  _legend(axes[0, 0], names)
  style.legend(figure, axes[0, 0])
  return figure


def _legend(ax: Axes, names: Sequence[str]) -> None:
  """The first kernel and the last; those between are in the order of their colours."""
  colors = style.shades(len(names))
  for i in dict.fromkeys((0, len(names) - 1)):
    ax.plot([], [], color=colors[i], label=("first" if i == 0 else "last") + f" ({names[i]})")


def growth(section: Section) -> Figure:
  """How the top singular value grows from kernel to kernel, and what changed since the start."""
  figure, axes = style.panels(1, 2, 2.8)
  left, right = axes[0]
  names = kernels(section.members, "log_gain")
  x = np.arange(len(names) + 1)
  for t, look in style.looks(section.temperatures).items():
    found = [own[-1] for m in section.finished(t) if (own := parts(m, names)) is not None]
    curves = [np.cumsum([0.0, *own.sum(0)]) for own in found]
    style.band(left, x, curves, {**look, "markevery": max(1, len(x) // 10)})
  left.set_xlabel("kernels that the inputs went through")
  left.set_ylabel(r"$\ln\,\|A_i\|_2\,/\,\|A_0\|_2$")
  looks = style.hues(list(PARTS.values())).values()
  for part, look in zip(PARTS, looks, strict=True):
    mean_and_bars(right, section, lambda m, part=part: _change(m, names, part), look)
  right.axhline(0, **style.REFERENCE)
  right.set_ylabel("change since the start (nats)")
  style.temperature_axis(right, section.temperatures)
  right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=7.5)
  style.legend(figure, left)
  return figure


def _change(member: Member, names: Sequence[str], part: str) -> float | None:
  """How much one part of the growth, of all kernels together, changed with training."""
  found = parts(member, names)
  return None if found is None else (found[-1] - found[0]).sum(1)[list(PARTS).index(part)]


def parts(member: Member, names: Sequence[str]) -> np.ndarray | None:
  """[steps, 3, kernels]: the parts of the growth in nats, or None where they are not finite."""
  columns = [[f"{name}:{part}" for name in names] for part in PARTS]
  rows = [[[r.get(c) for c in own] for own in columns] for r in member.rows]
  values = np.array(rows, float)
  return values if values.size and np.isfinite(values).all() else None


def gradients(section: Section) -> Figure:
  """Rank of the gradient by kernel before and after training, and against that of what came in."""
  names = kernels(section.members, "gradient_numerical_rank")
  incoming = dict(zip(names[1:], section.layers, strict=False))
  chain = len(names) == len(section.layers)  # else it is not known what comes into a kernel
  figure, axes = style.panels(1, 2 + chain, 2.6, sharey=True)
  for t, look in style.looks(section.temperatures).items():
    for ax, when in zip(axes[0], (0, -1), strict=False):
      curves = [[m.rows[when].get(_rank(k)) for k in names] for m in section.finished(t) if m.rows]
      curves = [c for c in curves if None not in c]
      own = {**look, "markevery": max(1, len(names) // 10)}
      style.band(ax, np.arange(1, len(names) + 1), curves, own)
    if chain:
      seen = [_pairs(m, incoming) for m in section.finished(t)]
      points = np.concatenate(seen) if seen else np.zeros((0, 2))
      mark = {k: look[k] for k in ("color", "marker")}
      axes[0, -1].plot(*points.T, linestyle="", markersize=2, alpha=0.5, markeredgewidth=0, **mark)
  for ax, title in zip(axes[0], ("before training", "after training"), strict=False):
    ax.set_title(title)
    _kernel_axis(ax, len(names))
  for ax in axes[0]:
    style.log_axis(ax, "rank of the gradient")
  if chain:
    _diagonal(axes[0, -1])
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def _pairs(member: Member, incoming: dict[str, str]) -> np.ndarray:
  """[measurements, 2]: ranks of what comes into a kernel and of its gradient; all but the first."""
  pairs = [
    (row.get(f"{layer}:numerical_rank"), row.get(_rank(name)))
    for row in member.rows
    for name, layer in incoming.items()
  ]
  return np.array([p for p in pairs if None not in p], float).reshape(-1, 2)


def _rank(name: str) -> str:
  return f"{name}:gradient_numerical_rank"


def _diagonal(ax: Axes) -> None:
  ax.set_xscale("log")
  low, high = ax.get_ylim()
  ax.plot([low, high], [low, high], **style.REFERENCE)
  ax.xaxis.set_major_locator(ax.yaxis.get_major_locator())
  ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
  ax.xaxis.set_minor_locator(ax.yaxis.get_minor_locator())
  ax.set_title("all through training")
  ax.set_xlabel("rank of what comes in")


def _kernel_axis(ax: Axes, count: int) -> None:
  step = max(1, -(-count // 8))
  ax.set_xticks(range(1, count + 1, step))
  ax.set_xlabel("kernel")


def _has(measure: str):
  return lambda section: bool(kernels(section.finished(), measure))


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "alignment",
    "title": "Alignment, gain and norm of every kernel",
    "draw": alignment,
    "caption": "Alignment: overlap of the leading directions of a kernel with those of what comes "
    "in. Gain: ‖<i>WA</i>‖<sub>2</sub> / ‖<i>W</i>‖<sub>2</sub>‖<i>A</i>‖<sub>2</sub>; 1 if the "
    "top directions are the same. Below, the largest singular value of the kernel. One line a "
    "kernel, the first the darkest.",
    "spread": "",
    "needs": _has("alignment"),
  },
  {
    "name": "growth",
    "title": "Growth of the top singular value",
    "draw": growth,
    "caption": "Left: logarithm of the largest singular value after each kernel, over that of the "
    "inputs, after training (the sum of the parts, which is this growth where layers are a chain). "
    "Right: how much of the growth from the inputs to the logits came with training, in nats: by "
    "larger singular values of the kernels, by better alignment with what comes in, and by what "
    "lies between kernels (nonlinearities, normalisation, other paths).",
    "spread": "bands",
    "needs": _has("log_gain"),
  },
  {
    "name": "gradients",
    "title": "Ranks of gradients",
    "draw": gradients,
    "caption": "Numerical rank, of singular values above 10<sup>−3</sup> of the largest, of the "
    "gradient of the loss on fixed examples with respect to each kernel. Right, where layers are a "
    "chain: against that of the activations that come in, a dot for each measurement, kernel and "
    "seed. Dotted: equal; exact ranks lie nowhere above it, ranks at a tolerance may.",
    "spread": "bands",
    "needs": _has("gradient_numerical_rank"),
  },
)
