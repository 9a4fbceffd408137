"""The linear maps inside a network: their kernels as matrices, and the activations that come in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rankbias.evaluate.predictor import Predictor

ROWS = 1024  # rows of a matrix of inputs, at most
HEAD = "head/"  # before the names of the head's layers
LAST = f"{HEAD}linear"  # the linear map that a head says it ends in, by its method `last`
PLAIN = (1, None)  # strides, dilations and groups that change nothing


class LinearMap(NamedTuple):
  """W^T as [d, m], and the inputs A^T as [n, d]: of a convolution, its patches."""

  kernel: jax.Array
  inputs: jax.Array


def linear_maps(
  predictor: Predictor, x: Any, *, max_rows: int = ROWS
) -> tuple[dict[str, LinearMap], jax.Array]:
  """Runs the network on examples and returns its linear maps in the order of their use, and logits.

  They are the calls of `flax.linen.Dense` and of two-dimensional `flax.linen.Conv`, in any module,
  and the last linear map of a head that says which it is. A convolution is its kernel as [height *
  width * channels, m] on the patches it sees. Rows are examples, positions of a sequence, or
  patches; more than `max_rows` are represented by a fixed random subset, the same for all inputs
  of as many rows. What is called more than once has the rows of all its calls.

  Kernels that are used in another way, such as an LSTM's recurrent one or those of convolutions in
  groups, are not among them: see `kernel_names`.

  Raises:
    ValueError: nothing is found, and the network's parameters are no variables of flax.linen.
  """
  found: dict[str, tuple[jax.Array, list]] = {}

  def watch(prefix: str) -> Callable:
    def call(function, args, kwargs, context):
      out, module = function(*args, **kwargs), context.module
      name, use = prefix + "/".join(module.path), None
      if prefix and context.method_name == "last":
        name, use = LAST, (out[1], _rows(out[0], max_rows))
      elif context.method_name == "__call__" and isinstance(module, nn.Dense | nn.Conv):
        use = _use(module, args[0] if args else kwargs["inputs"], max_rows)
      if use is not None:
        found.setdefault(name, (use[0], []))[1].append(use[1])
      return out

    return call

  with nn.intercept_methods(watch("")):
    features, _ = predictor.apply(predictor.params, x)
  with nn.intercept_methods(watch(HEAD)):
    logits = predictor.head(predictor.head_params, features)
  if not found:
    _own(predictor.params, "network")
  maps = {
    name: LinearMap(kernel, _rows(jnp.concatenate(parts), max_rows))
    for name, (kernel, parts) in found.items()
  }
  return maps, _rows(logits, max_rows)


def shapes_of(predictor: Predictor, x: Any) -> dict[str, LinearMap]:
  """The shapes of the linear maps, in the order of their use; nothing is computed."""
  names = []

  def run(params, head_params):
    own = predictor._replace(params=params, head_params=head_params)
    maps, _ = linear_maps(own, x)
    names.extend(maps)
    return maps

  shapes = jax.eval_shape(run, predictor.params, predictor.head_params)
  return {name: shapes[name] for name in names}


def kernels(predictor: Predictor) -> dict[str, jax.Array]:
  """Every parameter called "kernel" of model and head, by the name of its layer.

  Raises:
    ValueError: parameters are no variables of flax.linen.
  """
  head = kernels_of(_own(predictor.head_params, "head"))
  return kernels_of(_own(predictor.params, "network")) | {HEAD + n: w for n, w in head.items()}


def kernels_of(params: Any) -> dict[str, jax.Array]:
  """The leaves called "kernel" of a tree of parameters, {"block1/conv1": ...}."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  paths = [([str(key.key) for key in path], leaf) for path, leaf in leaves]
  return {"/".join(path[:-1]): leaf for path, leaf in paths if path[-1] == "kernel"}


def kernel_names(predictor: Predictor, x: Any) -> tuple[list[str], list[str]]:
  """The linear maps in the order of their use, and the kernels that are not among them."""
  used = list(shapes_of(predictor, x))
  return used, [name for name in kernels(predictor) if name not in used]


def _own(variables, part):
  """The trained ones of a module's variables; raises where they are those of a plain function."""
  if not isinstance(variables, Mapping) or "params" not in variables:
    raise ValueError(
      f"the parameters of this {part} are no variables of flax.linen, {{'params': ...}}: layers "
      "are the calls of its modules. Of a plain function give kernels and inputs themselves to "
      "rank.alignment, rank.growth or evaluate.factor_kernel"
    )
  return variables["params"]


def _use(module, inputs, max_rows):
  """The kernel and the inputs of a call as matrices, or None where it is no matrix product."""
  kernel = module.get_variable("params", "kernel")
  if isinstance(module, nn.Dense):
    return kernel, _rows(inputs, max_rows)
  plain = module.feature_group_count == 1 and module.mask is None and inputs.ndim == 4
  plain = plain and module.input_dilation in PLAIN and module.padding not in ("CIRCULAR", "REFLECT")
  if not plain or kernel.ndim != 4:
    return None
  window = kernel.shape[:2]
  strides, dilation = (_pair(value or 1) for value in (module.strides, module.kernel_dilation))
  pads = _pads(module.padding, inputs.shape[1:3], window, strides, dilation)
  patches = _patches(inputs, window, strides, dilation, pads, max_rows)
  return kernel.reshape(-1, kernel.shape[-1]), patches


def _rows(array, max_rows):
  """The array as [rows, features], a fixed random subset of many rows."""
  array = array.reshape(-1, array.shape[-1])
  return array[_chosen(len(array), max_rows)]


def _chosen(count, most):
  if count <= most:
    return np.arange(count)
  return np.sort(np.random.default_rng(count).choice(count, most, replace=False))


def _patches(x, window, strides, dilation, pads, max_rows):
  """What a convolution multiplies its kernel with, [patches, height * width * channels]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
  sides = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:3], reach, strides, strict=True)]
  image, row, column = np.unravel_index(
    _chosen(len(x) * sides[0] * sides[1], max_rows), (len(x), *sides)
  )
  down, right = (d.ravel() * s for d, s in zip(np.indices(window), dilation, strict=True))
  rows = row[:, None] * strides[0] + down[None, :]
  columns = column[:, None] * strides[1] + right[None, :]
  return x[image[:, None], rows, columns].reshape(len(image), -1)


def _pads(padding, sides, window, strides, dilation):
  """The padding of both sides as pairs."""
  if isinstance(padding, str):
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    return jax.lax.padtype_to_pads(sides, reach, strides, padding)
  return [_pair(side) for side in _pair(padding)]


def _pair(value):
  return (value, value) if isinstance(value, int) else tuple(value)
