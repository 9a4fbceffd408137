"""The figures of a page: what each shows, and when there is something to show."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from rankbias.report import (
  against,
  answers,
  bottleneck,
  collapse,
  compression,
  dispersion,
  foreign,
  heatmaps,
  language,
  mechanism,
  reliability,
  remedies,
  retrieval,
  similarity,
  spectra,
  style,
  training,
  transfer,
)
from rankbias.report.collect import ANSWERS, BOTTLENECK, RETRIEVAL, Section

# Of a setting among many: what its line in the figure of the study does not tell.
KEPT = ("layers", "probes", "collapse", "training", "growth", "detection", "compression")

OF_TEMPERATURE = (
  against,
  spectra,
  transfer,
  foreign,
  collapse,
  training,
  mechanism,
  similarity,
  reliability,
  compression,
)


class Plot(NamedTuple):
  """One figure of the page; the caption is HTML and ends in how the spread is computed."""

  name: str
  title: str
  draw: Callable[[Section], style.Figure]
  caption: str
  # "bars", "bands", "geometric" (bands), a key of `plots.SPREADS`, or "" for one seed.
  spread: str
  needs: Callable[[Section], bool]  # whether there is something to show


def _has(*entries: str) -> Callable[[Section], bool]:
  return lambda section: section.has(*entries)


def _heat_map(column: str, title: str, text: str) -> Plot:
  return Plot(
    "attention" if column == remedies.AS_TRAINED else f"attention_{column}",
    title,
    partial(heatmaps.weights, column=column),
    f"Weights of attention {text}: a row is one of the first test sets, and its columns are the "
    "items with the largest priorities, in ascending order. A head that finds the maximum lights "
    "up the last column, and that alone.",
    "",
    partial(heatmaps.has, column=column),
  )


PLOTS = (
  Plot(
    "retrieval",
    "Accuracy against the size of the set",
    retrieval.accuracy,
    "Left: accuracy of the same parameters with and without an adaptive temperature. The ceiling "
    "is how often the largest logit belongs to the largest item: no sharpening finds it more "
    "often, though a wrong item may be of the right class. Right: what every remedy adds, on "
    "average, to the same seed as trained, and what the ceiling would.",
    "bands",
    _has(RETRIEVAL),
  ),
  Plot(
    "entropy",
    "Entropy against the size of the set",
    retrieval.entropy,
    "Entropy of the weights of attention, a mean over sets. Dotted: a row whose weights are all "
    "the same.",
    "bands",
    _has(RETRIEVAL),
  ),
  _heat_map(remedies.AS_TRAINED, "Attention disperses", "of the head as trained"),
  _heat_map(
    remedies.ADAPTIVE,
    "Attention, sharpened",
    "of the same head on the same sets with adaptive temperature",
  ),
  _heat_map(
    remedies.FITTED,
    "Attention, sharpened by its own fit",
    "of the same head on the same sets with the temperature fitted to it",
  ),
  Plot(
    "bounds",
    "What the spread of the logits allows",
    dispersion.bounds,
    "Left: the largest weight. Shaded: all that n logits allow whose largest and smallest differ "
    "by the measured spread δ (Lemma 2.1 in its sharp form, 1 / (1 + (<i>n</i> − 1) "
    "<i>e</i><sup>±δ</sup>), for the head as trained; an inverse temperature multiplies δ). The "
    "axis ends a little below a uniform row, whose slope is −1; where the lower bound is further "
    "down, it is given in words. Where δ is large neither bound binds. For comparison (thin): the "
    "largest of <i>n</i> weights whose logits are evenly spaced over δ. Right: δ, and the least "
    "with which one item could have a weight against <i>n</i> − 1 others.",
    "bands",
    _has(RETRIEVAL),
  ),
  Plot(
    "inverse_temperature",
    "Inverse temperature against entropy",
    dispersion.inverse_temperature,
    "Left: the published polynomial max(1, −0.037<i>H</i>⁴ + 0.481<i>H</i>³ − 2.3<i>H</i>² + "
    "4.917<i>H</i> − 1.791) for <i>H</i> &gt; 0.5, else 1. Shaded: the entropies of rows that it "
    "sharpens at all. Right, if fitted: the curve of every head, a dot for each bin of entropies "
    "that were seen, and dotted beyond them.",
    "lines",
    _has(RETRIEVAL),
  ),
  Plot(
    "exact",
    "Exact answers against the length of the question",
    answers.exact,
    "Answers that are right in every character, the trained lengths first.",
    "bands",
    _has(ANSWERS),
  ),
  Plot(
    "sharpness",
    "How sharp the heads are",
    answers.sharpness,
    "Where the first character of an answer is read off, as trained: mean over the heads of a "
    "layer, with a band from the lowest to the highest head, against the mean number of keys. "
    "Dotted: a row whose weights are all the same.",
    "",
    _has(ANSWERS),
  ),
  Plot(
    "fit",
    "Fit against width",
    bottleneck.fit,
    "KL divergence of the layer from its targets, and the part of the contexts whose likeliest "
    "class is the target's, for every output layer with free context vectors of width <i>d</i>. "
    f"Divergences below {bottleneck.LEAST_KL:g} are shown there.",
    "bands",
    _has(BOTTLENECK),
  ),
  Plot(
    "maps",
    "The increasing maps that are learned",
    bottleneck.maps,
    "The learned map of the logits over the range that the layer uses, at one width; a line for "
    "each seed, moved so that it is the identity on average. Dotted: the identity.",
    "lines",
    lambda section: section.has(BOTTLENECK) and bottleneck.has_maps(section),
  ),
  Plot(
    "log_spectra",
    "Singular values of the log-probabilities",
    bottleneck.spectra,
    "Singular values of the matrix of log-probabilities over the largest, at one width. Dotted: "
    "the rounding of float32, above which Press rank counts.",
    "geometric",
    _has(BOTTLENECK),
  ),
  *(Plot(**own) for own in language.FIGURES),
  *(Plot(**own) for module in OF_TEMPERATURE for own in module.FIGURES),
)
