"""How often is the network right, and at what loss?"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rankbias import ops
from rankbias.evaluate.predictor import Predictor, batches


def accuracy(predictor: Predictor, source: Any, *, others=None) -> dict[str, dict[str, float]]:
  """Returns {"train": {"loss", "accuracy"}, "test": ...} over all images, without augmentation.

  The loss is the mean cross-entropy of softmax(z / T) in nats. Of a label that is a distribution,
  the likeliest class is the right one.
  """
  return {name: split_accuracy(predictor, split) for name, split in source.splits.items()}


def split_accuracy(predictor: Predictor, split: dict) -> dict[str, float]:
  """Loss and accuracy over one split."""
  totals = []
  for x, y, weight in batches(split):
    totals.append(_sums(predictor.apply, predictor.head, predictor.numbers(), x, y, weight))
  loss, right = (sum(float(total[i]) for total in totals) / len(split["y"]) for i in (0, 1))
  return {"loss": loss, "accuracy": right}


@partial(jax.jit, static_argnums=(0, 1))
def _sums(apply, head, numbers, x, y, weight):
  """Sums of loss and of right answers over a batch."""
  params, head_params, temperature = numbers
  logits = head(head_params, apply(params, x)[0])
  loss = ops.cross_entropy(logits, y, temperature=temperature)
  right = jnp.argmax(logits, -1) == (y if jnp.issubdtype(y.dtype, jnp.integer) else y.argmax(-1))
  return jnp.sum(loss * weight), jnp.sum(right * weight)
