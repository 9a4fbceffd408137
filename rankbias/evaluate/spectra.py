"""How many dimensions does each layer use? Spectra, ranks and norms of activations and logits.

A layer's matrix has one row an image and one column a feature. `covariance_rank` reads the spectrum
of the centred matrix (eigenvalues of the sample covariance); every other measure that of the raw
matrix. Layers wider than `max_features` are represented by a fixed random subset of their features.
A sequence has labels [L], and its row is read at the first position that has one: its label is not
negative.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import ops, rank
from rankbias.evaluate.predictor import Predictor, batches, joined

MEASURES = {
  "numerical_rank": rank.numerical_rank,
  "effective_rank": rank.effective_rank,
  "stable_rank": rank.stable_rank,
  "participation_ratio": rank.participation_ratio,
}
FINAL_MEASURES = MEASURES | {
  "rankme": rank.rankme,
  "energy_rank": partial(rank.energy_rank, fraction=0.99),
}
TOLERANCES = tuple(10.0 ** (-k / 2) for k in range(2, 13))  # 1e-1 ... 1e-6


def measure_layers(predictor: Predictor, x, y, *, max_features: int = 8000) -> dict[str, Any]:
  """Norms of the logits and ranks of every layer on one batch, as traced numbers.

  Returns "logits:<norm>", "logits:singular_values" and "<layer>:<measure>", with layers in forward
  order and "logits" last; `loss` and `accuracy` on the batch. To be jitted, and vmapped, by the
  caller.
  """
  matrices, log_probs = layer_matrices(predictor, x, y, max_features)
  y = at_first_label(y[..., None], y)[..., 0]
  row = {
    "loss": jnp.mean(ops.cross_entropy(log_probs, y)),
    "accuracy": jnp.mean(jnp.argmax(log_probs, -1) == y),
  }
  for layers, raw, centered in spectra_by_shape(matrices):
    ranks = {name: measure(raw) for name, measure in MEASURES.items()}
    ranks["covariance_rank"] = rank.covariance_rank(centered)
    row |= {
      f"{layer}:{name}": values[i]
      for i, layer in enumerate(layers)
      for name, values in ranks.items()
    }
    if "logits" in layers:
      singular_values = raw[layers.index("logits")]
  norms = logits_norms(matrices["logits"], singular_values, predictor.temperature)
  row |= {f"logits:{name}": value for name, value in norms.items()}
  return row | {"logits:singular_values": singular_values}


def spectra(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  images: int = 2048,
  max_features: int = 8000,
  split: str = "train",
) -> dict[str, Any]:
  """Spectra and every rank measure of every layer over the first `images` images of a split.

  Returns:
    "norms" {name: number}, "ranks" {layer: {measure: number}}, "tolerance" {"rtol": [...],
    "covariance_rank" and "numerical_rank": {layer: [...]}}, "spectrum" and "spectrum_centered"
    {layer: singular values, descending}.
  """
  matrices = collected(predictor, source.splits[split], images, max_features)
  result = {
    "ranks": {},
    "tolerance": {"rtol": list(TOLERANCES)},
    "spectrum": {},
    "spectrum_centered": {},
  }
  sweeps = {"covariance_rank": {}, "numerical_rank": {}}
  for layer in layer_names(predictor, source.splits[split]["x"][:1]):
    matrix = matrices.pop(layer)
    raw, centered, ranks, *counts = jax.device_get(_summary(matrix))
    result["ranks"][layer] = {name: float(value) for name, value in ranks.items()}
    for sweep, count in zip(sweeps.values(), counts, strict=True):
      sweep[layer] = [int(c) for c in count]
    result["spectrum"][layer], result["spectrum_centered"][layer] = raw, centered
  result["tolerance"] |= sweeps
  norms = logits_norms(matrix, raw, predictor.temperature)  # the last matrix is the logits
  return result | {"norms": {name: float(value) for name, value in norms.items()}}


def collected(predictor: Predictor, split: Any, images: int, max_features: int) -> dict[str, Any]:
  """The matrix of every layer, {layer: [images, features]}, over the first images of a split."""
  parts = {}
  for x, y, weight in batches({name: rows[:images] for name, rows in split.items()}):
    count = int(weight.sum())
    own = matrices_of(predictor.functions(), predictor.numbers(), x, y, max_features)
    for layer, matrix in own.items():
      parts.setdefault(layer, []).append(np.asarray(matrix)[:count])
  return {layer: np.concatenate(parts.pop(layer)) for layer in list(parts)}


@jax.jit
def _summary(matrix):
  """Both spectra of one layer, its ranks, and the counts of the sweep over the tolerance."""
  raw, centered = rank.singular_values(matrix), rank.singular_values(matrix, center=True)
  ranks = {"covariance_rank": rank.covariance_rank(centered)}
  ranks |= {name: measure(raw) for name, measure in FINAL_MEASURES.items()}
  covariance = jnp.stack([rank.covariance_rank(centered, rtol=r) for r in TOLERANCES])
  numerical = jnp.stack([rank.numerical_rank(raw, rtol=r) for r in TOLERANCES])
  return raw, centered, ranks, covariance, numerical


def layer_names(predictor: Predictor, x) -> list[str]:
  """The layers in forward order, then "logits"; jax.jit returns dicts in alphabetical order."""
  names = []
  jax.eval_shape(lambda: names.extend(predictor.apply(predictor.params, x)[1]))
  return [*names, "logits"]


def layer_matrices(predictor: Predictor, x, y, max_features: int):
  """Returns {layer: [images, features], ..., "logits": [images, classes]}, and log-probabilities.

  A mixture has its log-probabilities at T = 1 in the place of logits.
  """
  features, acts = predictor.apply(predictor.params, x)
  features = at_first_label(features, y)
  logits = predictor.head(predictor.head_params, features)
  acts = {layer: at_first_label(act, y) for layer, act in acts.items()}
  flat = {layer: act.reshape(len(act), -1) for layer, act in acts.items()}
  kept = {
    layer: matrix[:, columns(matrix.shape[1], max_features)] for layer, matrix in flat.items()
  }
  return kept | {"logits": logits}, predictor.log_probs(features)


def at_first_label(act, y):
  """The activation of sequences where their labels [B, L] begin; any other is returned as it is.

  Positions are the last axis but one, as of features [B, L, d] and of attention [B, heads, L, L].
  Labels that are no integers are distributions, one for each example.
  """
  if y.ndim == 1 or not jnp.issubdtype(y.dtype, jnp.integer):
    return act
  place = jnp.argmax(y >= 0, -1).reshape(-1, *(1,) * (act.ndim - 1))
  return jnp.take_along_axis(act, place, -2).squeeze(-2)


def columns(width: int, max_features: int):
  """A fixed random subset of a wide layer's features; all of a narrow one's."""
  if width <= max_features:
    return slice(None)
  return np.sort(np.random.default_rng(width).choice(width, max_features, replace=False))


def spectra_by_shape(matrices: dict[str, jax.Array]):
  """Yields (layers, raw, centred singular values [layers, k]); layers of one shape compile once."""
  for layers, stack in stacked(matrices):
    yield layers, rank.singular_values(stack), rank.singular_values(stack, center=True)


def stacked(matrices: dict[str, jax.Array]):
  """Yields (layers, matrices [layers, n, d]) of one shape each."""
  alike = {}
  for layer, matrix in matrices.items():
    alike.setdefault(matrix.shape, []).append(layer)
  for layers in alike.values():
    yield layers, jnp.stack([matrices[layer] for layer in layers])


def logits_norms(logits, singular_values, temperature) -> dict[str, jax.Array]:
  """Norms of the logits, raw and divided by T: the latter are what the softmax sees."""
  norms = {
    "mean_norm": jnp.mean(jnp.linalg.norm(logits, axis=-1)),
    "frobenius_norm": jnp.linalg.norm(logits) / np.sqrt(len(logits)),
    "spectral_norm": singular_values[0],
  }
  return norms | {f"tempered_{name}": value / temperature for name, value in norms.items()}


@partial(jax.jit, static_argnums=(0, 4))
def matrices_of(functions, numbers, x, y, max_features):
  """`layer_matrices` of the predictor with these functions and numbers, compiled."""
  return layer_matrices(joined(functions, numbers), x, y, max_features)[0]
