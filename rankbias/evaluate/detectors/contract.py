"""What a detector of foreign data is: something fitted to familiar data, and a score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp


class Detector(NamedTuple):
  """A way to tell data in distribution from others, as two pure functions.

  Attributes:
    fit: (features [n, d], logits [n, C], head) -> parameters, a dict that passes through jit, from
      data in distribution. head: features [..., d] -> logits [..., C], those of the arguments.
    score: (parameters, features, logits) -> [n], larger for what looks more in distribution;
      float32, or float64 for such logits and features.
    scale_matters: whether logits Z and Z / T order examples differently.
    needs: what of the network, in a word: "level" for logits that are more than log-probabilities,
      which have no common level; "affine" for a head W h + b as well; "" for nothing.
  """

  fit: Callable[..., dict[str, Any]]
  score: Callable[..., Any]
  scale_matters: bool
  needs: str = ""


def nothing(features, logits, head=None) -> dict[str, Any]:
  """Fits nothing: for scores that need no data to be fitted to."""
  del features, logits, head
  return {}


def wide(x):
  """Returns x in float32 or wider: scores in half precision would be ties."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
