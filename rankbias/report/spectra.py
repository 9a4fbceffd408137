"""Figures of spectra after training: rank by layer, singular values, the sweep of the tolerance."""

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbias.report import style
from rankbias.report.collect import Section

RTOL = 1e-3  # the tolerance of the ranks in result.json
FLOOR = 2e-8  # relative to the largest: singular values of float32 data below it are rounding
BY_LAYER = {
  "covariance_rank": "covariance rank",
  "numerical_rank": "numerical rank",
  "effective_rank": "effective rank",
}


def by_layer(section: Section) -> Figure:
  """Rank of every layer, one line per T, by three definitions."""
  figure, axes = style.panels(1, len(BY_LAYER), 2.6, sharey=True)
  x = np.arange(1, len(section.layers) + 1)
  for ax, (measure, title) in zip(axes[0], BY_LAYER.items(), strict=True):
    for t, look in style.looks(section.temperatures).items():
      curves = [[m.rank(layer, measure) for layer in section.layers] for m in section.finished(t)]
      style.band(ax, x, curves, {**look, "markevery": max(1, len(x) // 10)})
    ax.set_title(title)
  for ax in axes[0]:  # which share their limits
    style.log_axis(ax, "rank (dimensions)")
    style.layer_axis(ax, len(section.layers))
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def singular_values(section: Section) -> Figure:
  """Singular values of the last hidden layer and the logits over the largest, one line per T."""
  layers = section.layers[-2:]
  figure, axes = style.panels(2, len(layers), 2.25, sharex="col", sharey=True)
  kinds = [("raw", "spectra", RTOL, "$10^{-3}$"), ("centred", "centered", RTOL**0.5, "$10^{-3/2}$")]
  for row, (kind, field, line, text) in zip(axes, kinds, strict=True):
    for ax, layer in zip(row, layers, strict=True):
      _spectra(ax, section, layer, field)
      ax.axhline(line, **style.REFERENCE)
      ax.annotate(text, (0.02, line), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
      ax.set_title(f"{style.layer_title(layer)}, {kind}")
      ax.set_xlabel("index 𝑖 of the singular value")
      ax.set_ylabel(r"$\sigma_i/\sigma_1$")
      ax.set_yscale("log")
      ax.yaxis.set_minor_locator(ticker.NullLocator())
      ax.set_ylim(bottom=max(ax.get_ylim()[0], FLOOR), top=2)
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def tolerance(section: Section) -> Figure:
  """Rank against the tolerance that defines it, one line per T."""
  layers = section.layers[-2:]
  kinds = {"covariance_rank": "covariance rank", "numerical_rank": "numerical rank"}
  figure, axes = style.panels(2, len(layers), 2.25, sharex=True, sharey="col")
  for row, measure in zip(axes, kinds, strict=True):
    for ax, layer in zip(row, layers, strict=True):
      for t, look in style.looks(section.temperatures).items():
        found = [m.record["tolerance"] for m in section.finished(t)]
        if found:
          x, curves = found[0]["rtol"], [sweep[measure][layer] for sweep in found]
          style.band(ax, x, curves, {**look, "markevery": max(1, len(x) // 10)})
      ax.set_xscale("log")
      ax.xaxis.set_minor_locator(ticker.NullLocator())
      ax.axvline(RTOL, **style.REFERENCE)
      ax.set_title(style.layer_title(layer))
      ax.set_xlabel("tolerance (relative to the largest)")
  for row, name in zip(axes, kinds.values(), strict=True):
    for ax in row:
      style.log_axis(ax, f"{name} (dimensions)")
  style.outer_labels(axes)
  style.legend(figure, axes[0, 0])
  return figure


def _spectra(ax: Axes, section: Section, layer: str, field: str) -> None:
  """Geometric mean over seeds of the normalised spectra; markers evenly along a log axis."""
  longest = 1
  for t, look in style.looks(section.temperatures).items():
    found = [getattr(m, field).get(layer) for m in section.finished(t)]
    curves = [s / s[0] for s in found if s is not None and s[0] > 0]
    if curves:
      longest = len(curves[0])
      marks = np.unique(np.logspace(0, np.log10(longest), 12).astype(int)) - 1
      look = {**look, "markevery": marks.tolist()} if longest > 20 else look
      style.band(ax, np.arange(1, longest + 1), curves, look, geometric=True)
  if longest > 20:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
  else:
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


FIGURES = (  # of `plots.PLOTS`
  {
    "name": "layers",
    "title": "Rank by layer",
    "draw": by_layer,
    "caption": "Rank of every measured layer in forward order, the logits last, for each "
    "temperature.",
    "spread": "bands",
    "needs": lambda section: section.has("ranks"),
  },
  {
    "name": "spectra",
    "title": "Singular values",
    "draw": singular_values,
    "caption": "Singular values divided by the largest. Above: of the matrix as it is, which "
    "numerical, "
    "effective and stable rank and participation ratio describe. Below: of the centred matrix, "
    "which covariance rank describes. The values above the dotted line are the ones the rank "
    "counts: 10<sup>−3</sup> of σ<sub>1</sub>, and 10<sup>−3</sup> of λ<sub>1</sub> = "
    "σ<sub>1</sub>². Values below 2·10<sup>−8</sup> are rounding and not shown.",
    "spread": "geometric",
    "needs": lambda section: section.has("ranks"),
  },
  {
    "name": "tolerance",
    "title": "The definition decides",
    "draw": tolerance,
    "caption": "Rank against the tolerance that defines it, for each temperature: eigenvalues of "
    "the "
    "covariance above, singular values below. Dotted: the tolerance used in the other figures.",
    "spread": "bands",
    "needs": lambda section: section.has("tolerance"),
  },
)
