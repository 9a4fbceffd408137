"""The figure of neural collapse: NC1 and NC2 by layer, NC2 to NC4 of the classifier against T."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.against import mean_and_bars
from rankbias.report.collect import Section
from rankbias.report.transfer import by_layer

BY_LAYER = {
  "nc1": "NC1",
  "nc1_trace_ratio": "NC1 of traces",
  "cdnv": "CDNV",
  "nc2": "NC2",
  "ortho_dev": "OrthoDev (NC5)",
}
LOG = ("nc1", "nc1_trace_ratio", "cdnv")
OF_HEAD = {"nc2_kernel": "NC2 of the classifier", "nc3": "NC3", "nc4": "NC4"}
COLUMNS = 3


def collapse(section: Section) -> Figure:
  """Measures by layer, one line per T, then those of the head against T, if it is linear."""
  shown = [key for key in (*BY_LAYER, *OF_HEAD) if _measured(section, key)]
  figure, axes = style.panels(-(-len(shown) // COLUMNS), COLUMNS, 2.1)
  for ax, key in zip(axes.flat, shown, strict=False):
    if key in OF_HEAD:
      _of_head(ax, section, key)
      continue
    layers = by_layer(ax, section, ("collapse", "layers"), key)
    style.layer_axis(ax, len(layers))
    ax.set_title(BY_LAYER[key])
    if key in LOG:
      style.log_axis(ax, "")
  for ax in axes.flat[len(shown) :]:
    ax.remove()
  style.legend(figure, axes[0, 0])
  return figure


def _of_head(ax: Axes, section: Section, key: str) -> None:
  look = {**style.looks([0])[0], "label": ""}
  mean_and_bars(ax, section, lambda m: m.found("collapse", "layers", m.last_hidden, key), look)
  style.temperature_axis(ax, section.temperatures)
  ax.set_title(OF_HEAD[key])
  ax.margins(y=0.1)


def _measured(section: Section, key: str) -> bool:
  layers = [m.found("collapse", "layers") or {} for m in section.finished()]
  return any(own.get(key) is not None for found in layers for own in found.values())


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "collapse",
    "title": "Neural collapse",
    "draw": collapse,
    "caption": "By layer, one line per temperature: three measures of the spread within classes "
    "over that between them, and two of where the class means lie. NC1: tr(Σ<sub><i>W</i></sub> "
    "Σ<sub><i>B</i></sub><sup>+</sup>) / <i>C</i>, whose pseudo-inverse weighs a direction the "
    "more the less the class means differ in it: it can grow where these lose rank. NC1 of traces: "
    "tr Σ<sub><i>W</i></sub> / tr Σ<sub><i>B</i></sub>, and CDNV: the mean over pairs of classes "
    "of their variance over the squared distance of their means; these weigh all directions alike. "
    "NC2: how far the centred class means are from a simplex. OrthoDev, where there are other "
    "data: mean absolute cosine between their mean and the class means. Against <i>T</i>, where "
    "the head is linear: how far its kernel is from a simplex (NC2), and from the class means of "
    "the last hidden layer (NC3), and the share of images for which it chooses the class of the "
    "nearest mean (NC4). All but NC4, which goes to 1, go to 0 as a network collapses.",
    "spread": "bands",
    "needs": lambda section: section.has("collapse"),
  },
)
