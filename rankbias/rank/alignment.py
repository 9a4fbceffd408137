"""Do weights amplify the directions that their inputs use? Overlap, gain, and growth by layers.

With activations A_{i-1} [d, n], one column an example, a layer computes W_i A_{i-1}. Functions here
take what code holds, the transposes: kernel = W^T [d, m] and activations = A^T [n, d].
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.rank.spectrum import (
  GRAM_NOISE,
  Method,
  checked_method,
  singular_values,
  triplets,
  working_dtype,
)


class Growth(NamedTuple):
  """Natural logarithms of the factors by which layers change the top singular value."""

  weights: Float[Array, "L"]  # log |W_i|_2: larger singular values
  gain: Float[Array, "L"]  # log |W_i A_{i-1}|_2 / (|W_i|_2 |A_{i-1}|_2), at most 0: alignment
  nonlinearity: Float[Array, "L"]  # log |A_i|_2 / |W_i A_{i-1}|_2: all behind the weights


def alignment(
  kernel: Real[ArrayLike, "d m"],
  activations: Real[ArrayLike, "n d"],
  *,
  k: int,
  method: Method | None = None,
) -> Float[Array, ""]:
  """Compares the k input directions that weights amplify most with the k that inputs use most.

  |V_k^T Q_k|_F^2 / k with W = U S V^T and A = Q Sigma R^T: the mean squared cosine of the principal
  angles of two subspaces, 1 where they are the same, 0 where they are orthogonal, and k / d on
  average where one is random.

  Args:
    k: at most the numerical rank of either matrix, which counts singular values above 1e-7 of the
      largest ("gram"; a few rounding units otherwise). Under a transformation, such as jit or
      vmap, the shapes alone are checked: directions beyond the rank count as orthogonal to
      everything, so that the result is at most rank / k. A call outside waits for the result to
      look at the rank; compile it where it is called often. Where the k-th and the next singular
      value are equal, the subspace is one of many.
    method: as in `singular_values`.

  It has no derivative: that of singular vectors is infinite at ties.

  Raises:
    ValueError: k is below 1, above a side of a matrix or, outside of transformations, above the
      rank of one; or the matrices have no common d.

  Example: alignment([[2., 0.], [0., 1.]], [[3., 0.], [0., 4.]], k=1) is 0.
  Source: Bjorck & Golub 1973, Mathematics of Computation 27 (principal angles).
  """
  kernel, x = _checked(kernel, activations)
  _check_k(k, kernel.shape, x.shape)
  methods = checked_method(method, kernel.dtype), checked_method(method, x.dtype)
  overlap, ranks = _alignment(kernel, x, k, methods)
  if not isinstance(ranks, jax.core.Tracer):
    _check_ranks(k, *map(int, ranks))
  return overlap


def gain(
  kernel: Real[ArrayLike, "d m"],
  activations: Real[ArrayLike, "n d"],
  *,
  method: Method | None = None,
) -> Float[Array, ""]:
  """Computes the share of the largest possible amplification that a layer reaches on its inputs.

  |W A|_2 / (|W|_2 |A|_2), spectral norms; in (0, 1] up to rounding unless W A = 0, and 1 where the
  top directions match. A matrix of zeros gives NaN.

  Example: gain([[2., 0.], [0., 1.]], [[1., 0.], [0., 2.]]) is 0.5.
  Source: submultiplicativity; Golub & Van Loan 2013, "Matrix computations", section 2.3.
  """
  kernel, x = _checked(kernel, activations)
  return _top(_matmul(x, kernel), method) / (_top(kernel, method) * _top(x, method))


def growth(
  kernels: Sequence[Real[ArrayLike, "..."]],
  inputs: Sequence[Real[ArrayLike, "..."]],
  output: Real[ArrayLike, "n m"],
  *,
  method: Method | None = None,
) -> Growth:
  """Splits the growth of the top singular value through a chain of layers, layer by layer.

  log |A_L|_2 - log |A_0|_2 = sum_i log |W_i|_2 + log gain_i + log |A_i|_2 / |W_i A_{i-1}|_2,
  an identity: what the three parts of all layers add up to is the whole.

  Args:
    kernels: W_1^T, ..., W_L^T in the order of the chain.
    inputs: of each layer, A_0^T, ..., A_{L-1}^T; A_i is all that happened to W_i A_{i-1} on its
      way to the next weights: bias, nonlinearity, normalisation, pooling, a residual connection.
    output: A_L^T, the logits where the last layer is a linear head.

  Raises:
    ValueError: there are no kernels, or not as many as inputs, or one does not fit its inputs.

  Example: of one layer, growth([[[3.]]], [[[2.]]], [[5.]]) is [log 3], [0.], [log 5 / 6].
  Source: the submultiplicative bound |W A| <= |W| |A|, written as an equality.
  """
  if not kernels or len(kernels) != len(inputs):
    raise ValueError(
      f"{len(kernels)} kernels and {len(inputs)} inputs: give one input to each of the kernels."
    )
  pairs = [_checked(kernel, x) for kernel, x in zip(kernels, inputs, strict=True)]
  own, products = [kernel for kernel, _ in pairs], [_matmul(x, kernel) for kernel, x in pairs]
  states = [*(x for _, x in pairs), jnp.asarray(output)]
  logs = jnp.log(jnp.stack(_tops([*own, *products, *states], method)))
  weights, products, states = jnp.split(logs, [len(pairs), 2 * len(pairs)])
  return Growth(weights, products - weights - states[:-1], states[1:] - products)


@partial(jax.jit, static_argnums=(2, 3))
def _alignment(kernel, x, k, methods):
  pairs = zip((kernel.T, x), methods, strict=True)
  (amplified, first), (used, second) = (_directions(a, k, method) for a, method in pairs)
  return jnp.sum(_matmul(amplified.T, used) ** 2) / k, jnp.stack([first, second])


def _directions(matrix, k, method):
  """The top k right singular vectors [d, k], zeros where sigma is zero up to rounding; the rank.

  Of a matrix that is not finite, which has no rank, it is k: NaN says what is wrong.
  """
  _, values, right = triplets(matrix, method, False)
  noise = GRAM_NOISE if method == "gram" else max(matrix.shape) * jnp.finfo(matrix.dtype).eps
  kept = values > noise * values[0]
  rank = jnp.where(jnp.isfinite(values[0]), jnp.sum(kept), k)
  return (right * kept[None, :])[:, :k], rank


def _top(matrix, method):
  return singular_values(matrix, method=method)[0]


def _tops(matrices, method):
  """The top singular value of each; those of one shape are stacked, so that they compile once."""
  alike, found = {}, [None] * len(matrices)
  for i, matrix in enumerate(matrices):
    alike.setdefault((matrix.shape, matrix.dtype), []).append(i)
  for places in alike.values():
    values = singular_values(jnp.stack([matrices[i] for i in places]), method=method)
    for i, own in zip(places, values, strict=True):
      found[i] = own[0]
  return found


def _matmul(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _checked(kernel, activations):
  """Returns both in float32 or wider; raises where one does not fit the other."""
  kernel, x = jnp.asarray(kernel), jnp.asarray(activations)
  if kernel.ndim != 2 or x.ndim != 2 or x.shape[1] != kernel.shape[0] or 0 in kernel.shape:
    raise ValueError(
      f"kernel {kernel.shape} and activations {x.shape}: give them as [d, m] and [n, d], examples "
      "in rows, without empty sides."
    )
  return kernel.astype(working_dtype(kernel.dtype)), x.astype(working_dtype(x.dtype))


def _check_k(k, kernel, activations):
  most = min(*kernel, *activations)
  if not 1 <= k <= most:
    raise ValueError(
      f"k = {k}: a kernel of shape {tuple(kernel)} and activations of shape {tuple(activations)} "
      f"have at most {most} singular directions each. Give 1 <= k <= {most}."
    )


def _check_ranks(k, kernel, activations):
  most = min(kernel, activations)
  if k > most:
    remedy = f"Give 1 <= k <= {most}" if most else "There is no k for a matrix of zeros"
    raise ValueError(
      f"k = {k}: the kernel has numerical rank {kernel} and the activations have {activations}; "
      f"directions beyond are rounding. {remedy}, or call it under jax.jit, where they count as "
      "orthogonal to everything."
    )
