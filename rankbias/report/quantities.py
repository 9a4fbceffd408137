"""What one number says about a trained network: the quantities that a study compares."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rankbias.report.collect import PERPLEXITY, Member

FITTED = 0.01  # the train loss, in nats, at which runs are compared


class Quantity(NamedTuple):
  """A number of a member, how it is called and how it is shown."""

  key: str  # in study.csv
  title: str  # of a panel and of a column
  get: Callable[[Member], float | None]
  decimals: int | None = 2  # None: three significant digits of the mean
  log: bool = False  # its axis
  limits: tuple[float, float] = (-np.inf, np.inf)  # values it cannot exceed
  says: str = ""  # what it is, for the caption, in HTML


def _entry(*path: str, times: float = 1.0) -> Callable[[Member], float | None]:
  def get(member: Member) -> float | None:
    value = member.found(*path)
    return None if value is None else times * value

  return get


def alignment(member: Member) -> float | None:
  """The mean over all kernels of their alignment with what comes in, at the last measurement."""
  last = member.rows[-1] if member.rows else {}
  found = [v for k, v in last.items() if k.endswith(":alignment") and v is not None]
  return float(np.mean(found)) if found else None


def orthogonality(member: Member) -> float | None:
  """OrthoDev of the last hidden layer, from whichever evaluation found it."""
  value = member.found("collapse", "layers", member.last_hidden, "ortho_dev")
  return member.record.get("ortho_dev") if value is None else value


def fitted_temperature(member: Member) -> float | None:
  """The relative temperature that calibrates best, where the fit of it ended."""
  own = member.record.get("calibration") or {}
  return own.get("relative_temperature") if own.get("converged") else None


def rank_at_loss(member: Member, loss: float = FITTED) -> float | None:
  """The last hidden layer's covariance rank when the loss on the measured images first fell to it.

  Interpolated between the two measurements around it, log rank against log loss; None where no
  measurement is below `loss`.
  """
  key = f"{member.last_hidden}:covariance_rank"
  found = [(row.get("loss"), row.get(key)) for row in member.rows]
  found = [(value, rank) for value, rank in found if value and rank]
  below = next((i for i, (value, _) in enumerate(found) if value <= loss), None)
  if not below:
    return None
  (after, last), (before, first) = np.log(found[below]), np.log(found[below - 1])
  share = (before - np.log(loss)) / (before - after)
  return float(np.exp(first + share * (last - first)))


SHARE = (0.0, 1.0)
PERCENT = (0.0, 100.0)
RANK = "Rank: eigenvalues of the covariance above 10<sup>−3</sup> of the largest."
OOD = "AUROC: of the detection of other data, by logits divided by <i>T</i>."


def _detected(key: str, name: str) -> Quantity:
  get = _entry("ood", key, "auroc")
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
    Quantity(
      "nc1",
      "NC1, last hidden layer",
      lambda m: m.found("collapse", "layers", m.last_hidden, "nc1"),
      None,
      True,
      says="NC1: spread within classes over that between them; 0 is collapse.",
    ),
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
    Quantity("valid_perplexity", "perplexity, valid", _entry(PERPLEXITY, "valid")),
    Quantity("test_perplexity", "perplexity, test", _entry(PERPLEXITY, "test")),
    Quantity(
      "effective_depth",
      "effective depth",
      _entry("probe", "effective_depth", "0.95"),
      limits=SHARE,
      says="Effective depth: the share of hidden layers after which a linear probe has 95 % of the "
      "last one's accuracy.",
    ),
    Quantity(
      "ood_probe_accuracy",
      "probe of other data (%)",
      lambda m: _entry("probe", "ood", m.last_hidden, "test", times=100)(m),
      limits=PERCENT,
      says="Probe of other data: accuracy of a linear classifier on the last hidden layer.",
    ),
    Quantity(
      "ood_drop",
      "OOD probe drop",
      _entry("probe", "ood_drop"),
      limits=SHARE,
      says="OOD probe drop: the share of the best layer's accuracy on other data that the last "
      "hidden layer has lost.",
    ),
    _detected("max_logit", "max logit"),
    _detected("energy", "energy"),
    _detected("vim", "ViM"),
    _detected("neco", "NECO"),
    Quantity(
      "ece",
      "calibration error",
      _entry("calibration", "before", "ece"),
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
  "ortho_dev",
)
