"""What rank has the matrix of log-probabilities that a language model gives, contexts by words?

The estimators are those of the literature on the softmax bottleneck: the Press rank, for the
rounding of float32, as log-probabilities are computed in float32; and the effective ranks at eps,
the fewest singular values that hold 1 - eps of the energy.

A matrix of no more contexts than words is held, in float32, and decomposed by its smaller side. Of
more contexts the float64 Gram matrix of the words is summed up block by block, which of 10,000
words is 0.8 GB and several times that with its eigenvalues; `classes` restricts it to some words.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from rankbias import rank
from rankbias.evaluate.perplexity import ENTRIES
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.streams import contexts as read

EPS = (1e-3, 1e-4, 1e-5)


def log_probability_rank(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  split: str = "test",
  contexts: int = 4096,
  classes: int | None = None,
  lanes: int = 16,
  context: int | None = None,
) -> dict[str, dict[str, Any]]:
  """Measures the log-probabilities after the first `contexts` tokens of a split.

  Args:
    contexts: rows of the matrix, fewer where the split ends before.
    classes: columns, the words of lowest number (the most frequent, of `rankbias.data`'s texts);
      None takes all. The probabilities are those among all words.
    lanes, context: how the text is read, as in `perplexity`.

  Returns:
    {"log_probability_rank": {"contexts", "classes": the size of the matrix, "press_rank",
    "effective_rank": {eps: number}}, "curves": {"log_probabilities": singular values, descending}}.
  """
  tokens = np.asarray(source.tokens(split))[: contexts + 1]
  shape = len(tokens) - 1, min(classes or source.num_classes, source.num_classes)
  blocks = _blocks(predictor, source, tokens, shape[1], lanes=lanes, context=context)
  values = np.asarray(_whole(blocks, shape) if shape[0] <= shape[1] else _summed(blocks, shape))
  values = values[: min(shape)]
  ranks = {f"{eps:g}": float(rank.energy_rank(values, fraction=1 - eps)) for eps in EPS}
  press = float(rank.press_rank(values, shape, dtype="float32"))
  sizes = dict(zip(("contexts", "classes"), shape, strict=True))
  return {
    "log_probability_rank": sizes | {"press_rank": press, "effective_rank": ranks},
    "curves": {"log_probabilities": values},
  }


def _blocks(predictor, source, tokens, classes, **how):
  """Yields (log-probabilities [size, classes], which rows count [size]) of equal size, in order."""
  for features, _, counts in read(predictor, tokens, **how):
    size = min(max(ENTRIES // source.num_classes, 1), len(counts))
    for start in range(0, len(counts), size):
      rows = np.arange(start, start + size)
      own = np.minimum(rows, len(counts) - 1)
      functions = predictor.head, predictor.log_head, classes
      log_probs = _log_probs(*functions, predictor.numbers()[1:], features[own])
      yield log_probs, counts[own] & (rows < len(counts))


def _whole(blocks, shape):
  matrix = np.empty(shape, np.float32)
  done = 0
  for log_probs, counts in blocks:
    own = np.asarray(log_probs)[counts]
    matrix[done : done + len(own)] = own
    done += len(own)
  return rank.singular_values(matrix)


def _summed(blocks, shape):
  state = rank.spectrum_init(shape[1])
  for log_probs, counts in blocks:
    state = rank.spectrum_update(state, log_probs, where=counts)
  return rank.spectrum_finish(state)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _log_probs(head, log_head, classes, numbers, features):
  return Predictor(None, None, head, *numbers, log_head).log_probs(features)[:, :classes]
