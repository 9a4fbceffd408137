"""How far does max retrieval generalise? Accuracy and sharpness of one head against the set size.

Every remedy is put into the same parameters at inference. The ceiling says how often the largest
logit belongs to the largest item: what no sharpening can pass, but for a lucky class.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias import ops
from rankbias.evaluate.predictor import Predictor, joined
from rankbias.evaluate.remedies import AS_TRAINED, Remedies, as_specs, overrides

FITTED = "fitted"  # the inverse temperature that is fitted to this head
ITEMS = 2**16  # of one pass, so that memory does not grow with the size or the number of sets
GRID = tuple(np.geomspace(1, 64, 49).tolist())  # of inverse temperatures
SIZES = tuple(2**k for k in range(4, 15))
SHOWN = 32, 16  # sets and largest items whose weights are kept for a picture


def retrieval(
  predictor: Predictor,
  source: Any,
  *,
  others=None,
  sizes: Sequence[int] = SIZES,
  sets: int = 4096,
  large_sets: int = 1024,
  remedies: Remedies | None = None,
  fit: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Measures the head on drawn sets of every size, once for every remedy.

  Args:
    source: a `rankbias.data.sets.MaxRetrieval`. All members see the same sets.
    sizes: the set sizes n.
    sets, large_sets: how many sets of a size are drawn, up to n = 4096 and beyond.
    remedies: {column: {"name": one of `ops.NORMALIZERS`, **arguments}}, which take the place of the
      network's normaliser.
    fit: {"sizes", "sets", "grid", "bins"} of held-out sets to which `ops.fit_to_scores` is fitted,
      with the probability of the true class as the score; adds the column "fitted" and its curve.

  Returns:
    {"retrieval": {"sizes", "sets", "ceiling", "spread" (nats): [a number for each size], and
    "accuracy", "entropy" (nats), "max_weight": {column: [a number for each size]}, "fitted" (the
    curve, or None)}, "weights": {"<column>/<n>": [32, 16]}}: means over sets, and the weights of
    the 16 largest items of 32 sets, in ascending order.
  """
  specs = as_specs(remedies or {})
  curves = {}
  if fit:
    curves[FITTED] = fit_head(predictor, source, **fit)
  columns = [AS_TRAINED, *(name for name, _, _ in specs), *curves]
  kinds = ("accuracy", "entropy", "max_weight")
  result = {"sizes": list(sizes), "sets": [], "ceiling": [], "spread": []}
  result |= {kind: {column: [] for column in columns} for kind in kinds}
  weights = {}
  for n in sizes:
    wanted = sets if n <= 4096 else large_sets
    found, shown = measure_size(predictor, source, specs, curves, n, wanted)
    result["sets"].append(wanted)
    for kind in ("ceiling", "spread"):
      result[kind].append(float(found[kind]))
    for i, column in enumerate(columns):
      for kind in kinds:
        result[kind][column].append(float(found[kind][i]))
      weights[f"{column}/{n}"] = shown[i]
  result["fitted"] = curves[FITTED].as_dict() if curves else None
  return {"retrieval": result, "weights": weights}


def passes(n: int, wanted: int):
  """Yields (part, sets of a draw, sets of it that count): parts of bounded size, `wanted` sets."""
  count = min(max(ITEMS // n, 1), wanted)
  for part in range(-(-wanted // count)):
    yield part, count, min(count, wanted - part * count)


def measure_size(predictor, source, specs, curves, n: int, wanted: int):
  """Means over `wanted` sets of n items, and the weights to be shown."""
  totals, shown = [], []
  for part, count, used in passes(n, wanted):
    x, y = source.draw("test", part, count=count, n=n)
    own = predictor.functions(), specs, predictor.numbers()
    found = jax.device_get(_measure(*own, curves, x, y))
    top = found.pop("top")[:, : max(SHOWN[0] - len(shown), 0)]
    shown += list(np.moveaxis(top, 1, 0))
    totals.append({name: values[..., :used].sum(-1, dtype=float) for name, values in found.items()})
  means = {name: sum(t[name] for t in totals) / wanted for name in totals[0]}
  return means, np.stack(shown, 1)


@partial(jax.jit, static_argnums=(0, 1))
def _measure(functions, specs, numbers, curves, x, y):
  """What every column does with the same sets; the compiler computes the items once for all."""
  predictor = joined(functions, numbers)
  ways = overrides(specs)
  for curve in curves.values():
    sharpened = partial(ops.adaptive_temperature_softmax, inverse_temperature=curve)
    ways.append({"normalizer": sharpened})
  order = jnp.argsort(x[:, 1:, 0])[:, -SHOWN[1] :]
  values = {"accuracy": [], "entropy": [], "max_weight": [], "top": []}
  for own in ways:
    features, acts = predictor.apply(predictor.params, x, **own)
    weights = acts["attention/weights"].astype(jnp.float32)
    logs = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    values["accuracy"].append(jnp.argmax(predictor.log_probs(features), -1) == y)
    values["entropy"].append(-jnp.sum(weights * logs, -1))
    values["max_weight"].append(weights.max(-1))
    values["top"].append(jnp.take_along_axis(weights[: SHOWN[0]], order[: SHOWN[0]], -1))
  logits = predictor.apply(predictor.params, x)[1]["attention/logits"]
  right = jnp.argmax(logits, -1) == jnp.argmax(x[:, 1:, 0], -1)
  spread = logits.max(-1) - logits.min(-1)
  stacked = {name: jnp.stack(each) for name, each in values.items()}
  return stacked | {"ceiling": right, "spread": spread}


def fit_head(
  predictor,
  source,
  *,
  sizes: Sequence[int] = SIZES,
  sets: int = 1024,
  grid: Sequence[float] = GRID,
  bins: int | Sequence[float] = 16,
):
  """Fits an inverse temperature to a head, so that the network is right most often.

  The score of a row at an inverse temperature is the probability that the whole network gives to
  the true class of a held-out set.
  """
  grid, rows = np.asarray(grid, np.float32), []
  for n in sizes:
    for part, count, used in passes(n, sets):
      x, y = source.draw("heldout", part, count=count, n=n)
      own = predictor.functions(), predictor.numbers()
      rows.append([array[:used] for array in jax.device_get(_scores(*own, x, y, grid))])
  entropies, scores = (np.concatenate(column) for column in zip(*rows, strict=True))
  return ops.fit_to_scores(entropies, scores, grid=grid, bins=bins)


def check_fit(fit: Mapping[str, Any]) -> None:
  """Raises, before anything is drawn, where no curve can be fitted to as many rows as `fit` draws.

  Between edges the rows are taken to be spread evenly, which only the fit itself can know.
  """
  parameters = inspect.signature(fit_head).parameters
  names = "sizes", "sets", "grid", "bins"
  sizes, sets, grid, bins = (fit.get(name, parameters[name].default) for name in names)
  entropies, grid, edges = np.arange(float(len(sizes) * sets)), np.float64(grid), np.float64(bins)
  if edges.ndim:
    entropies = np.resize((edges[1:] + edges[:-1]) / 2, len(entropies))
  scores = np.broadcast_to(0.0, (len(entropies), np.size(grid)))
  try:
    ops.fit_to_scores(entropies, scores, grid=grid, bins=bins)
  except ValueError as error:
    raise ValueError(f"evaluate.retrieval.fit: {error}") from None


@partial(jax.jit, static_argnums=0)
def _scores(functions, numbers, x, y, grid):
  """The entropy of every row, and the probability of its class at every inverse temperature."""
  predictor = joined(functions, numbers)

  def at(beta):
    sharpened = partial(ops.softmax, temperature=1 / beta)
    features, _ = predictor.apply(predictor.params, x, normalizer=sharpened)
    return jnp.exp(jnp.take_along_axis(predictor.log_probs(features), y[:, None], -1))[:, 0]

  logits = predictor.apply(predictor.params, x)[1]["attention/logits"]
  return ops.entropy(logits), jax.vmap(at, out_axes=1)(grid)
