"""A network that ends early: at some layer a linear probe takes the place of all that follows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.evaluate.linear_probes import fit_ridge, make_view
from rankbias.evaluate.predictor import Predictor
from rankbias.evaluate.spectra import columns, layer_names
from rankbias.rank import LinearMap

MAX_FEATURES = 2048
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
EXAMPLES = 8  # images on which it is seen which parameters a layer depends on


def cut_probes(
  predictor: Predictor, source: Any, layers: list[str] | None = None
) -> dict[str, LinearMap]:
  """The ridge probe of each layer in forward order, its strength chosen on held-out training rows.

  Raises:
    ValueError: a layer is unknown; the known ones are listed.
  """
  known = layer_names(predictor, source.splits["train"]["x"][:1])[:-1]  # not the logits
  for layer in layers or ():
    if layer not in known:
      raise ValueError(f"layer {layer!r} does not exist; the network has {', '.join(known)}")
  names = [layer for layer in known if layers is None or layer in layers]
  view = make_view(predictor, names, MAX_FEATURES)
  own = {"classes": source.num_classes, "strengths": STRENGTHS}
  probes, best = fit_ridge(view, source.splits["train"], **own)
  return {layer: p._replace(kernel=p.kernel[best[layer]]) for layer, p in probes.items()}


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
