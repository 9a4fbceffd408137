"""What a language model's last layer cannot say, and what its answers say of the layer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import rank
from rankbias.evaluate.bottleneck import linear_below
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.streams import contexts

LISTED = 20  # words that can never come first, of which the lowest numbers are kept


def last_layer(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  split: str = "test",
  queries: int = 800,
  classes: int = 2000,
  lanes: int = 1,
  context: int | None = None,
) -> dict[str, Any]:
  """Counts the words that can never be predicted first, and estimates the width from answers.

  Where the logits are an increasing function of h W + b, W and b alone decide which words some h
  puts first (`rank.argmaxable`, of all words). The estimate is `rank.width_from_outputs`, the
  largest gap of the singular values of doubly centred log-probabilities, which a linear softmax
  has at its width, and a bent or mixed one has not.

  Args:
    queries, classes: rows and columns of the matrix, after the first tokens of a split and of the
      words with the lowest numbers; more than 4/3 of the width of both.
    lanes, context: how the text is read, as in `perplexity`.

  Returns:
    {"last_layer": {"increasing", whether the logits are such a function, "never_first", how many of
    all words (None without such a function), "never_first_words", the lowest 20 of their numbers,
    "features", the width there is, "width" or None, "gap" and "next_gap", what was estimated of
    "queries" times "classes"}}.

  Source: Demeter, Kimmel & Downey 2020, arXiv:2005.02433; Carlini et al. 2024, arXiv:2403.06634.
  """
  classes = min(classes, source.num_classes)
  features, log_probs, logits = _answers(predictor, source, split, queries, lanes, context)
  linear = linear_below(predictor, features, logits[:, :classes])
  found = {"increasing": linear is not None, "never_first": None, "never_first_words": []}
  if linear is not None:
    never = np.flatnonzero(~rank.argmaxable(*linear).argmaxable)
    found |= {"never_first": len(never), "never_first_words": never[:LISTED].tolist()}
  estimate = rank.width_from_outputs(log_probs[:, :classes])
  found |= {"features": features.shape[1], "width": estimate.width}
  found |= {"gap": estimate.gap, "next_gap": estimate.next_gap}
  return {"last_layer": found | {"queries": len(features), "classes": classes}}


def _answers(predictor, source, split, queries, lanes, context):
  """Features, log-probabilities and logits after the first tokens of a split."""
  tokens = np.asarray(source.tokens(split))[: queries + 1]
  parts = []
  for features, _, counts in contexts(predictor, tokens, lanes=lanes, context=context):
    own = (predictor.head, predictor.log_head), predictor.numbers()[1:], features[counts]
    parts.append([np.asarray(array) for array in (features[counts], *_outputs(*own))])
  return (np.concatenate(arrays) for arrays in zip(*parts, strict=True))


@partial(jax.jit, static_argnums=0)
def _outputs(functions, numbers, features):
  head, log_head = functions
  predictor = Predictor(None, None, head, *numbers, log_head)
  wide = jnp.promote_types(features.dtype, jnp.float32)
  return predictor.log_probs(features).astype(wide), head(numbers[0], features).astype(wide)
