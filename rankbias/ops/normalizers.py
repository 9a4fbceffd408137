"""The maps from logits to weights by name; all share one contract."""

import difflib
from collections.abc import Callable

from jaxtyping import Array

from rankbias.ops.adaptive import adaptive_temperature_softmax
from rankbias.ops.softmax import softmax

# f(logits, *, axis=-1, where=None, **own) -> weights of the same shape and dtype.
NORMALIZERS: dict[str, Callable[..., Array]] = {
  "softmax": softmax,
  "adaptive_temperature_softmax": adaptive_temperature_softmax,
}


def normalizer(name: str) -> Callable[..., Array]:
  """Returns the normaliser of that name; an unknown one raises with the nearest spelling."""
  if name in NORMALIZERS:
    return NORMALIZERS[name]
  near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0)
  raise ValueError(
    f"normalizer = {name!r} is unknown: did you mean {near[0]!r}? Known: {', '.join(NORMALIZERS)}."
  )
