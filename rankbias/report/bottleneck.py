"""Output layers on distributions: fit against width, maps that they learn, spectra they reach."""

from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import BOTTLENECK, Member, Section
from rankbias.report.setting import name_of_head

PLAIN = ("head.name", "head.use_bias", "head.width")  # fields that are no option in a name
LEAST_KL = 1e-4  # nats; what is below is shown there
MACHINE = 2.0**-23  # the relative rounding of float32


class Key(NamedTuple):
  """What a cell of the experiment is: a concentration of the targets, a width and a head."""

  concentration: float
  width: int
  head: str


class Cell(NamedTuple):
  """The members of a cell at the learning rate with the lowest mean KL, one for each seed."""

  rate: float
  members: list[Member]

  def values(self, measure: str, eps: str | None = None) -> np.ndarray:
    """One number for each seed; those that do not exist are left out."""
    found = [m.record[BOTTLENECK][measure] for m in self.members]
    found = found if eps is None else [ranks[eps] for ranks in found]
    return np.array([v for v in found if v is not None], float)


def cells(section: Section) -> dict[Key, Cell]:
  """Every cell, with what was measured at its better learning rate."""
  groups: dict[Key, dict[float, list[Member]]] = {}
  for m in section.finished():
    if m.record.get(BOTTLENECK):
      place = Key(m.setting["data.concentration"], width(m), head_name(m))
      groups.setdefault(place, {}).setdefault(m.record["learning_rate"], []).append(m)
  return {place: _best(rates) for place, rates in groups.items()}


def _best(rates: dict[float, list[Member]]) -> Cell:
  """The rate at which most seeds finished, and of these the one with the lowest mean KL."""

  def order(rate):
    kl = [m.record[BOTTLENECK]["kl"] for m in rates[rate]]
    return -len(kl), np.mean(kl)

  rate = min(rates, key=order)
  return Cell(rate, rates[rate])


def width(member: Member) -> int:
  """The columns of the kernel: the head's own, or those of the features."""
  return member.setting.get("head.width") or member.setting["model.width"]


def head_name(member: Member) -> str:
  """A head with its options: "PLIF, knots = 100"."""
  options = {
    field.removeprefix("head."): value
    for field, value in member.setting.items()
    if field.startswith("head.") and field not in PLAIN
  }
  name = member.setting["head.name"]
  parts = [name_of_head(name)]
  for option, value in sorted(options.items()):
    if value is True:
      parts.append(option)
    elif value is not False:
      parts.append(f"{option} = {value:g}" if isinstance(value, int | float) else f"{value}")
  ratio = member.setting["model.width"] / width(member)
  return ", ".join([*parts, f"features of {ratio:g} 𝑑"] if ratio != 1 else parts)


def axes_of(found: dict[Key, Cell]) -> tuple[list[float], list[int], list[str]]:
  """Concentrations and widths, ascending; heads: linear, with increasing maps, and the others."""
  mapped = {k.head for k, c in found.items() if c.members[0].record[BOTTLENECK]["increasing"]}

  def order(head):
    return head != "linear", head not in mapped, head.casefold()

  heads = sorted({k.head for k in found}, key=order)
  return sorted({k.concentration for k in found}), sorted({k.width for k in found}), heads


def fit(section: Section) -> Figure:
  """KL and matched modes against the width, a column for each concentration."""
  found = cells(section)
  concentrations, widths, heads = axes_of(found)
  figure, axes = style.panels(2, len(concentrations), 2.2, sharex=True, sharey="row")
  looks = style.hues(heads)
  for column, a in zip(axes.T, concentrations, strict=True):
    for head, look in looks.items():
      own = [d for d in widths if Key(a, d, head) in found]
      kl, modes = (
        [found[Key(a, d, head)].values(measure) for d in own] for measure in ("kl", "mode_match")
      )
      _line(column[0], own, [np.maximum(v, LEAST_KL) for v in kl], look)
      _line(column[1], own, [100 * v for v in modes], look)
    column[0].set_title(f"concentration {a:g}")
    style.size_axis(column[1], widths, 6)
    column[1].set_xlabel("width 𝑑")
  style.log_axis(axes[0, 0], "KL (nats)")
  axes[0, 0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  axes[1, 0].set_ylabel("modes matched (%)")
  axes[1, 0].set_ylim(-3, 103)
  _legend(figure, axes, heads)
  return figure


def maps(section: Section) -> Figure:
  """The learned increasing maps of logits, a line for each seed, at the middle width."""
  found = cells(section)
  concentrations, widths, heads = axes_of(found)
  d = middle(widths)
  figure, axes = style.panels(1, len(concentrations), 2.6)
  looks = style.hues(heads)
  for ax, a in zip(axes[0], concentrations, strict=True):
    for head in heads:
      for m in found[Key(a, d, head)].members if Key(a, d, head) in found else []:
        if _is_learned(m):
          ax.plot(m.curves["inputs"], m.curves["inputs"] + m.curves["map"], **_plain(looks[head]))
    ax.axline((0, 0), slope=1, **style.REFERENCE)
    ax.set_title(f"concentration {a:g}")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
    ax.set_xlabel("logit 𝑧")
  axes[0, 0].set_ylabel(f"mapped logit, 𝑑 = {d}")
  _legend(figure, axes, heads)
  return figure


def spectra(section: Section) -> Figure:
  """Singular values of the log-probabilities over the largest, at the middle width."""
  found = cells(section)
  concentrations, widths, heads = axes_of(found)
  d = middle(widths)
  figure, axes = style.panels(1, len(concentrations), 2.6, sharey=True)
  for ax, a in zip(axes[0], concentrations, strict=True):
    for head, look in style.hues(heads).items():
      if Key(a, d, head) not in found:
        continue
      values = [m.curves["spectrum"] for m in found[Key(a, d, head)].members]
      curves = [np.maximum(v / v[0], 1e-12) for v in values]
      style.band(ax, np.arange(1, len(curves[0]) + 1), curves, _plain(look), geometric=True)
    rows = found[next(iter(found))].members[0].setting["data.contexts"]
    level = 0.5 * np.sqrt(rows + section.classes + 1) * MACHINE
    ax.axhline(level, **style.REFERENCE)
    ax.set_yscale("log")
    ax.set_ylim(level / 30, 2)
    ax.set_xscale("log")
    ax.set_title(f"concentration {a:g}")
    ax.set_xlabel("index")
  axes[0, 0].set_ylabel(f"singular value, 𝑑 = {d}")
  _legend(figure, axes, heads)
  return figure


def middle(widths: list[int]) -> int:
  """The width of the figures that show one: where much is left to fit, below the middle."""
  return widths[(len(widths) - 1) // 2]


def has_maps(section: Section) -> bool:
  """Tells whether a head has learned an increasing map of its logits at the width that is shown."""
  found = cells(section)
  d = middle(axes_of(found)[1]) if found else None
  return any(_is_learned(m) for k, c in found.items() if k.width == d for m in c.members)


def _is_learned(member: Member) -> bool:
  setting = member.setting
  return (
    setting["head.name"] == "plif" and not setting.get("head.frozen") and "map" in member.curves
  )


def _legend(figure: Figure, axes: np.ndarray, heads: list[str]) -> None:
  style.legend(figure, axes, 3 if max(map(len, heads)) < 40 else 2)


def _line(ax: Axes, x: list[int], values: list[np.ndarray], look: dict) -> None:
  """The mean over seeds, and a band from the lowest to the highest; seeds may differ in number."""
  if x:
    ax.plot(x, [v.mean() for v in values], **look)
    low, high = ([f(v) for v in values] for f in (np.min, np.max))
    ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _plain(look: dict) -> dict:
  return {**look, "marker": "", "linewidth": 0.9}
