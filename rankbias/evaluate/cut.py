"""A network that ends early: at some layer a linear probe takes the place of all that follows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.evaluate.linear_probes import HELD_OUT, fit_ridge, make_view
from rankbias.evaluate.predictor import Predictor, batches
from rankbias.evaluate.probe import STRENGTHS
from rankbias.evaluate.spectra import columns, layer_names, matrices_of
from rankbias.rank import LinearMap

MAX_FEATURES = 2048  # of a layer, as `evaluate.probe` has them
EXAMPLES = 8  # images on which it is seen which parameters a layer depends on


def cut_probes(
  predictor: Predictor, source: Any, layers: list[str] | None = None
) -> dict[str, LinearMap]:
  """The ridge probe of each layer in forward order, its strength chosen on held-out training rows.

  It is that of `evaluate.probe`, but of all training images.

  Raises:
    ValueError: a layer is unknown; the known ones are listed.
  """
  known = layer_names(predictor, source.splits["train"]["x"][:1])[:-1]  # not the logits
  for layer in layers or ():
    if layer not in known:
      raise ValueError(f"layer {layer!r} does not exist; the network has {', '.join(known)}")
  names = [layer for layer in known if layers is None or layer in layers]
  return _fit(predictor, names, source.splits["train"], source.num_classes)


def superfluous_after(
  predictor: Predictor, source: Any, tolerance: float | None = None
) -> dict[str, Any]:
  """The first layer on which a linear probe is as good as on the last hidden one.

  A ridge probe of every hidden layer is fitted to four fifths of the training rows, its strength
  chosen among these, and scored on the other fifth. Found is the first layer in forward order with

    accuracy >= p - tolerance,    p the accuracy of the last hidden layer.

  Not that of the logits, which no probe of the same kind replaces. The test split is not seen. The
  network was trained on the rows that score, so deep layers look better than they are on new data:
  the choice is rather too late than too early.

  Args:
    tolerance: a share of right answers; None is one standard error of p, sqrt(p (1 - p) / n), which
      is 0 where the last layer's probe is always right.

  Returns: {"layer", "tolerance", "rows": n, "held_out": {layer: accuracy}}.

  Raises:
    ValueError: the tolerance is not in [0, 1).
  """
  check_tolerance(tolerance)
  split = source.splits["train"]
  names = layer_names(predictor, split["x"][:1])[:-1]
  order = np.random.default_rng(0).permutation(len(split["y"]))
  held, kept = (
    {key: array[np.sort(rows)] for key, array in split.items()}
    for rows in (order[::HELD_OUT], np.delete(order, slice(None, None, HELD_OUT)))
  )
  right = _right(predictor, _fit(predictor, names, kept, source.num_classes), held)
  n, p = len(held["y"]), right[names[-1]] / len(held["y"])
  tolerance = float(np.sqrt(p * (1 - p) / n)) if tolerance is None else tolerance
  enough = right[names[-1]] - tolerance * n - 1e-6  # counts are whole: this is rounding
  return {
    "layer": next(layer for layer in names if right[layer] >= enough),
    "tolerance": tolerance,
    "rows": n,
    "held_out": {layer: right[layer] / n for layer in names},
  }


def check_tolerance(tolerance: float | None, name: str = "tolerance") -> None:
  """Raises unless it is None or a share of right answers that may be lost."""
  if tolerance is not None and not 0 <= tolerance < 1:
    raise ValueError(
      f"{name}={tolerance} must lie in [0, 1), a share of right answers; None is a standard error"
    )


def _fit(predictor, names, split, classes) -> dict[str, LinearMap]:
  """The ridge probes of these layers, each at its best strength."""
  view = make_view(predictor, names, MAX_FEATURES)
  probes, best = fit_ridge(view, split, classes=classes, strengths=STRENGTHS)
  return {
    layer: probes[layer]._replace(kernel=probes[layer].kernel[best[layer]]) for layer in names
  }


def _right(predictor, probes, split) -> dict[str, int]:
  """How many rows of a split each layer's probe gets right."""
  totals = dict.fromkeys(probes, 0)
  for x, y, weight in batches(split):
    found = matrices_of(predictor.functions(), predictor.numbers(), x, y, MAX_FEATURES)
    for layer, count in _counts({k: found[k] for k in probes}, probes, y, weight).items():
      totals[layer] += int(count)
  return totals


@jax.jit
def _counts(matrices, probes, y, weight):
  return {k: jnp.sum(weight * (jnp.argmax(p(matrices[k]), 1) == y)) for k, p in probes.items()}


def cut_at(predictor: Predictor, source: Any, layer: str, probe: LinearMap) -> Predictor:
  """The predictor whose features are a layer's activations and whose head is the probe.

  It holds the parameters that the layer depends on; the others are zeros in the program, which the
  compiler removes together with the layers that used them.
  """
  needed = used_leaves(predictor, source.splits["train"]["x"][:EXAMPLES], layer)
  leaves, _ = jax.tree.flatten(predictor.params)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), predictor.params)
  trained = [path[0].key == "params" for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
  params = {"params": {}, "other": {}}
  for i, leaf in enumerate(leaves):
    if needed[i]:
      params["params" if trained[i] else "other"][str(i)] = leaf
  bias = probe.bias - jnp.matmul(probe.mean, probe.kernel, precision=jax.lax.Precision.HIGHEST)
  return Predictor(
    make_cut(predictor.apply, shapes, layer),
    params,
    scores,
    {"kernel": probe.kernel, "bias": bias},
    predictor.temperature,
  )


def make_cut(apply: Callable, shapes: Any, layer: str) -> Callable:
  """The `apply` of a network cut at a layer, of the leaves that `cut_at` keeps, by their places.

  Args:
    shapes: of all parameters of the whole network.
  """
  leaves, tree = jax.tree.flatten(shapes)

  def run(params, x, **options):
    kept = params["params"] | params["other"]
    full = [kept.get(str(i), jnp.zeros(leaf.shape, leaf.dtype)) for i, leaf in enumerate(leaves)]
    act = apply(jax.tree.unflatten(tree, full), x, **options)[1][layer]
    act = act.reshape(len(act), -1)
    return act[:, columns(act.shape[1], MAX_FEATURES)], {layer: act}

  return run


def used_leaves(predictor: Predictor, x: Any, layer: str) -> list[bool]:
  """Which leaves of the parameters a layer depends on: those with a derivative that is not zero."""

  def probe(params):
    act = predictor.apply(params, x)[1][layer]
    return jnp.sum(act * jnp.sin(jnp.arange(act.size, dtype=act.dtype) + 1).reshape(act.shape))

  return [
    bool(np.any(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.grad(probe))(predictor.params))
  ]


def scores(params: Mapping[str, Any], features: Any) -> Any:
  """The head of a cut network: the probe's scores of the classes."""
  return features @ params["kernel"] + params["bias"][None, :]
