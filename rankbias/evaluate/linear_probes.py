"""Linear classifiers on frozen features, of all layers and networks at once: ridge or softmax."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rankbias import rank
from rankbias.evaluate.predictor import Predictor, batches, joined
from rankbias.evaluate.softmax_regression import fit_stacks
from rankbias.evaluate.spectra import layer_matrices
from rankbias.rank import LinearMap
from rankbias.rank.float64 import double_precision

HELD_OUT = 5  # one in so many training rows chooses the strength of the ridge
Split = Mapping[str, np.ndarray]
Probes = dict[str, LinearMap]  # of each layer: kernel [members, strengths, d, k], mean and bias
States = dict[str, rank.streaming.State]  # of each layer, with a leading axis of members


class View(NamedTuple):
  """Some layers of networks that differ in numbers, as what is compiled in and what is not.

  Attributes:
    form: (functions, layers, max_features); hashable.
    numbers: of the predictors, stacked along a leading axis of members.
  """

  form: tuple
  numbers: Any


def make_views(predictors: Sequence[Predictor], layers: Sequence[str], max_features: int) -> View:
  """What the probes see of networks that share their functions.

  Raises:
    ValueError: there are none, or their functions are not the same objects.
  """
  functions = {predictor.functions() for predictor in predictors}
  if len(functions) != 1:
    raise ValueError(
      f"{len(predictors)} predictors with {len(functions)} different sets of functions: give at "
      "least one, and all with the same `apply`, `head` and `log_head`; others one after another"
    )
  stacked = jax.tree.map(lambda *own: jnp.stack(own), *(p.numbers() for p in predictors))
  return View((*functions, tuple(layers), max_features), stacked)


def make_view(predictor: Predictor, layers: Sequence[str], max_features: int) -> View:
  """What the probes see of one network."""
  return make_views([predictor], layers, max_features)


def fit_ridge(
  view: View, split: Split, *, classes: int, strengths: Sequence[float]
) -> tuple[Probes, dict[str, int]]:
  """`fit_ridges` of a view of one network: kernels [strengths, d, k], and one choice a layer."""
  paths, best = fit_ridges(view, split, classes=classes, strengths=strengths)
  return first_member(paths), {layer: int(chosen[0]) for layer, chosen in best.items()}


def fit_ridges(
  view: View, split: Split, *, classes: int, strengths: Sequence[float]
) -> tuple[Probes, dict[str, np.ndarray]]:
  """Fits one-hot labels by `rank.ridge`, from sums over the rows: features are not kept.

  A fixed fifth of the rows is held out at first. The strength that is right most often on it, of
  equals that with the least squared error, is then to be used with all rows. (The error alone would
  choose too strong a ridge where classes are many.)

  Forward passes, sums and counts are of all networks in one compiled call; the eigenproblems are
  solved one after another. Memory is 16 (d + k)^2 bytes for the sums of a layer of a network.

  Returns: each layer's probes of all rows, one for each strength, and which is chosen [members].
  """
  grid = np.asarray(strengths, np.float32)
  order = np.random.default_rng(0).permutation(len(split["y"]))
  held, kept = (
    {key: array[np.sort(rows)] for key, array in split.items()}
    for rows in (order[::HELD_OUT], np.delete(order, slice(None, None, HELD_OUT)))
  )
  states, others = (stream(view, part, classes) for part in (kept, held))
  solve = partial(rank.ridge, strengths=grid, targets=classes)
  paths = {layer: _stack(map(solve, _members(state))) for layer, state in states.items()}
  best = {}
  for layer, right in shares(view, paths, held).items():
    pairs = list(zip(_members(states.pop(layer)), _members(others.pop(layer)), strict=True))
    maps = _members(paths[layer])
    errors = [rank.squared_error(own, map_) for (_, own), map_ in zip(pairs, maps, strict=True)]
    best[layer] = np.lexsort((np.asarray(errors), -right))[:, 0]
    paths[layer] = _stack(solve(rank.spectrum_merge(*pair)) for pair in pairs)
  return paths, best


def stream(view: View, split: Split, classes: int) -> States:
  """Each layer's states of `rank.spectrum_update`, of rows of features and the one-hot label."""
  states = {}
  for layer, (members, _, d), dtype in _forms(view, split):
    one = rank.spectrum_init(d + classes, dtype=dtype)
    with double_precision():  # keeps the dtype of float64 sums; others stay as they are
      states[layer] = jax.tree.map(lambda x, m=members: jnp.zeros((m, *x.shape), x.dtype), one)
  for x, y, weight in batches(split):
    states = _add(view.form, view.numbers, states, x, y, weight, classes)
  return states


def shares(view: View, paths: Probes, split: Split) -> dict[str, Float[np.ndarray, "members s"]]:
  """How often each of a layer's probes is right on a split; NaN where one says NaN."""
  totals = [
    jax.device_get(_right(view.form, view.numbers, paths, x, y, weight))
    for x, y, weight in batches(split)
  ]
  return {
    layer: np.sum([total[layer] for total in totals], axis=0, dtype=np.float64) / len(split["y"])
    for layer in paths
  }


def fit_layers_adam(
  view: View, split: Split, *, classes: int, epochs: int, batch_size: int, learning_rate: float
) -> Probes:
  """Fits every layer of every network by `fit_adam`, in one compiled program.

  Memory is that of the features of all of them, 4 n d bytes a layer and network, twice.
  """
  parts = []
  for x, _, weight in batches(split):
    found = _features(view.form, view.numbers, x)
    parts.append({layer: np.asarray(rows)[:, weight > 0] for layer, rows in found.items()})
  alike = {}
  for layer, (_, _, d), _ in _forms(view, split):
    alike.setdefault(d, []).append(layer)
  stacks = [
    np.concatenate([np.concatenate([part.pop(layer) for part in parts], 1) for layer in layers])
    for layers in alike.values()
  ]
  own = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  found = jax.device_get(fit_stacks(stacks, split["y"], classes=classes, **own))
  probes = {}
  for layers, fitted in zip(alike.values(), found, strict=True):
    fitted = fitted._replace(kernel=fitted.kernel[:, None])  # as of a ridge with one strength
    own = zip(*(np.split(leaf, len(layers)) for leaf in fitted), strict=True)
    probes |= {layer: LinearMap(*leaves) for layer, leaves in zip(layers, own, strict=True)}
  return probes


def first_member(paths: Probes) -> Probes:
  """The probes of the first network, without the axis of members."""
  return {layer: next(_members(probes)) for layer, probes in paths.items()}


def _members(tree: Any) -> Iterator[Any]:
  """The members of a tree with a leading axis of them."""
  for m in range(len(jax.tree.leaves(tree)[0])):
    with double_precision():  # indexing outside would narrow float64
      one = jax.tree.map(lambda leaf, m=m: leaf[m], tree)
    yield one


def _stack(maps: Iterator[LinearMap]) -> LinearMap:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *maps)


def _matrices(form, numbers, x) -> dict[str, Float[Array, "members n d"]]:
  functions, layers, max_features = form
  unlabelled = jnp.zeros(len(x), jnp.int32)

  def one(numbers):
    matrices, _ = layer_matrices(joined(functions, numbers), x, unlabelled, max_features)
    wide = {layer: jnp.promote_types(matrices[layer].dtype, jnp.float32) for layer in layers}
    return {layer: matrices[layer].astype(dtype) for layer, dtype in wide.items()}

  return jax.vmap(one)(numbers)


def _forms(view: View, split: Split) -> Iterator[tuple[str, tuple, Any]]:
  """(layer, shape and dtype of its matrices of one example), in forward order."""
  found = jax.eval_shape(partial(_matrices, view.form), view.numbers, split["x"][:1])
  for layer in view.form[1]:
    yield layer, found[layer].shape, found[layer].dtype


_features = jax.jit(_matrices, static_argnums=0)


@partial(jax.jit, static_argnums=(0, 6))
def _add(form, numbers, states, x, y, weight, classes):
  """The states with the rows of a batch added."""
  labels = jax.nn.one_hot(y, classes)

  def add(state, rows):
    both = jnp.concatenate([rows, labels.astype(rows.dtype)], 1)
    return rank.spectrum_update(state, both, where=weight > 0)

  matrices = _matrices(form, numbers, x)
  return {layer: jax.vmap(add)(states[layer], rows) for layer, rows in matrices.items()}


@partial(jax.jit, static_argnums=0)
def _right(form, numbers, paths, x, y, weight):
  """Weighted counts of right answers of each layer's probes, [members, s] each."""

  def count(probe, rows):
    z = probe(rows)
    right = jnp.where(jnp.isfinite(z).all(1), jnp.argmax(z, 1) == y, jnp.nan)
    return jnp.sum(jnp.where(weight > 0, right, 0))

  counts = jax.vmap(jax.vmap(count, (LinearMap(None, 0, None), None)))
  return {layer: counts(paths[layer], rows) for layer, rows in _matrices(form, numbers, x).items()}
