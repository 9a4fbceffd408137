"""What an output layer makes of target distributions: fit, modes, rank, and its map of logits.

Where the logits are an increasing function f of h W + b, f is read off them, and W and b alone
decide which classes can be the argmax.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import rank
from rankbias.evaluate.predictor import Predictor, joined

EFFECTIVE = (1e-3, 1e-4, 1e-5)  # parts of the energy that an effective rank leaves out
INCREASING = 1e-3  # of the range of the logits: the most by which rounding lets them fall


def bottleneck(
  predictor: Predictor, source: Any, *, others=None, points: int = 200
) -> dict[str, Any]:
  """Compares the network with its targets, distributions over M classes for N contexts.

  Args:
    points: at which an increasing map of the logits is kept.

  Returns:
    "bottleneck": "kl", the mean of KL(target || network) in nats; "mode_match", the part of the
    contexts whose likeliest class is the target's; of the matrix [N, M] of log-probabilities
    "press_rank" and "effective_rank" {eps: rank}; "argmaxable", how many classes can be the argmax,
    and "increasing", whether the head's logits are an increasing map of a linear layer (see
    `linear_below`), without which the former is None; "parameters" of the network. "curves": the
    singular values of that matrix, "spectrum"; for an increasing map the ends of its bins,
    "inputs", and the mean of f(z) - z there without the mean of it all, "map".
  """
  split = source.splits["train"]
  q, values, ranks, logits, features = jax.device_get(
    _measure(predictor.functions(), predictor.numbers(), split["x"])
  )
  linear = linear_below(predictor, features, logits)
  p, q = np.float64(split["y"]), np.float64(q)
  kl = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - q), 0).sum(-1)
  sizes = [leaf.size for leaf in jax.tree.leaves((predictor.params, predictor.head_params))]
  found = {
    "kl": float(kl.mean()),
    "mode_match": float((p.argmax(-1) == q.argmax(-1)).mean()),
    "press_rank": int(ranks[0]),
    "effective_rank": {f"{eps:g}": int(r) for eps, r in zip(EFFECTIVE, ranks[1], strict=True)},
    "increasing": linear is not None,
    "argmaxable": None,
    "parameters": sum(sizes),
  }
  curves = {"spectrum": values}
  if linear is not None:
    found["argmaxable"] = int(rank.argmaxable(*linear).argmaxable.sum())
    inputs = affine(features, *linear)
    curves |= dict(zip(("inputs", "map"), graph(inputs, logits, points), strict=True))
  return {"bottleneck": found, "curves": curves}


@partial(jax.jit, static_argnums=0)
def _measure(functions, numbers, x):
  """Log-probabilities with their spectrum and ranks, logits, and features."""
  predictor = joined(functions, numbers)
  features = predictor.apply(predictor.params, x)[0]
  logs = predictor.log_probs(features)
  values = rank.singular_values(logs)
  fractions = 1 - np.array(EFFECTIVE)
  ranks = rank.press_rank(values, logs.shape), rank.energy_rank(values, fraction=fractions)
  return logs, values, ranks, predictor.head(predictor.head_params, features), features


def linear_below(
  predictor: Predictor, features: np.ndarray, logits: np.ndarray
) -> tuple[jax.Array, jax.Array] | None:
  """The linear map of the features of which the logits are an increasing function.

  Two are tried: the parameters called "linear", which a pointwise map bends, and the head's own
  logits of the unit vectors less those of 0, for heads that are linear in the features with a
  kernel made of other parameters.

  Args:
    features: [N, d]
    logits: [N, M'] the head's, of the first M' classes.

  Returns:
    Kernel [d, M] and bias [M] of all classes; None if neither map fits these N rows.
  """
  for kernel, bias in _candidates(predictor, features):
    own = kernel[:, : logits.shape[1]], bias[: logits.shape[1]]
    if kernel.shape[0] == features.shape[1] and increases(affine(features, *own), logits):
      return kernel, bias
  return None


def _candidates(predictor, features):
  own = predictor.head_params["params"].get("linear", {})
  if "kernel" in own:
    kernel = own["kernel"]
    yield kernel, own.get("bias", jnp.zeros(kernel.shape[1], kernel.dtype))
  width = features.shape[1]
  units = jnp.eye(width + 1, width, -1, dtype=features.dtype)  # below a row of zeros
  outputs = predictor.head(predictor.head_params, units)
  yield outputs[1:] - outputs[:1], outputs[0]


def affine(features: np.ndarray, kernel: jax.Array, bias: jax.Array) -> np.ndarray:
  """h W + b in float64."""
  return np.float64(features) @ np.float64(kernel) + np.float64(bias)


def increases(inputs: np.ndarray, outputs: np.ndarray) -> bool:
  """Tells whether outputs are one increasing function of inputs, up to rounding."""
  outputs = outputs.ravel()[np.argsort(inputs, axis=None)]
  fall = (np.maximum.accumulate(outputs) - outputs).max()
  return bool(fall <= INCREASING * np.ptp(outputs))


def graph(inputs: np.ndarray, outputs: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
  """Places over the range of the inputs, and f - identity there without its mean over all."""
  order = np.argsort(inputs, axis=None)
  z, f = np.float64(inputs.ravel()[order]), np.float64(outputs.ravel()[order])
  places = np.linspace(z[0], z[-1], points)
  return places, np.interp(places, z, f) - places - (f - z).mean()
