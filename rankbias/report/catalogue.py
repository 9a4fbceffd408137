"""The figures of a page: what each shows, and when there is something to show."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from rankbias.report import (
  against,
  answers,
  bottleneck,
  dispersion,
  heatmaps,
  language,
  remedies,
  retrieval,
  spectra,
  style,
  training,
)
from rankbias.report.collect import ANSWERS, BOTTLENECK, RETRIEVAL, Section

# Of a setting among many: what its line in the figure of the study does not tell.
KEPT = ("layers", "training")


class Plot(NamedTuple):
  """One figure of the page; the caption is HTML and ends in how the spread is computed."""

  name: str
  title: str
  draw: Callable[[Section], style.Figure]
  caption: str
  spread: str  # "bars", "bands", "geometric" (bands), "lines" of each seed or "" for one seed
  needs: Callable[[Section], bool]  # whether there is something to show


def _has(*entries: str) -> Callable[[Section], bool]:
  return lambda section: section.has(*entries)


def _was_trained(section: Section) -> bool:
  return any(m.rows for m in section.members)


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
  Plot(
    "rank",
    "Rank against temperature",
    against.rank,
    "Rank of the last hidden layer and of the logits after training, by five definitions. "
    "Covariance rank: eigenvalues of the covariance above 10<sup>−3</sup> of the largest "
    "(centred). Numerical rank: singular values above 10<sup>−3</sup> of the largest. Effective "
    "rank: exponential of the entropy of the normalised singular values. Stable rank: "
    "‖·‖<sub>F</sub>² / σ<sub>1</sub>². Participation ratio: (Σσ²)² / Σσ⁴. Dotted: one less than "
    "the number of classes <i>C</i>.",
    "bars",
    _has("ranks"),
  ),
  Plot(
    "layers",
    "Rank by layer",
    spectra.by_layer,
    "Rank of every measured layer in forward order, the logits last, for each temperature.",
    "bands",
    _has("ranks"),
  ),
  Plot(
    "spectra",
    "Singular values",
    spectra.singular_values,
    "Singular values divided by the largest. Above: of the matrix as it is, which numerical, "
    "effective and stable rank and participation ratio describe. Below: of the centred matrix, "
    "which covariance rank describes. The values above the dotted line are the ones the rank "
    "counts: 10<sup>−3</sup> of σ<sub>1</sub>, and 10<sup>−3</sup> of λ<sub>1</sub> = "
    "σ<sub>1</sub>². Values below 2·10<sup>−8</sup> are rounding and not shown.",
    "geometric",
    _has("ranks"),
  ),
  Plot(
    "training",
    "Logits norm and rank through training",
    training.norm_and_rank,
    "Mean Euclidean norm of a row of logits, as it is and divided by <i>T</i>, and the covariance "
    "rank, on fixed examples. The step axis is logarithmic from 1 on; 0 is the "
    "initialisation. A thin line that ends in a cross is a member that diverged.",
    "bands",
    _was_trained,
  ),
  Plot(
    "singular_values",
    "Singular values of the logits through training",
    training.singular_values,
    "The singular values of the logits matrix on fixed examples, the largest darkest "
    f"(at most {training.LINES}, evenly on a logarithmic scale of the index), one panel per "
    "temperature. Dotted: 10<sup>−3</sup> of the largest, below which numerical rank does not "
    "count.",
    "",
    _was_trained,
  ),
  Plot(
    "accuracy",
    "Accuracy and speed",
    against.accuracy,
    "Train and test accuracy after training, and the end of the first epoch whose images were at "
    "least 99 % right when visited. An open triangle: some members never got there. A cross above "
    "a temperature: how many of its members diverged.",
    "bars",
    _has("train", "test"),
  ),
  Plot(
    "tolerance",
    "The definition decides",
    spectra.tolerance,
    "Rank against the tolerance that defines it, for each temperature: eigenvalues of the "
    "covariance above, singular values below. Dotted: the tolerance used in the other figures.",
    "bands",
    _has("tolerance"),
  ),
)
