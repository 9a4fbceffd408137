"""How often is the network right, and at what loss?"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rankbias import ops
from rankbias.evaluate.predictor import OOD, Predictor, batches, joined


def accuracy(predictor: Predictor, source: Any, *, others=None) -> dict[str, dict[str, float]]:
  """Returns {"train": {"loss", "accuracy"}, "test": ...} over all images, without augmentation.

  Data of another distribution are left out: their labels are not those of the head's classes.
  The loss is the mean cross-entropy in nats, at the temperature. Of a label that is a distribution,
  the likeliest class is the right one.
  """
  return {
    name: split_accuracy(predictor, split)
    for name, split in source.splits.items()
    if name not in OOD
  }


def split_accuracy(predictor: Predictor, split: dict) -> dict[str, float]:
  """Loss and accuracy over one split."""
  totals = []
  for x, y, weight in batches(split):
    totals.append(_sums(predictor.functions(), predictor.numbers(), x, y, weight))
  loss, right = (sum(float(total[i]) for total in totals) / len(split["y"]) for i in (0, 1))
  return {"loss": loss, "accuracy": right}


@partial(jax.jit, static_argnums=0)
def _sums(functions, numbers, x, y, weight):
  """Sums of loss and of right answers over a batch."""
  predictor = joined(functions, numbers)
  log_probs = predictor.log_probs(predictor.apply(predictor.params, x)[0])
  loss = ops.cross_entropy(log_probs, y)
  right = jnp.argmax(log_probs, -1) == (y if jnp.issubdtype(y.dtype, jnp.integer) else y.argmax(-1))
  return jnp.sum(loss * weight), jnp.sum(right * weight)
