"""The maps from logits to weights by name; all share one contract."""

import difflib
from collections.abc import Callable

from jaxtyping import Array

from rankbias.ops.adaptive import adaptive_temperature_softmax, scalable_softmax
from rankbias.ops.logistic import logistic_softmax, sigsoftmax
from rankbias.ops.mechanisms import exponential_mechanism, piecewise_linear_softmax, power_mechanism
from rankbias.ops.modulated import multimax
from rankbias.ops.softmax import softmax
from rankbias.ops.truncated import r_softmax, t_softmax, topk_softmax
from rankbias.ops.unnormalized import sigmoid_weights, softmax_plus_n, softpick

# f(logits, *, axis=-1, where=None, **own) -> weights of the same shape and dtype.
NORMALIZERS: dict[str, Callable[..., Array]] = {
  "softmax": softmax,
  "adaptive_temperature_softmax": adaptive_temperature_softmax,
  "scalable_softmax": scalable_softmax,
  "logistic_softmax": logistic_softmax,
  "sigsoftmax": sigsoftmax,
  "softmax_plus_n": softmax_plus_n,
  "softpick": softpick,
  "sigmoid_weights": sigmoid_weights,
  "topk_softmax": topk_softmax,
  "t_softmax": t_softmax,
  "r_softmax": r_softmax,
  "multimax": multimax,
  "piecewise_linear_softmax": piecewise_linear_softmax,
  "exponential_mechanism": exponential_mechanism,
  "power_mechanism": power_mechanism,
}


def normalizer(name: str) -> Callable[..., Array]:
  """Returns the normaliser of that name; an unknown one raises with the nearest spelling."""
  if name in NORMALIZERS:
    return NORMALIZERS[name]
  near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0)
  raise ValueError(
    f"normalizer = {name!r} is unknown: did you mean {near[0]!r}? Known: {', '.join(NORMALIZERS)}."
  )
