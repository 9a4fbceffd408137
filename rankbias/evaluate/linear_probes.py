"""Linear classifiers on frozen features, of all layers at once: a ridge, or softmax with Adam."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from rankbias import ops, rank
from rankbias.evaluate.predictor import Predictor, batches, joined
from rankbias.evaluate.spectra import layer_matrices
from rankbias.rank import LinearMap

HELD_OUT = 5  # one in so many training rows chooses the strength of the ridge
Split = Mapping[str, np.ndarray]
Probes = dict[str, LinearMap]


class View(NamedTuple):
  """Some layers of a network, as what is compiled in and what is not.

  Attributes:
    form: (functions, layers, max_features); hashable.
    numbers: of the predictor.
  """

  form: tuple
  numbers: Any


def make_view(predictor: Predictor, layers: Sequence[str], max_features: int) -> View:
  """What the probes see of a network."""
  return View((predictor.functions(), tuple(layers), max_features), predictor.numbers())


def fit_ridge(
  view: View, split: Split, *, classes: int, strengths: Sequence[float]
) -> tuple[Probes, dict[str, int]]:
  """Fits one-hot labels by `rank.ridge`, from sums over the rows: features are not kept.

  A fixed fifth of the rows is held out at first. The strength that is right most often on it, of
  equals that with the least squared error, is then to be used with all rows. (The error alone would
  choose too strong a ridge where classes are many.)

  Returns: each layer's probes of all rows, one for each strength, and which of them is chosen.
  """
  grid = np.asarray(strengths, np.float32)
  order = np.random.default_rng(0).permutation(len(split["y"]))
  held, kept = (
    {key: array[np.sort(rows)] for key, array in split.items()}
    for rows in (order[::HELD_OUT], np.delete(order, slice(None, None, HELD_OUT)))
  )
  states, others = (stream(view, part, classes) for part in (kept, held))
  paths = {layer: rank.ridge(state, grid, targets=classes) for layer, state in states.items()}
  best = {}
  for layer, right in shares(view, paths, held).items():
    errors = np.asarray(rank.squared_error(others[layer], paths[layer]))
    best[layer] = int(np.lexsort((errors, -right))[0])
    whole = rank.spectrum_merge(states.pop(layer), others.pop(layer))
    paths[layer] = rank.ridge(whole, grid, targets=classes)
  return paths, best


def stream(view: View, split: Split, classes: int) -> dict[str, rank.streaming.State]:
  """Each layer's state of `rank.spectrum_update`, of rows of features and the one-hot label."""
  states = {
    layer: rank.spectrum_init(shape.shape[1] + classes, dtype=shape.dtype)
    for layer, shape in _shapes(view, split).items()
  }
  for x, y, weight in batches(split):
    states = _add(view.form, view.numbers, states, x, y, weight, classes)
  return states


def shares(view: View, paths: Probes, split: Split) -> dict[str, np.ndarray]:
  """How often each of a layer's probes [s] is right on a split; NaN where one says NaN."""
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
  """Fits every layer by `fit_adam`, in one compiled program, from features kept in memory."""
  parts = []
  for x, _, weight in batches(split):
    found = _features(view.form, view.numbers, x)
    parts.append({layer: np.asarray(rows)[weight > 0] for layer, rows in found.items()})
  alike = {}
  for layer, shape in _shapes(view, split).items():
    alike.setdefault(shape.shape[1], []).append(layer)
  stacks = [
    np.stack([np.concatenate([part.pop(layer) for part in parts]) for layer in layers])
    for layers in alike.values()
  ]
  found = _fit_stacks(stacks, split["y"], classes, epochs, batch_size, learning_rate)
  return {
    layer: jax.tree.map(lambda leaf, i=i: leaf[i], probes)
    for layers, probes in zip(alike.values(), jax.device_get(found), strict=True)
    for i, layer in enumerate(layers)
  }


@partial(jax.jit, static_argnums=(2, 3, 4))
def _fit_stacks(stacks, labels, classes, epochs, batch_size, learning_rate):
  """The probes of stacks of features [layers, n, d], one stack for each width."""
  options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  fit = partial(fit_adam, classes=classes, **options)
  probes = [jax.vmap(fit, (0, None))(stack, labels) for stack in stacks]
  # As of a ridge with one strength: kernels [layers, 1, d, classes].
  return [p._replace(kernel=p.kernel[:, None]) for p in probes]


@partial(jax.jit, static_argnames=("classes", "epochs", "batch_size"))
def fit_adam(
  features: Real[ArrayLike, "n d"],
  labels: Int[ArrayLike, "n"],
  *,
  classes: int,
  epochs: int = 30,
  batch_size: int = 512,
  learning_rate: float = 1e-3,
) -> LinearMap:
  """Fits softmax regression by Adam on features standardised by two things: mean and one scale.

  Minimises the mean cross-entropy of softmax(((x - m) / s) W + b) from W = 0, without weight decay;
  m is the mean row and s^2 the mean variance of a feature. One scale for the layer takes away its
  units, which differ between layers and temperatures, and leaves the shape of its spectrum: a scale
  for each feature would undo what is to be measured, and lift rounding to the size of the signal.
  Batches are cut from a new permutation in every epoch, the same for all layers and members; what
  is left over waits for the next. Written for one matrix; vmap over layers and members.

  Returns: the map of raw features, x -> (x - m) W / s + b.

  Example: jax.vmap(lambda x, y: fit_adam(x, y, classes=10), (0, None))(layers, labels).
  Source: protocol of public re-implementations of Masarczyk et al. 2023, arXiv:2305.19753 (one
  linear layer, Adam with learning rate 1e-3, 30 epochs, batch 512); the standardisation is ours.
  """
  x, labels = jnp.asarray(features), jnp.asarray(labels)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  n, d = x.shape
  size = min(batch_size, n)
  mean = jnp.mean(x, 0)
  variance = jnp.mean(jnp.square(x - mean[None, :]))
  scale = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)
  adam = optax.adam(learning_rate)

  def loss(probe, rows):
    z = LinearMap(mean, probe["kernel"] / scale, probe["bias"])(x[rows])
    return jnp.mean(ops.cross_entropy(ops.log_softmax(z), labels[rows]))

  def step(carry, rows):
    probe, moments = carry
    updates, moments = adam.update(jax.grad(loss)(probe, rows), moments)
    return (optax.apply_updates(probe, updates), moments), None

  def epoch(carry, number):
    order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), number), n)
    return jax.lax.scan(step, carry, order[: n // size * size].reshape(-1, size))

  probe = {"kernel": jnp.zeros((d, classes), x.dtype), "bias": jnp.zeros(classes, x.dtype)}
  (probe, _), _ = jax.lax.scan(epoch, (probe, adam.init(probe)), jnp.arange(epochs))
  return LinearMap(mean, probe["kernel"] / scale, probe["bias"])


def _matrices(form, numbers, x) -> dict[str, Float[Array, "n d"]]:
  functions, layers, max_features = form
  unlabelled = jnp.zeros(len(x), jnp.int32)
  matrices, _ = layer_matrices(joined(functions, numbers), x, unlabelled, max_features)
  wide = {layer: jnp.promote_types(matrices[layer].dtype, jnp.float32) for layer in layers}
  return {layer: matrices[layer].astype(dtype) for layer, dtype in wide.items()}


def _shapes(view: View, split: Split) -> dict[str, jax.ShapeDtypeStruct]:
  """The layers' matrices of one example, in forward order."""
  found = jax.eval_shape(partial(_matrices, view.form), view.numbers, split["x"][:1])
  return {layer: found[layer] for layer in view.form[1]}


_features = jax.jit(_matrices, static_argnums=0)


@partial(jax.jit, static_argnums=(0, 6))
def _add(form, numbers, states, x, y, weight, classes):
  """The states with the rows of a batch added."""
  labels = jax.nn.one_hot(y, classes)
  return {
    layer: rank.spectrum_update(
      states[layer], jnp.concatenate([rows, labels.astype(rows.dtype)], 1), where=weight > 0
    )
    for layer, rows in _matrices(form, numbers, x).items()
  }


@partial(jax.jit, static_argnums=0)
def _right(form, numbers, paths, x, y, weight):
  """Weighted counts of right answers of each layer's probes, [s] each."""

  def count(probe, rows):
    z = probe(rows)
    right = jnp.where(jnp.isfinite(z).all(1), jnp.argmax(z, 1) == y, jnp.nan)
    return jnp.sum(jnp.where(weight > 0, right, 0))

  return {
    layer: jax.vmap(count, (LinearMap(None, 0, None), None))(paths[layer], rows)
    for layer, rows in _matrices(form, numbers, x).items()
  }
