"""How many answers are right in every character? By algorithm and length, once for every remedy.

No text is decoded: greedy decoding gives the whole answer if and only if, with the true answer as
input, the most likely token is right at each of its places. For as long as it has been right, its
input is the true answer; and where it first goes wrong, it has seen nothing else either.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import ops
from rankbias.evaluate.predictor import Predictor, joined
from rankbias.evaluate.remedies import AS_TRAINED, Remedies, as_specs, overrides
from rankbias.evaluate.sharpness import row_sharpness
from rankbias.evaluate.spectra import at_first_label

PAIRS = 2**21  # of query and key in one pass, so that memory does not grow with the length
ROUND = 64  # widths are multiples of this, so that few are compiled
LOGITS, WEIGHTS = "/attention_logits", "/attention_weights"
TOKENS = (("x", 0), ("y", -1))  # what texts are filled up with
SHARPNESS = ("spread", "entropy", "max_weight")


def exact_match(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  examples: int = 1000,
  remedies: Remedies | None = None,
) -> dict[str, Any]:
  """Measures the first `examples` texts of every split, once for every remedy.

  Args:
    source: a `rankbias.data.text.TextSource`.
    remedies: {column: {"name": one of `ops.NORMALIZERS`, **arguments}}, which take the place of the
      network's normaliser in all layers.

  Returns:
    {"exact_match": {
      "splits": ["train", "test", "test/16", ...], "lengths": {split: [its lengths]},
      "tasks": {algorithm: the first name of what it asks for, which others may ask for too},
      "examples": {algorithm: [a number for each split]},
      "exact", "characters": {column: {algorithm: [for each split]}}: the parts of all answers that
        are right in every character, and of their characters that are right after the true ones
        before them; None where a split has no such text;
      "keys": [for each split]: how many tokens a text has before its answer, on average,
      "spread" (nats), "entropy" (nats), "max_weight": {column: {layer: [[a number for each head]
        for each split]}}: means over the queries that the first character of an answer is read
        from; spread is that of the logits, the others are of the weights as normalised},
    "train", "test": {"loss": mean over the characters in nats, "accuracy": part of exact answers}}.
  """
  specs = as_specs(remedies or {})
  columns = [AS_TRAINED, *(column for column, _, _ in specs)]
  names = source.form.algorithms
  tables = {kind: {c: {a: [] for a in names} for c in columns} for kind in ("exact", "characters")}
  result = {"splits": list(source.splits), "lengths": {}, "tasks": source.form.tasks}
  result |= {"examples": {a: [] for a in names}}
  result |= tables | {"keys": []} | {kind: {c: {} for c in columns} for kind in SHARPNESS}
  whole = {}
  for split, arrays in source.splits.items():
    arrays = {name: array[:examples] for name, array in arrays.items()}
    found = measure_split(predictor, arrays, specs)
    result["lengths"][split] = np.unique(arrays["length"]).tolist()
    result["keys"].append(float(arrays["start"].mean()))
    for i, algorithm in enumerate(names):
      mine = arrays["algorithm"] == i
      result["examples"][algorithm].append(int(mine.sum()))
      for kind, table in tables.items():
        for column, values in zip(columns, found[kind], strict=True):
          table[column][algorithm].append(float(values[mine].mean()) if mine.any() else None)
    for kind in SHARPNESS:
      for layer, values in found[kind].items():
        for column, own in zip(columns, values, strict=True):
          result[kind][column].setdefault(layer, []).append(own.mean(0).tolist())
    whole[split] = {
      "loss": float(found["loss"].mean()),
      "accuracy": float(found["exact"][0].mean()),
    }
  return {"exact_match": result, **{split: whole[split] for split in ("train", "test")}}


def measure_split(predictor: Predictor, arrays: Mapping[str, np.ndarray], specs: tuple):
  """What every column does with every text: {"exact", "characters": [columns, N], "loss": [N],
  "spread", ...: {layer: [columns, N, heads]}}."""
  parts, order = [], []
  for rows, x, y in passes(arrays):
    own = predictor.functions(), specs, predictor.numbers()
    found = jax.device_get(_measure(*own, x, y))
    parts.append(jax.tree.map(partial(_first, count=len(rows)), found))
    order.append(rows)
  back = np.argsort(np.concatenate(order))
  found = jax.tree.map(lambda *values: np.concatenate(values, 1)[:, back], *parts)
  return found | {"loss": found["loss"][0]}


def passes(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple]:
  """Yields (rows, x, y): texts of like length, cropped, and filled up by repetition."""
  order = np.argsort(arrays["end"], kind="stable")
  widths = -(-arrays["end"][order] // ROUND) * ROUND
  for width in np.unique(widths):
    alike, size = order[widths == width], max(PAIRS // int(width) ** 2, 1)
    for start in range(0, len(alike), size):
      rows = alike[start : start + size]
      filled = np.resize(rows, size)
      yield rows, *(_cropped(arrays[name][filled], width, fill) for name, fill in TOKENS)


def _first(values: np.ndarray, count: int) -> np.ndarray:
  return values[:, :count]


def _cropped(rows: np.ndarray, width: int, fill: int) -> np.ndarray:
  more = max(width - rows.shape[1], 0)
  return np.pad(rows, ((0, 0), (0, more)), constant_values=fill)[:, :width]


@partial(jax.jit, static_argnums=(0, 1))
def _measure(functions, specs, numbers, x, y):
  """What every column does with one batch; leaves are [columns, B, ...]."""
  predictor = joined(functions, numbers)
  asked = y >= 0
  columns = []
  for own in overrides(specs):
    features, acts = predictor.apply(predictor.params, x, **own)
    log_probs = predictor.log_probs(features)
    right = jnp.argmax(log_probs, -1) == y
    loss = ops.cross_entropy(log_probs, jnp.where(asked, y, 0))
    columns.append(
      {
        "exact": jnp.all(right | ~asked, -1),
        "characters": _mean(right, asked),
        "loss": _mean(loss, asked),
        **_sharpness(acts, y),
      }
    )
  return jax.tree.map(lambda *values: jnp.stack(values), *columns)


def _mean(values, where):
  return jnp.sum(values, -1, where=where) / jnp.sum(where, -1)


def _sharpness(acts: Mapping[str, jax.Array], y) -> dict[str, dict[str, jax.Array]]:
  """{"spread", "entropy", "max_weight": {layer: [B, heads]}} where the answers begin."""
  place = jnp.argmax(y >= 0, -1)
  seen = (jnp.arange(y.shape[1])[None] <= place[:, None])[:, None, None]
  found = {kind: {} for kind in SHARPNESS}
  for name in acts:
    if name.endswith(LOGITS):
      layer = name.removesuffix(LOGITS)
      logits, weights = (
        at_first_label(acts[layer + kind], y)[:, :, None].astype(jnp.float32)
        for kind in (LOGITS, WEIGHTS)
      )
      found["spread"][layer] = row_sharpness(logits, seen)["spread"][..., 0]
      # The logarithms of weights are logits of a softmax that gives the same weights.
      rows = row_sharpness(jnp.log(weights), seen)
      for kind in ("entropy", "max_weight"):
        found[kind][layer] = rows[kind][..., 0]
  return found
