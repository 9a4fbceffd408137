"""Heat maps of attention: the weights of the largest items of some sets, one frame a size."""

import numpy as np
from matplotlib.figure import Figure

from rankbias.report import remedies, style
from rankbias.report.collect import Section

HEIGHT = 2.15  # inches of a row of frames


def has(section: Section, column: str) -> bool:
  """Tells whether there are weights to show."""
  return bool(_frames(section, column))


def weights(section: Section, column: str) -> Figure:
  """One frame a size: a set a row, its largest items in ascending order as columns."""
  frames = _frames(section, column)
  rows = -(-(len(frames) + 1) // 7)  # the place after the last frame is for the colours
  across = max(6, -(-(len(frames) + 1) // rows))
  figure, axes = style.panels(rows, across, HEIGHT, sharey=True)
  for ax, (n, frame) in zip(axes.flat, frames.items(), strict=False):
    sets, items = frame.shape
    box = (items + 0.5, 0.5, sets + 0.5, 0.5)  # ranks from the left: the largest item is the first
    # "none": files of vectors hold the numbers themselves, and show them with sharp edges.
    options = {"vmin": 0, "vmax": 1, "aspect": "auto", "extent": box, "interpolation": "none"}
    image = ax.imshow(frame, "Blues", **options)
    ax.set_title(f"𝑛 = {n:,}")
    ax.set_xticks(list({items, 1}))
    ax.set_yticks(list({1, sets}))
    ax.grid(False)
    ax.spines[:].set(visible=True, linewidth=0.4, color="0.6")
    ax.tick_params(length=2)
  for ax in axes.flat[len(frames) :]:
    ax.axis("off")
  place = axes.flat[len(frames)].inset_axes([0.1, 0.1, 0.14, 0.8])
  place.grid(False)
  figure.colorbar(image, cax=place, label="weight", ticks=np.linspace(0, 1, 6))
  figure.supxlabel("rank of the item by priority (1: the largest)", fontsize=9.5)
  figure.supylabel("set", fontsize=9.5)
  return figure


def _frames(section: Section, column: str) -> dict[int, np.ndarray]:
  """Size -> [sets, items], of the first member."""
  members = remedies.measured(section)
  found = members[0].weights if members else {}
  sizes = (int(key.rpartition("/")[2]) for key in found if key.rpartition("/")[0] == column)
  return {n: found[f"{column}/{n}"] for n in sorted(sizes)}
