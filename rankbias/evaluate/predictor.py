"""What an evaluation sees of a network: functions from examples to features and logits."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rankbias import ops

BATCH = 512  # examples a forward pass
OOD = ("ood_train", "ood_test")  # splits of another distribution, whose labels are their own


class Predictor(NamedTuple):
  """A network as functions and parameters.

  Attributes:
    apply: (params, x, *, key=None, **overrides) -> (features [B, d], acts {layer: [B, ...]}) of raw
      examples as the source holds them: uint8 images, float32 sets or uint8 tokens, whose features
      are [B, L, d]; a typed random key, one for all or one per example [B], switches dropout on.
    params: the model's variables.
    head: (head_params, features) -> logits [B, C], before any temperature.
    head_params: the head's variables.
    temperature: T of softmax(z / T).
    log_head: (head_params, features, temperature) -> log-probabilities [..., C]; None where they
      are those of softmax(z / T), which a mixture's are not unless T = 1.

  The functions of one program are the same objects for all its members, so what is compiled for
  one serves all.
  """

  apply: Callable[..., tuple[Any, dict[str, Any]]]
  params: Any
  head: Callable[[Any, Any], Any]
  head_params: Any
  temperature: Any = 1.0
  log_head: Callable[[Any, Any, Any], Any] | None = None

  def log_probs(self, features: Any) -> Any:
    """The log-probabilities of the classes, at the temperature."""
    if self.log_head is not None:
      return self.log_head(self.head_params, features, self.temperature)
    logits = self.head(self.head_params, features)
    return ops.log_softmax(logits, temperature=self.temperature)

  def functions(self) -> tuple[Callable | None, ...]:
    """What is compiled in: (apply, head, log_head)."""
    return self.apply, self.head, self.log_head

  def numbers(self) -> tuple[Any, Any, Any]:
    """What may be traced or vmapped: everything but the functions."""
    return self.params, self.head_params, self.temperature


def joined(functions: tuple, numbers: tuple) -> Predictor:
  """The predictor of which these are the `functions` and the `numbers`."""
  (apply, head, log_head), (params, head_params, temperature) = functions, numbers
  return Predictor(apply, params, head, head_params, temperature, log_head)


def batches(split: dict[str, np.ndarray], size: int = BATCH) -> Iterator[tuple]:
  """Yields (x, y, weight) of equal size; the last is filled up by examples of weight zero."""
  x, y = split["x"], split["y"]
  for start in range(0, len(y), size):
    count = min(size, len(y) - start)
    rows = np.minimum(np.arange(start, start + size), len(y) - 1)
    yield x[rows], y[rows], (np.arange(size) < count).astype(np.float32)
