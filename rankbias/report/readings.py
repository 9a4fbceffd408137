"""How numbers are read off a trained network: from its record, or from what training measured."""

from collections.abc import Callable

import numpy as np

from rankbias.report.collect import Member

FITTED = 0.01  # the train loss, in nats, at which runs are compared
TOLERANCE = 1e-2  # of the ranks of a factored network that is compared


def entry(*path: str, times: float = 1.0) -> Callable[[Member], float | None]:
  """A number of the record, times a factor."""

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


def factored(key: str, times: float) -> Callable[[Member], float | None]:
  """An entry of the network whose kernels are factors by outputs, of ranks at `TOLERANCE`."""

  def get(member: Member) -> float | None:
    for row in member.found("compression", "curve") or ():
      if (row["method"], row.get("rtol")) == ("activations", TOLERANCE):
        return times * row[key]
    return None

  return get
