"""What is a network's loss on one split, as asked for again and again while it trains?"""

from typing import Any

from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.perplexity import exponential, stream_loss
from rankbias.evaluate.predictor import Predictor


def held_out(predictor: Predictor, source: Any, split: str, **options: Any) -> dict[str, float]:
  """Measures a split: {"loss", "perplexity"} of a stream of tokens, {"loss", "accuracy"} else.

  Args:
    options: `lanes` and `context` of a stream, as in `perplexity`.
  """
  if not hasattr(source, "tokens"):
    return split_accuracy(predictor, source.splits[split])
  loss = stream_loss(predictor, source, split, **options)
  return {"loss": loss, "perplexity": exponential(loss)}
