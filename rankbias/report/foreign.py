"""The figure of the detection of foreign images: AUROC against T, and NECO by its dimension."""

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.against import mean_and_bars
from rankbias.report.collect import Section

NAMES = {
  "max_logit": "max logit",
  "msp": "MSP",
  "energy": "energy",
  "odin": "ODIN",
  "gen": "GEN",
  "kl_matching": "KL matching",
  "react": "ReAct",
  "vim": "ViM",
  "knn": "nearest neighbours",
  "neco": "NECO",
  "neco_standardized": "NECO, standardised",
  "neco_max_logit": "NECO × max logit",
}
UNTEMPERED = "_untempered"
MEASURES = {"auroc": "AUROC", "fpr95": "FPR at 95 %"}


def detection(section: Section) -> Figure:
  """AUROC and FPR95 of every detector against T, a line each; AUROC of NECO by dimension."""
  swept = any(m.found("neco_by_dimension", "dimension") for m in section.finished())
  figure, axes = style.panels(1, 2 + swept, 3.0)
  for ax, (measure, title) in zip(axes[0], MEASURES.items(), strict=False):
    for key, look in style.hues(list(detectors(section))).items():
      own = {**look, "label": NAMES.get(key, key), "markersize": 3}
      mean_and_bars(ax, section, lambda m, k=key, by=measure: m.found("ood", k, by), own)
    style.temperature_axis(ax, section.temperatures)
    ax.set_title(title)
  if swept:
    _neco(axes[0, -1], section)
  style.legend(figure, axes, 4)
  return figure


def detectors(section: Section) -> dict[str, None]:
  """The detectors of tempered logits that were tried, in the order of `NAMES`."""
  tried = dict.fromkeys(k for m in section.finished() for k in m.found("ood") or {})
  found = [k for k in tried if not k.endswith(UNTEMPERED)]
  return dict.fromkeys([k for k in NAMES if k in found] + [k for k in found if k not in NAMES])


def _neco(ax: Axes, section: Section) -> None:
  """AUROC against dimension at those dimensions that all seeds of a T have."""
  for t, look in style.looks(section.temperatures).items():
    sweeps = [m.found("neco_by_dimension") for m in section.finished(t)]
    tables = [dict(zip(s["dimension"], s["auroc"], strict=True)) for s in sweeps if s]
    shared = sorted(set(tables[0]).intersection(*tables[1:])) if tables else []
    if shared:
      curves = [[table[d] for d in shared] for table in tables]
      style.band(ax, shared, curves, {**look, "marker": "", "label": f"right: 𝑇 = {t:g}"})
  ax.set_xscale("log")
  ax.axvline(section.classes - 1, **style.REFERENCE)
  ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  ax.xaxis.set_minor_locator(ticker.NullLocator())
  ax.set_xlabel("dimensions of NECO")
  ax.set_title("AUROC of NECO")


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "detection",
    "title": "Detection of foreign images",
    "draw": detection,
    "caption": "How well each detector tells test images from those of other data: area under the "
    "ROC curve, and the share of the others that is accepted where 95 % of the test images are. "
    "Detectors see the logits divided by <i>T</i>. Right: NECO with its first dimensions alone; "
    "dotted: one less than the number of classes. A dimension chosen at the peak is chosen on the "
    "measured images, so the peak is an upper bound.",
    "spread": "bars",
    "needs": lambda section: section.has("ood"),
  },
)
