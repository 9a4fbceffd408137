"""The maps from logits to weights by name; all share one contract."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial

from jaxtyping import Array

from rankbias.ops.adaptive import adaptive_temperature_softmax, scalable_softmax
from rankbias.ops.logistic import logistic_softmax, sigsoftmax
from rankbias.ops.mechanisms import exponential_mechanism, piecewise_linear_softmax, power_mechanism
from rankbias.ops.modulated import multimax
from rankbias.ops.softmax import softmax
from rankbias.ops.sparse import entmax, entmax15, sparsemax
from rankbias.ops.truncated import r_softmax, t_softmax, topk_softmax
from rankbias.ops.unnormalized import sigmoid_weights, softmax_plus_n, softpick

# f(logits, *, axis=-1, where=None, **own) -> weights of the same shape and dtype.
NORMALIZERS: dict[str, Callable[..., Array]] = {
  "softmax": softmax,
  "adaptive_temperature_softmax": adaptive_temperature_softmax,
  "scalable_softmax": scalable_softmax,
  "sparsemax": sparsemax,
  "entmax15": entmax15,
  "entmax": entmax,
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


def normalizer(name: str, **own) -> Callable[..., Array]:
  """Returns the normaliser of that name with its own arguments bound.

  For configs and command lines, where a map is a name and some numbers.

  Raises:
    ValueError: the name is unknown, or the map lacks one of the arguments or needs another.

  Example: normalizer("topk_softmax", k=2)(jnp.zeros(4)) is [.25, .25, .25, .25] (all are tied).
  """
  if name not in NORMALIZERS:
    near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0)[0]
    names = ", ".join(NORMALIZERS)
    raise ValueError(f"normalizer = {name!r} is unknown: did you mean {near!r}? Known: {names}.")
  known = own_arguments(NORMALIZERS[name])
  needed = [
    argument for argument, parameter in known.items() if parameter.default is parameter.empty
  ]
  if not set(needed) <= set(own) <= set(known):
    raise ValueError(
      f"normalizer {name!r} with arguments {sorted(own)}: it takes {sorted(known) or 'none'}"
      + (f" and needs {needed}." if needed else ".")
    )
  return partial(NORMALIZERS[name], **own) if own else NORMALIZERS[name]


def own_arguments(function: Callable) -> dict[str, inspect.Parameter]:
  """Returns the arguments that a map has beside logits, axis and where."""
  parameters = inspect.signature(function).parameters
  shared = {next(iter(parameters)), "axis", "where"}
  return {name: p for name, p in parameters.items() if name not in shared}
