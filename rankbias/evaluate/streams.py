"""Long texts through a network: a stream of tokens in pieces, and the features of its positions.

A stream is read in one of two ways. In `lanes` equal pieces side by side, for networks with a
state: a token is predicted from all of its piece before it, and the state is zero where a piece
begins. In windows of `context` tokens, for networks of bounded context: neighbours overlap by half,
and of all but the first only the later half counts, so that a token is predicted from at least half
a window, or from all there is. Either way every position counts once.
"""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from rankbias.evaluate.predictor import Predictor

PASS = 2**16  # tokens in one pass of the network
PAIRS = 2**21  # pairs of tokens of a window in one pass, since attention may hold them all


def contexts(
  predictor: Predictor, tokens: np.ndarray, *, lanes: int = 16, context: int | None = None
) -> Iterator[tuple[jax.Array, np.ndarray, np.ndarray]]:
  """Yields (features [n, d], the tokens that follow [n], which of them count [n]), in order.

  Raises:
    ValueError: the stream has nothing to predict.
  """
  if len(tokens) < 2:
    raise ValueError(f"tokens: a stream of {len(tokens)} has nothing to predict; give at least 2")
  starts, length, skipped = pieces(len(tokens) - 1, lanes, context)
  size = max(PAIRS // length**2 if context else PASS // length, 1)
  size = -(-len(starts) // -(-len(starts) // size))  # passes of equal size
  for first in range(0, len(starts), size):
    rows = np.arange(first, first + size)
    place = starts[np.minimum(rows, len(starts) - 1)][:, None] + np.arange(length)
    counts = (rows < len(starts))[:, None] & (place < len(tokens) - 1)
    counts &= (np.arange(length) >= skipped) | (rows == 0)[:, None]
    place = np.minimum(place, len(tokens) - 2)
    features = _features(predictor.apply, predictor.params, tokens[place])
    yield features, tokens[place + 1].reshape(-1), counts.reshape(-1)


def pieces(count: int, lanes: int, context: int | None) -> tuple[np.ndarray, int, int]:
  """(where the pieces of `count` positions start, their length, positions that all but the first
  piece read and do not count)."""
  if context is None:
    length = -(-count // lanes)
    return np.arange(0, count, length), length, 0
  length = min(context, count + count % 2)
  step = length - length // 2
  return np.arange(0, max(count - length // 2, 1), step), length, length // 2


@partial(jax.jit, static_argnums=0)
def _features(apply, params, x):
  """The features of all positions, one a row."""
  features = apply(params, x)[0]
  return features.reshape(-1, features.shape[-1])
