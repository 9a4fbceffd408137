"""Rank measures of the layers of any network: summed on the device, finished on the host.

The work is cut in two. The device sums a float64 Gram matrix per layer (`layer_states`, pure, to be
traced), of few rows and few features: one program of small products, dispatched without waiting.
The host takes its eigenvalues (`measure_states`) with LAPACK, without eigenvectors and once the
device is done. Layers wider than `features` are represented by a fixed random subset of their
features, and by few examples: no rank is above either number.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.linalg import lapack

from rankbias.rank import measures as of_spectra
from rankbias.rank.streaming import (
  FactorState,
  State,
  spectrum_all_reduce,
  spectrum_init,
  spectrum_update,
)

# {name: (function of the spectrum, whether the spectrum is that of the centred matrix)}
MEASURES = {
  "covariance_rank": (of_spectra.covariance_rank, True),
  "numerical_rank": (of_spectra.numerical_rank, False),
  "effective_rank": (of_spectra.effective_rank, False),
  "stable_rank": (of_spectra.stable_rank, False),
  "participation_ratio": (of_spectra.participation_ratio, False),
  "rankme": (of_spectra.rankme, False),
  "energy_rank": (partial(of_spectra.energy_rank, fraction=0.99), False),
}
DEFAULT = tuple(MEASURES)[:5]
ALONE = "activations"  # the layer's name where activations are a single array


def layer_states(
  activations: Any,
  *,
  layers: Iterable[str] | None = None,
  rows: int = 128,
  features: int = 64,
  axis_name: str | None = None,
) -> dict[str, State]:
  """Returns the state of the spectrum of every layer, to be traced where the activations are.

  A layer's matrix has one row an example and one column a feature: an activation [n, ...] is
  flattened to [n, d]. States of several batches combine by `spectrum_merge`.

  Args:
    activations: {layer: array}, nested in any way (names are then joined by "/", as in what Flax's
      `sow` collects), or one array, whose layer is called "activations".
    layers: the names to measure; None takes all.
    rows: examples of a layer that count: the first ones, of every device.
    features: of a wider layer, a fixed random subset of so many features counts.
    axis_name: of the mapped axis whose devices hold parts of the batch; None is one device.

  Raises:
    ValueError: a layer is unknown, an activation has no axis of examples, or a number is no count.

  Example: jax.jit(layer_states)({"hidden": h})["hidden"].scatter is the centred Gram matrix of h.
  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3).
  """
  for name, value in (("rows", rows), ("features", features)):
    if value < 1:
      raise ValueError(f"{name} = {value} measures nothing: give at least 1.")
  found = dict(_named(activations))
  states = {}
  for layer in found if layers is None else known_names("layer", layers, found):
    matrix = _matrix(layer, found[layer], rows, features)
    state = spectrum_update(spectrum_init(matrix.shape[1], dtype=matrix.dtype), matrix)
    states[layer] = state if axis_name is None else spectrum_all_reduce(state, axis_name)
  return states


def measure_states(
  states: Mapping[str, State], *, measures: Iterable[str] = DEFAULT, rtol: float = 1e-3
) -> dict[str, dict[str, float]]:
  """Returns {layer: {measure: number}} of the states of `layer_states`, computed on the host.

  `covariance_rank` reads the spectrum of the centred matrix, every other measure that of the raw
  one. A layer that is not finite measures NaN.

  Args:
    measures: names in `MEASURES`; "energy_rank" counts what holds 99 % of the energy.
    rtol: the tolerance of numerical_rank and of covariance_rank.

  Raises:
    ValueError: a measure is unknown.

  Example: measure_states(layer_states(jnp.eye(4)))["activations"]["numerical_rank"] is 4.
  Source: as of each measure in `rankbias.rank.measures`.
  """
  chosen = known_names("measure", measures, MEASURES)
  return measure_spectra(host_spectra(states, measures=chosen), measures=chosen, rtol=rtol)


def host_spectra(
  states: Mapping[str, State], *, measures: Iterable[str] = DEFAULT
) -> dict[str, dict[bool, np.ndarray]]:
  """Returns {layer: {whether centred: singular values}} as far as the measures read them.

  Waits for the states alone and starts nothing on the device, so that what was dispatched after
  them goes on.

  Source: Golub & Van Loan 2013, "Matrix computations", section 8.3.
  """
  kinds = {MEASURES[name][1] for name in measures}
  states = jax.device_get(dict(states))
  return {layer: {c: _spectrum(state, c) for c in kinds} for layer, state in states.items()}


def measure_spectra(
  spectra: Mapping[str, Mapping[bool, np.ndarray]],
  *,
  measures: Iterable[str] = DEFAULT,
  rtol: float = 1e-3,
) -> dict[str, dict[str, float]]:
  """Returns {layer: {measure: number}} of `host_spectra`; arguments as in `measure_states`.

  Source: as of each measure in `rankbias.rank.measures`.
  """
  chosen, widths, result = tuple(measures), {}, {layer: {} for layer in spectra}
  for layer, own in spectra.items():
    widths.setdefault(len(next(iter(own.values()))), []).append(layer)
  for alike in widths.values():
    stacks = {c: np.stack([spectra[layer][c] for layer in alike]) for c in spectra[alike[0]]}
    values = jax.device_get(_measured(stacks, rtol, chosen))
    for i, layer in enumerate(alike):
      result[layer] = {name: float(values[name][i]) for name in chosen}
  return result


def _named(tree, name="") -> Iterator[tuple[str, Any]]:
  """Yields (name, array) of nested mappings in their own order; what else holds one array is it."""
  if isinstance(tree, Mapping):
    for key, inner in tree.items():
      yield from _named(inner, f"{name}/{key}" if name else str(key))
    return
  leaves = jax.tree.leaves(tree)
  for i, leaf in enumerate(leaves):
    yield (name or ALONE) + (f"/{i}" if len(leaves) > 1 else ""), leaf


def _matrix(layer, activation, rows, features):
  """One row an example and one column a feature, few of both."""
  if np.ndim(activation) < 1 or 0 in np.shape(activation):
    raise ValueError(
      f"the activation of layer {layer!r} has shape {np.shape(activation)}: its first axis must be "
      "that of the examples, and nothing may be empty."
    )
  matrix = activation[:rows].reshape(min(rows, len(activation)), -1)
  width = matrix.shape[1]
  if width <= features:
    return matrix
  return matrix[:, np.sort(np.random.default_rng(width).choice(width, features, replace=False))]


def _spectrum(state, centered):
  """Singular values in float64, descending, of a state in NumPy arrays."""
  count, mean, root = (np.asarray(part, np.float64) for part in state)
  if not (np.isfinite(root).all() and np.isfinite(mean).all()):
    return np.full(len(mean), np.nan)
  if isinstance(state, FactorState):
    rows = root if centered else np.vstack([root, mean * np.sqrt(count)])
    return np.linalg.svd(rows, compute_uv=False)
  squares = _eigenvalues(root if centered else root + count * np.outer(mean, mean))
  return np.sqrt(np.maximum(squares[::-1], 0))  # a negative eigenvalue is rounding


def _eigenvalues(matrix):
  """Eigenvalues of a symmetric matrix, ascending.

  The smallest workspace makes LAPACK reduce it column by column. By blocks, as np.linalg.eigvalsh
  does, OpenBLAS starts threads from 64 columns on, which wait by spinning: beside a program that
  computes, 0.1 ms became 40 ms (measured). Column by column it starts them from about 100 on.
  """
  if len(matrix) == 1:  # for which dsterf has no off-diagonal
    return matrix[0]
  _, diagonal, off_diagonal, _, _ = lapack.dsytrd(matrix, lower=1, lwork=1)
  values, failed = lapack.dsterf(diagonal, off_diagonal)
  if failed:
    raise np.linalg.LinAlgError(f"{failed} eigenvalues of {len(matrix)} did not converge")
  return values


@partial(jax.jit, static_argnums=2)
def _measured(spectra, rtol, chosen):
  """{measure: [layers]}."""
  counts = ("covariance_rank", "numerical_rank")
  found = {}
  for name in chosen:
    measure, centered = MEASURES[name]
    found[name] = measure(spectra[centered], **({"rtol": rtol} if name in counts else {}))
  return found


def known_names(kind, names, known) -> list[str]:
  """Returns the names as a list; raises for an unknown one, with the known and the nearest."""
  names = list(names)
  for name in names:
    if name not in known:
      near = difflib.get_close_matches(str(name), list(known), n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(f"{name!r} is no known {kind}.{hint} Known: {', '.join(known) or 'none'}.")
  return names
