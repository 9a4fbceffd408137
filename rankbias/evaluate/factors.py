"""Kernels as products of two thin ones: truncated, counted, and run as two layers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from rankbias.evaluate.linear_maps import kernels_of

DOWN, UP = "down", "up"  # the two kernels that stand where there was "kernel"


class Factors(NamedTuple):
  """A kernel as a product: down [..., d, r], shaped as the kernel but for r outputs, up [r, m]."""

  down: np.ndarray
  up: np.ndarray


def factor_kernel(kernel: Any, rank: int, *, inputs: Any = None) -> Factors:
  """Approximates a kernel by one of rank r, as two factors.

  Of the kernel as W [d, m] and inputs A [n, d]:
    without inputs   min ||W - down up||_F,       by the r first singular triplets of W
    with inputs      min ||A W - A down up||_F:   down = W Q, up = Q^T, where Q are the r first
                     right singular vectors of A W, the eigenvectors of W^T (A^T A) W.
  The second is the best for what the layer says on these inputs, whatever it says on others. A
  convolution [h, w, c, m] is W [h w c, m], so that `down` is one to r channels and `up` is 1 x 1.

  Args:
    inputs: rows as the layer gets them; of a convolution its patches.

  Raises:
    ValueError: the rank is not in 1..min(d, m), or inputs have another width.

  Example: factor_kernel(kernel, min(kernel.shape)) multiplies to the kernel.
  Source: Eckart & Young 1936, Psychometrika 1; with inputs: Zhang et al. 2015, arXiv:1505.06798.
  """
  kernel = np.asarray(kernel)
  matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
  if not 1 <= rank <= min(matrix.shape):
    raise ValueError(
      f"rank = {rank} of a kernel that is {matrix.shape[0]} x {matrix.shape[1]} as a matrix: give "
      f"1 to {min(matrix.shape)}."
    )
  if inputs is None:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    down, up = left[:, :rank] * values[None, :rank], right[:rank]
  else:
    rows = np.asarray(inputs, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(matrix):
      raise ValueError(
        f"inputs of shape {rows.shape} do not enter a kernel that is {matrix.shape[0]} x "
        f"{matrix.shape[1]} as a matrix: give [n, {matrix.shape[0]}]."
      )
    outputs = rows @ matrix
    directions = np.linalg.eigh(outputs.T @ outputs)[1][:, ::-1][:, :rank]
    down, up = matrix @ directions, directions.T
  shape = (*kernel.shape[:-1], rank)
  return Factors(down.reshape(shape).astype(kernel.dtype), up.astype(kernel.dtype))


def saves(shape: tuple[int, ...], rank: int) -> bool:
  """Whether two factors have fewer parameters than the kernel: r (d + m) < d m."""
  d, m = int(np.prod(shape[:-1])), shape[-1]
  return rank * (d + m) < d * m


def replace_kernels(params: Any, factors: Mapping[str, Factors]) -> dict:
  """Returns the tree of parameters with "down" and "up" in the place of some layers' "kernel".

  Raises:
    ValueError: a layer has no kernel; the known ones are listed.
  """
  known = kernels_of(params)
  for layer in factors:
    if layer not in known:
      raise ValueError(f"layer {layer!r} has no kernel; those with one: {', '.join(known)}")

  def rebuild(tree, path=""):
    if not isinstance(tree, Mapping):
      return tree
    own = {k: rebuild(v, f"{path}/{k}" if path else k) for k, v in tree.items()}
    if path in factors:
      del own["kernel"]
      own |= {DOWN: factors[path].down, UP: factors[path].up}
    return own

  return rebuild(params)


def parameters(*trees: Any) -> int:
  """The number of numbers in trees of parameters."""
  return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(trees))


@functools.lru_cache(maxsize=64)
def with_factors(apply: Callable) -> Callable:
  """Returns an `apply` of a Predictor that multiplies by the factors where parameters hold them.

  Kernels are not multiplied back: a layer does r (d + m) multiplications for each row instead of
  d m. Dense layers and convolutions can be factored, and what has its kernel runs as before.
  """

  def run(params, x, **options):
    with nn.intercept_methods(_factored):
      return apply(params, x, **options)

  return run


def _factored(function, args, kwargs, context):
  """The call of a layer that holds factors, or what the layer does."""
  module = context.module
  linear = context.method_name == "__call__" and isinstance(module, nn.Dense | nn.Conv)
  if not linear or not module.has_variable("params", DOWN):
    return function(*args, **kwargs)
  down, up = (module.get_variable("params", name) for name in (DOWN, UP))
  x = args[0] if args else kwargs["inputs"]
  if isinstance(module, nn.Conv):
    names = ("kernel_size", "strides", "padding", "kernel_dilation", "precision", "dtype")
    own = {name: getattr(module, name) for name in names}
    thin = nn.Conv(down.shape[-1], use_bias=False, parent=None, **own)
  else:
    own = {"dtype": module.dtype, "precision": module.precision}
    thin = nn.Dense(down.shape[-1], use_bias=False, parent=None, **own)
  types = {"dtype": module.dtype, "precision": module.precision}
  wide = nn.Dense(up.shape[-1], module.use_bias, parent=None, **types)
  last = {"kernel": up}
  if module.use_bias:
    last["bias"] = module.get_variable("params", "bias")
  return wide.apply({"params": last}, thin.apply({"params": {"kernel": down}}, x))
