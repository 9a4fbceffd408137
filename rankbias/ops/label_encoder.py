"""DRILL: a deep residual encoder of the label vectors, in front of a linear output layer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.affine import affine, wide
from rankbias.ops.rows import float_dtype


def drill_encoder(
  vectors: Real[ArrayLike, "*batch d"],
  kernels: Real[ArrayLike, "depth rows columns"],
  biases: Real[ArrayLike, "layers width"],
  *,
  activation: Callable = jax.nn.sigmoid,
  previous: bool = False,
  between: Callable = lambda x, layer: x,
) -> Float[Array, "*batch d"]:
  """Encodes label vectors by a deep residual network; every layer adds the first vectors again.

  E_i = act(E_(i-1) B_i + b_i) + E_0,   and + E_(i-1) for i > 1 with `previous`;   i = 1..depth

  Logits are h E_depth^T + b. They have the rank of a linear layer, d: what changes is how labels
  share parameters. The published dual form encodes the features h as well.

  Args:
    vectors: E_0, one row a label, [V, d]; or the features.
    kernels: B_i, [depth, d, d].
    biases: b_i, [depth, d].
    between: what happens to E_(i-1) before layer i, called with it and i - 1; a dropout.

  Raises:
    ValueError: shapes do not fit.

  Example: with depth 0 the vectors return as they are.
  Source: Pappas & Henderson 2019, arXiv:1905.05513.
  """
  size, depth = jnp.shape(vectors)[-1], jnp.shape(kernels)[0]
  if jnp.shape(kernels)[1:] != (size, size) or jnp.shape(biases) != (depth, size):
    raise ValueError(
      f"kernels of shape {jnp.shape(kernels)} and biases of shape {jnp.shape(biases)} do not fit "
      f"vectors of shape {jnp.shape(vectors)}: pass [depth, d, d] and [depth, d] with d = {size}."
    )
  dtype = float_dtype(vectors)
  vectors, kernels, biases = wide(vectors, kernels, biases)
  encoded = vectors
  for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
    layer = activation(affine(between(encoded, i), kernel, bias)) + vectors
    encoded = layer + encoded if previous and i > 0 else layer
  return encoded.astype(dtype)
