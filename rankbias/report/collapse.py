"""The figure of neural collapse: NC1 and NC2 by layer, NC2 to NC4 of the classifier against T."""

from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.against import mean_and_bars
from rankbias.report.collect import Section
from rankbias.report.transfer import by_layer

BY_LAYER = {"nc1": "NC1", "nc2": "NC2", "ortho_dev": "OrthoDev (NC5)", "cdnv": "CDNV"}
LOG = ("nc1", "cdnv")
OF_HEAD = {"nc2_kernel": "NC2 of the classifier", "nc3": "NC3", "nc4": "NC4"}


def collapse(section: Section) -> Figure:
  """Three measures by layer, one line per T; those of the linear head against T, if it is one."""
  shown = [key for key in BY_LAYER if _measured(section, key)][:3]
  last = [key for key in OF_HEAD if _measured(section, key)]
  figure, axes = style.panels(2 if last else 1, 3, 2.2)
  for ax, key in zip(axes[0], shown, strict=False):
    layers = by_layer(ax, section, ("collapse", "layers"), key)
    style.layer_axis(ax, len(layers))
    ax.set_title(BY_LAYER[key])
    if key in LOG:
      style.log_axis(ax, "")
  for ax, key in zip(axes[-1] if last else (), OF_HEAD, strict=False):
    look = {**style.looks([0])[0], "label": ""}
    mean_and_bars(
      ax, section, lambda m, k=key: m.found("collapse", "layers", m.last_hidden, k), look
    )
    style.temperature_axis(ax, section.temperatures)
    ax.set_title(OF_HEAD[key])
    ax.margins(y=0.1)
  style.legend(figure, axes[0, 0])
  return figure


def _measured(section: Section, key: str) -> bool:
  layers = [m.found("collapse", "layers") or {} for m in section.finished()]
  return any(own.get(key) is not None for found in layers for own in found.values())


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "collapse",
    "title": "Neural collapse",
    "draw": collapse,
    "caption": "Above, by layer, one line per temperature. NC1: tr(Σ<sub><i>W</i></sub> "
    "Σ<sub><i>B</i></sub><sup>+</sup>) / <i>C</i>. NC2: how far the centred class means are from a "
    "simplex. OrthoDev: mean absolute cosine between the mean of other data and the class means; "
    "CDNV in its place where there are no other data. Below, where the head is linear: how far its "
    "kernel is from a simplex (NC2), and from the class means of the last hidden layer (NC3), and "
    "the share of images for which it chooses the class of the nearest mean (NC4). All but NC4, "
    "which goes to 1, go to 0 as a network collapses.",
    "spread": "bands",
    "needs": lambda section: section.has("collapse"),
  },
)
