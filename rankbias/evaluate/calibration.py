"""Is the network as often right as it says? Reliability, and what one temperature mends of it."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from rankbias.evaluate.labels import Seen, check_labels, first_labels
from rankbias.evaluate.outputs import Outputs, outputs
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.temperature_scaling import fit_temperature

Equal = Literal["width", "mass"]
Norm = Literal["l1", "l2", "max"]


class Reliability(NamedTuple):
  """The examples by their confidence; an empty bin has zeros.

  Attributes:
    edges: bin k is (edges[k], edges[k + 1]].
    confidence, accuracy: means over the examples of a bin.
  """

  edges: Float[Array, "bins_1"]
  confidence: Float[Array, "bins"]
  accuracy: Float[Array, "bins"]
  count: Float[Array, "bins"]


def calibration(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  fit_split: str | None = None,
  split: str = "test",
  images: int | None = None,
  bins: int = 15,
) -> dict[str, Any]:
  """Measures calibration on a split, as trained and after temperature scaling.

  What is fitted is the temperature t in softmax(log p / t) of the network's own probabilities p.
  Where p = softmax(z / T) that is softmax(z / (T t)), so t is relative to the temperature of
  training; a mixture's probabilities are sharpened or flattened as they are.

  The temperature is never fitted to images on which it is measured: both lines, before and after,
  are of images that the fit has not seen.

  Args:
    fit_split: where t is fitted. None takes "valid" where the data have it; where they have not,
      the images of `split` at even places, and measures the others.
    images: the first so many of each split; None takes all.

  Returns:
    {"calibration": {"fitted_on", "fit_images", "images", "relative_temperature", "converged" (see
    `fit_temperature`), and "before" and "after" {"ece", "ece_mass" (bins of equal mass), "mce" (the
    largest gap), "loss" (nats), and "reliability" {"edges", "confidence", "accuracy", "count"}}}}.

  Raises:
    ValueError: fit_split is split; there is no image to fit or none to measure; otherwise as
      `outputs`.

  Source: Guo et al. 2017, arXiv:1706.04599.
  """
  if fit_split == split:
    raise ValueError(
      f"fit_split={fit_split!r} is the split that is measured: choose another one, or None, which "
      "takes half of the images to fit and the others to measure"
    )
  for seen in labels_of_calibration(source, fit_split=fit_split, split=split, images=images):
    check_labels("calibration", *seen)
  measured = outputs(predictor, source, split, images=images)
  if fit_split is None and "valid" in source.splits and split != "valid":
    fit_split = "valid"
  if fit_split is None:
    fitted, measured = (Outputs(*(a[start::2] for a in measured)) for start in (0, 1))
  else:
    fitted = outputs(predictor, source, fit_split, images=images)
  found = jax.device_get(fit_temperature(fitted.log_probs, fitted.labels))
  result = {
    "fitted_on": fit_split or f"half of {split}",
    "fit_images": len(fitted.labels),
    "images": len(measured.labels),
    "relative_temperature": float(found.temperature),
    "converged": bool(found.converged),
  }
  for name, t in (("before", 1.0), ("after", found.temperature)):
    result[name] = _summary(*_numbers(measured.log_probs, measured.labels, t, bins))
  return {"calibration": result}


def labels_of_calibration(
  source: Any,
  *,
  fit_split: str | None = None,
  split: str = "test",
  images: int | None = None,
  **_: Any,
) -> Iterator[Seen]:
  """What `calibration` sees of the splits; a class may be missing there."""
  if fit_split is None and ("valid" not in source.splits or split == "valid"):
    for start in (0, 1):
      yield f"half of {split}", first_labels(source, split, images)[start::2], 0
  else:
    for name in (fit_split or "valid", split):
      yield name, first_labels(source, name, images), 0


def _summary(numbers: Mapping[str, Any], table: Reliability) -> dict[str, Any]:
  lists = {name: np.asarray(value).tolist() for name, value in table._asdict().items()}
  return {**{k: float(v) for k, v in numbers.items()}, "reliability": lists}


@partial(jax.jit, static_argnames="bins")
def _numbers(log_probs, labels, temperature, bins):
  log_p = jax.nn.log_softmax(log_probs / temperature)
  p = jnp.exp(log_p)
  numbers = {
    "ece": ece(p, labels, bins=bins),
    "ece_mass": ece(p, labels, bins=bins, equal="mass"),
    "mce": ece(p, labels, bins=bins, norm="max"),
    "loss": -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], 1)),
  }
  return numbers, reliability(p, labels, bins=bins)


@partial(jax.jit, static_argnames=("bins", "equal", "norm"))
def ece(
  probabilities: Float[ArrayLike, "n C"],
  labels: Int[ArrayLike, "n"],
  *,
  bins: int = 15,
  equal: Equal = "width",
  norm: Norm = "l1",
) -> Float[Array, ""]:
  """Measures the expected calibration error: how far confidence is from accuracy, bin by bin.

  With a_k and c_k accuracy and mean confidence of the n_k of n examples in bin k:
    l1   sum_k n_k / n |a_k - c_k|
    l2   (sum_k n_k / n (a_k - c_k)^2)^(1/2)
    max  max_k |a_k - c_k|  over the bins that hold any, known as MCE
  Bins, arguments and errors are those of `reliability`.

  Raises:
    ValueError: norm is unknown.

  Example: ece([[.9, .1], [.9, .1]], [0, 1]) is 0.4.
  Source: Naeini, Cooper & Hauskrecht 2015, AAAI; Guo et al. 2017, arXiv:1706.04599.
  """
  table = reliability(probabilities, labels, bins=bins, equal=equal)
  gap = jnp.abs(table.accuracy - table.confidence)
  share = table.count / jnp.sum(table.count)
  norms = {
    "l1": lambda: jnp.sum(share * gap),
    "l2": lambda: jnp.sqrt(jnp.sum(share * gap**2)),
    "max": lambda: jnp.max(gap),
  }
  if norm not in norms:
    raise ValueError(f"norm={norm!r} is unknown: use one of {', '.join(norms)}.")
  return norms[norm]()


@partial(jax.jit, static_argnames=("bins", "equal"))
def reliability(
  probabilities: Float[ArrayLike, "n C"],
  labels: Int[ArrayLike, "n"],
  *,
  bins: int = 15,
  equal: Equal = "width",
) -> Reliability:
  """Sorts examples by their confidence, the largest probability, and counts right answers.

  Bins are closed on the right: bin k of equal width is (k / bins, (k + 1) / bins], with edges that
  are the nearest numbers of the dtype to these quotients. Bins of equal mass end at the order
  statistics ceil(k n / bins) of the confidences, so equal confidences share a bin, and bins may
  differ in mass, or be empty, where there are many equals. The label is right if it is the first of
  the largest.

  Raises:
    ValueError: bins is below 1, equal is unknown, there are no examples, or labels are not one a
      row.

  Example: reliability([[.9, .1], [.6, .4]], [0, 1], bins=2).accuracy is [0., .5].
  Source: DeGroot & Fienberg 1983, The Statistician 32; Niculescu-Mizil & Caruana 2005, ICML.
  """
  p, labels = jnp.asarray(probabilities), jnp.asarray(labels)
  p = p.astype(jnp.promote_types(p.dtype, jnp.float32))
  if not p.size or labels.shape != p.shape[:1]:
    raise ValueError(
      f"probabilities of shape {p.shape} and labels of shape {labels.shape}: give [n, C] and [n], "
      "with at least one example."
    )
  if bins < 1:
    raise ValueError(f"bins={bins} must be at least 1, such as 15.")
  confidence, right = jnp.max(p, 1), (jnp.argmax(p, 1) == labels).astype(p.dtype)
  inner = _inner_edges(confidence, bins, equal)
  place = jnp.searchsorted(inner, confidence, side="left")

  def total(values):
    return jax.ops.segment_sum(values, place, bins)

  count = total(jnp.ones_like(confidence))
  held = jnp.maximum(count, 1)
  edges = jnp.concatenate([jnp.zeros(1, p.dtype), inner, jnp.ones(1, p.dtype)])
  return Reliability(edges, total(confidence) / held, total(right) / held, count)


def _inner_edges(confidence, bins, equal):
  """The edges between the bins, without 0 and 1."""
  if equal == "width":
    return jnp.asarray(np.arange(1, bins) / bins, confidence.dtype)
  if equal != "mass":
    raise ValueError(f"equal={equal!r} is unknown: use 'width' or 'mass'.")
  last = -(-np.arange(1, bins) * len(confidence) // bins) - 1
  return jnp.sort(confidence)[last]
