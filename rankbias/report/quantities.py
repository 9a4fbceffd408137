"""What one number says about a trained network: the quantities that a study compares."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from rankbias.report.collect import PERPLEXITY, Member
from rankbias.report.readings import (
  FITTED,
  TOLERANCE,
  alignment,
  entry,
  factored,
  fitted_temperature,
  orthogonality,
  rank_at_loss,
)


class Quantity(NamedTuple):
  """A number of a member, how it is called and how it is shown."""

  key: str  # in study.csv
  title: str  # of a panel and of a column
  get: Callable[[Member], float | None]
  decimals: int | None = 2  # None: three significant digits of the mean
  log: bool = False  # its axis
  limits: tuple[float, float] = (-np.inf, np.inf)  # values it cannot exceed
  says: str = ""  # what it is, for the caption, in HTML


SHARE = (0.0, 1.0)
PERCENT = (0.0, 100.0)
RANK = "Rank: eigenvalues of the covariance above 10<sup>−3</sup> of the largest."
SPREAD = "spread within classes over that between them"
OOD = "AUROC: of the detection of other data, by logits divided by <i>T</i>."


def _collapsed(key: str, title: str, says: str) -> Quantity:
  title = f"{title}, last hidden layer"
  return Quantity(key, title, partial(_of_collapse, key=key), None, True, says=says)


def _of_collapse(member: Member, key: str) -> float | None:
  return member.found("collapse", "layers", member.last_hidden, key)


def _detected(key: str, name: str) -> Quantity:
  get = entry("ood", key, "auroc")
  return Quantity(f"auroc_{key}", f"AUROC, {name}", get, 3, limits=SHARE, says=OOD)


GROUPS = {
  "Rank, norm and geometry": (
    Quantity(
      "last_hidden_covariance_rank",
      "rank, last hidden layer",
      lambda m: m.rank(m.last_hidden, "covariance_rank"),
      1,
      True,
      says=RANK,
    ),
    Quantity(
      "rank_at_loss",
      f"rank, last hidden layer, at loss {FITTED:g}",
      rank_at_loss,
      1,
      True,
      says=f"Rank at loss {FITTED:g}: when the train loss first fell to it, between measurements.",
    ),
    Quantity(
      "logits_covariance_rank",
      "rank, logits",
      lambda m: m.rank("logits", "covariance_rank"),
      1,
      True,
      says=RANK,
    ),
    Quantity(
      "tempered_mean_norm",
      "logits norm ‖z‖ / T",
      lambda m: m.norm("tempered_mean_norm"),
      None,
      True,
    ),
    Quantity(
      "alignment",
      "alignment",
      alignment,
      limits=SHARE,
      says="Alignment of kernels with what comes in: a mean over all of them.",
    ),
    _collapsed("nc1", "NC1", f"NC1: {SPREAD}, by a pseudo-inverse that weighs weak directions."),
    _collapsed("nc1_trace_ratio", "NC1 of traces", f"NC1 of traces: {SPREAD}, in total variance."),
    _collapsed("cdnv", "CDNV", f"CDNV: {SPREAD}, a mean over pairs of classes."),
    Quantity(
      "ortho_dev",
      "OrthoDev, last hidden layer",
      orthogonality,
      limits=SHARE,
      says="OrthoDev: mean absolute cosine of the mean of other data with the class means; 0 is "
      "orthogonal.",
    ),
  ),
  "Accuracy, transfer and calibration": (
    Quantity("train_accuracy", "train accuracy (%)", lambda m: m.accuracy("train"), limits=PERCENT),
    Quantity("test_accuracy", "test accuracy (%)", lambda m: m.accuracy("test"), limits=PERCENT),
    Quantity("valid_perplexity", "perplexity, valid", entry(PERPLEXITY, "valid")),
    Quantity("test_perplexity", "perplexity, test", entry(PERPLEXITY, "test")),
    Quantity(
      "effective_depth",
      "effective depth",
      entry("probe", "effective_depth", "0.95"),
      limits=SHARE,
      says="Effective depth: the share of hidden layers after which a linear probe has 95 % of the "
      "last one's accuracy.",
    ),
    Quantity(
      "ood_probe_accuracy",
      "probe of other data (%)",
      lambda m: entry("probe", "ood", m.last_hidden, "test", times=100)(m),
      limits=PERCENT,
      says="Probe of other data: accuracy of a linear classifier on the last hidden layer.",
    ),
    Quantity(
      "ood_drop",
      "OOD probe drop",
      entry("probe", "ood_drop"),
      limits=SHARE,
      says="OOD probe drop: the share of the best layer's accuracy on other data that the last "
      "hidden layer has lost; the best is chosen on the same images, which makes it larger.",
    ),
    _detected("max_logit", "max logit"),
    _detected("energy", "energy"),
    _detected("vim", "ViM"),
    _detected("neco", "NECO"),
    Quantity(
      "ece",
      "calibration error",
      entry("calibration", "before", "ece"),
      3,
      limits=SHARE,
      says="Calibration error: ECE with bins of equal width, as trained.",
    ),
    Quantity(
      "relative_temperature",
      "temperature of the fit",
      fitted_temperature,
      None,
      True,
      says="Temperature of the fit: the factor on T that calibrates the network best.",
    ),
  ),
}
GROUPS["Size"] = (
  Quantity(
    "factored_saved",
    "saved by factors (%)",
    factored("saved", 100),
    1,
    limits=PERCENT,
    says=f"Saved by factors: parameters, with kernels in two factors by outputs, of ranks at "
    f"{TOLERANCE:g}.",
  ),
  Quantity(
    "factored_accuracy",
    "accuracy with factors (%)",
    factored("accuracy", 100),
    limits=PERCENT,
    says="Accuracy with factors: on test images, without further training.",
  ),
  Quantity(
    "superfluous_saved",
    "saved by a cut (%)",
    entry("compression", "superfluous_after", "saved", times=100),
    1,
    limits=PERCENT,
    says="Saved by a cut: parameters, after the first layer whose probe is as good as that of the "
    "last hidden layer on held-out training images; the probe is in the place of the rest.",
  ),
  Quantity(
    "superfluous_accuracy",
    "accuracy of the cut (%)",
    entry("compression", "superfluous_after", "accuracy", times=100),
    limits=PERCENT,
    says="Accuracy of the cut: on test images.",
  ),
)
QUANTITIES = tuple(quantity for group in GROUPS.values() for quantity in group)
FIGURE = (  # the panels, in their order; the table and study.csv have all quantities
  "last_hidden_covariance_rank",
  "rank_at_loss",
  "logits_covariance_rank",
  "tempered_mean_norm",
  "test_accuracy",
  "valid_perplexity",
  "effective_depth",
  "ood_drop",
  "ood_probe_accuracy",
  "auroc_max_logit",
  "auroc_vim",
  "auroc_neco",
  "ece",
  "alignment",
  "nc1",
  "nc1_trace_ratio",
  "ortho_dev",
  "factored_saved",
  "factored_accuracy",
  "superfluous_saved",
  "superfluous_accuracy",
)
