"""What a classifier says of the images of a split: features, logits and log-probabilities."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from rankbias.evaluate.predictor import Predictor, batches, joined


class Outputs(NamedTuple):
  """Of every image: what the head sees, its logits, log-probabilities at the temperature, label."""

  features: Float[np.ndarray, "n d"]
  logits: Float[np.ndarray, "n C"]
  log_probs: Float[np.ndarray, "n C"]
  labels: Int[np.ndarray, "n"]

  def first(self, count: int | None) -> "Outputs":
    """The outputs of the first images."""
    return Outputs(*(array[:count] for array in self))


def outputs(predictor: Predictor, source: Any, split: str, *, images: int | None = None) -> Outputs:
  """Collects what the network says of the first `images` images of a split, all for None.

  Raises:
    ValueError: there is no such split, or it is empty; the network does not predict one class of
      an example, or the labels are no classes.
  """
  if split not in source.splits:
    raise ValueError(f"split={split!r}: the data have {', '.join(source.splits)}")
  chosen = {name: rows[:images] for name, rows in source.splits[split].items()}
  if not len(chosen["y"]):
    raise ValueError(f"split={split!r} holds no images: choose one of {', '.join(source.splits)}")
  parts = []
  for x, y, weight in batches(chosen):
    features, logits, log_probs = _outputs(predictor.functions(), predictor.numbers(), x)
    if logits.ndim != 2 or features.ndim != 2 or y.ndim != 1:
      raise ValueError(
        f"logits of shape {logits.shape}, features of shape {features.shape} and labels of shape "
        f"{y.shape}: this is measured of classifiers of whole examples, with logits [B, classes], "
        "features [B, d] and labels [B]. Leave the evaluation out"
      )
    count = int(weight.sum())
    parts.append([np.asarray(array)[:count] for array in (features, logits, log_probs, y)])
  return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@partial(jax.jit, static_argnums=0)
def _outputs(functions, numbers, x):
  predictor = joined(functions, numbers)
  features = predictor.apply(predictor.params, x)[0]
  return features, predictor.head(predictor.head_params, features), predictor.log_probs(features)
