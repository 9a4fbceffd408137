"""Does the network know when it is wrong? Its predictions under dropout, sampled and compared.

Dropout at test time (Monte Carlo dropout) draws networks from an approximate posterior: what they
agree on being unsure about is noise in the data, what they disagree on the model does not know.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import ops
from rankbias.evaluate.detection import auroc
from rankbias.evaluate.predictor import Predictor, batches, joined


def uncertainty(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  samples: int = 20,
  images: int = 2048,
  split: str = "test",
) -> dict[str, Any]:
  """Uncertainty of `samples` predictions under dropout of the first `images` images of a split.

  What sample t drops from image i depends on t and i alone: members and batch sizes share the
  draws, and fewer samples are the first of many.

  Returns:
    {"uncertainty": {...}} with "samples", "images"; the mean over images of each of the scores
    "predictive_entropy", "expected_entropy", "mutual_information" (nats) and "variation_ratio";
    "averaged" and "deterministic": "loss" (nats) and "accuracy" of the mean of the sampled
    probabilities and of the network without dropout; "error_auroc" {score: the probability that an
    image which "averaged" gets wrong scores higher than one it gets right}, with "deterministic"
    for the entropy of the network without dropout and its own errors. NaN where nothing, or
    everything, is wrong.

  Raises:
    ValueError: all samples are identical, so there is no dropout; fewer than 2 samples; a network
      that predicts more than one label of an example, as a Transformer does for every token.

  Source: Gal & Ghahramani 2016, arXiv:1506.02142.
  """
  if samples < 2:
    raise ValueError(f"samples={samples}: at least 2 are needed to see a disagreement")
  chosen = {name: rows[:images] for name, rows in source.splits[split].items()}
  parts, sampled = [], False
  for number, (x, y, weight) in enumerate(batches(chosen)):
    positions = number * len(y) + np.arange(len(y), dtype=np.uint32)
    log_probs = jnp.stack([_log_probs(predictor, x, t, positions) for t in range(samples)])
    plain = _log_probs(predictor, x)
    if plain.ndim != 2:
      raise ValueError(
        f"a network with logits of shape {plain.shape} predicts more than one label of an "
        "example (a transformer does, of every token): uncertainty is measured of classifiers, "
        "with logits [B, classes]. Leave evaluate.uncertainty out"
      )
    # The same everywhere is right for a network that has died and says the same of every image.
    sampled |= bool(jnp.any(log_probs != log_probs[:1]) | jnp.all(log_probs == log_probs[:, :1]))
    found = jax.device_get(_per_image(log_probs, plain, y))
    parts.append({name: values[weight > 0] for name, values in found.items()})
  if not sampled:
    raise ValueError(
      f"all {samples} samples are identical: the network has no dropout to draw from. Train it "
      "with config.model.dropout above 0 (0.1, for instance) or leave evaluate.uncertainty out"
    )
  values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  return {"uncertainty": {"samples": samples, **summary(values)}}


def summary(values: dict[str, np.ndarray]) -> dict[str, Any]:
  """Means over images of what `_per_image` found, and how well each score tells errors."""
  wrong = values["averaged_right"] == 0
  separated = {name: auroc(values[name], wrong) for name in ops.UNCERTAINTIES}
  separated["deterministic"] = auroc(
    values["deterministic_entropy"], values["deterministic_right"] == 0
  )
  mean = {name: float(np.mean(v, dtype=np.float64)) for name, v in values.items()}
  return {
    "images": len(wrong),
    **{name: mean[name] for name in ops.UNCERTAINTIES},
    **{
      kind: {"loss": mean[f"{kind}_loss"], "accuracy": mean[f"{kind}_right"]}
      for kind in ("averaged", "deterministic")
    },
    "error_auroc": separated,
  }


def _log_probs(predictor: Predictor, x, sample: int | None = None, positions=None):
  """Log-probabilities [B, classes] of one sample of the dropout, or without it."""
  own = predictor.functions(), predictor.numbers()
  if sample is None:
    return _forward(*own, x, None)
  return _forward(*own, x, _keys(sample, positions))


@jax.jit
def _keys(sample, positions):
  """One key per image for one sample."""
  key = jax.random.fold_in(jax.random.key(0), sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


@partial(jax.jit, static_argnums=0)
def _forward(functions, numbers, x, key):
  predictor = joined(functions, numbers)
  own = {} if key is None else {"key": key}
  return predictor.log_probs(predictor.apply(predictor.params, x, **own)[0])


@jax.jit
def _per_image(log_probs, plain, y):
  """Scores, losses and right answers of every image, from log-probabilities [samples, B, classes].

  The loss of the average is taken of logarithms: a probability that underflows still has one.
  """
  probabilities = jnp.exp(log_probs)
  averaged = jax.nn.logsumexp(log_probs, 0) - np.log(len(log_probs))
  values = {name: score(probabilities) for name, score in ops.UNCERTAINTIES.items()}
  for kind, log_p in (("averaged", averaged), ("deterministic", plain)):
    values[f"{kind}_loss"] = -jnp.take_along_axis(log_p, y[:, None], -1)[:, 0]
    values[f"{kind}_right"] = jnp.argmax(log_p, -1) == y
  return values | {"deterministic_entropy": ops.predictive_entropy(jnp.exp(plain)[None])}
