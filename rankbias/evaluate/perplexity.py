"""How well is every token of a text predicted? Cross-entropy and perplexity of whole streams."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.streams import contexts

ENTRIES = 2**23  # log-probabilities held at a time: 32 MiB


def perplexity(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  splits: Sequence[str] = ("valid", "test"),
  lanes: int = 16,
  context: int | None = None,
) -> dict[str, dict[str, float]]:
  """Measures the text of every split as a whole, each token but the first of it once.

      cross-entropy = - 1 / (N - 1) sum_t log p(x_t | x_<t)        perplexity = exp(cross-entropy)

  Args:
    source: a source with `tokens(split)`, int32 [N].
    lanes: pieces that are read side by side; the context is lost at their `lanes` - 1 borders.
    context: tokens of a window; None reads lanes. See `rankbias.evaluate.streams`.

  Returns:
    {"perplexity", "cross_entropy" (nats a token), "tokens" (how many were predicted):
    {split: number}}.
  """
  found = {"perplexity": {}, "cross_entropy": {}, "tokens": {}}
  for split in splits:
    loss = stream_loss(predictor, source, split, lanes=lanes, context=context)
    found["perplexity"][split] = exponential(loss)
    found["cross_entropy"][split] = loss
    found["tokens"][split] = len(source.tokens(split)) - 1
  return found


def exponential(loss: float) -> float:
  """Returns exp(loss), infinite where that is beyond floating point."""
  return math.inf if loss > 700 else math.exp(loss)


def stream_loss(
  predictor: Predictor, source: Any, split: str, *, lanes: int = 16, context: int | None = None
) -> float:
  """The mean cross-entropy of the tokens of a split, in nats; arguments as in `perplexity`."""
  tokens = np.asarray(source.tokens(split))
  total, block = 0.0, max(ENTRIES // source.num_classes, 1)
  for features, following, counts in contexts(predictor, tokens, lanes=lanes, context=context):
    own = predictor.head, predictor.log_head, block, predictor.numbers()[1:]
    losses = np.asarray(_losses(*own, features, following), np.float64)
    total += losses[counts].sum()
  return float(total / (len(tokens) - 1))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(head, log_head, block, numbers, features, labels):
  """- log p of every label, `block` rows at a time."""
  predictor = Predictor(None, None, head, *numbers, log_head)

  def own(rows):
    log_probs = predictor.log_probs(rows[0])
    return -jnp.take_along_axis(log_probs, rows[1][:, None], -1)[:, 0]

  block = min(block, len(labels))
  blocks = -(-len(labels) // block)
  more = blocks * block - len(labels)
  rows = jnp.pad(features, ((0, more), (0, 0))), jnp.pad(jnp.asarray(labels), (0, more))
  rows = [array.reshape(blocks, block, *array.shape[1:]) for array in rows]
  return jax.lax.map(own, tuple(rows)).reshape(-1)[: len(labels)]
