"""An output layer without parameters that can say every small set of labels."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.rows import float_dtype


def dft_logits(
  inputs: Real[ArrayLike, "*batch D"],
  num_labels: int,
  *,
  slack_kernel: Real[ArrayLike, "s num_labels"] | None = None,
) -> Float[Array, "*batch num_labels"]:
  """Maps 2k + 1 numbers to the logits of N labels; each set of at most k labels is reachable.

  z_j = x_0 / sqrt N + sqrt(2 / N) sum_{f<=k} x_{2f-1} cos(2 pi f j / N) + x_{2f} sin(2 pi f j / N)

  A trigonometric polynomial of degree k, which can have any k points above zero and the others
  below. The columns are orthonormal: the layer keeps the norm. Computed by an inverse FFT in
  O(N log N) without a matrix; `dft_kernel` is the matrix.

  Args:
    inputs: D = 2k + 1 features, usually a learned projection, followed by s more for the slack.
    slack_kernel: learned columns [s, N] added to the fixed ones.

  Raises:
    ValueError: the inputs are not an odd number 2k + 1 of features, or more than the labels.

  Example: sigmoid(dft_logits(dft_bias(k, N), N)) is k / N everywhere.
  Source: Grivas, Vergari & Lopez 2024, arXiv:2310.10443.
  """
  inputs = jnp.asarray(inputs)
  slack = 0 if slack_kernel is None else jnp.shape(slack_kernel)[0]
  _checked_size(inputs.shape[-1] - slack, num_labels)
  return _dft_logits(inputs, slack_kernel, num_labels=num_labels)


def dft_kernel(
  k: int, num_labels: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "D num_labels"]:
  """Returns the matrix [2k + 1, N] of `dft_logits`, rows orthonormal.

  Raises:
    ValueError: 2k + 1 is more than the number of labels, or k is negative.

  Example: dft_kernel(0, 4) is [[.5, .5, .5, .5]].
  Source: Grivas, Vergari & Lopez 2024, arXiv:2310.10443.
  """
  _checked_size(2 * k + 1, num_labels)
  turns = np.arange(1, k + 1)[:, None] * np.arange(num_labels) % num_labels
  angles = 2 * np.pi / num_labels * turns  # reduced to one turn: exact however many labels
  pairs = np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
  rows = np.concatenate([np.ones((1, num_labels)), pairs.reshape(2 * k, num_labels)])
  return jnp.asarray(rows / np.sqrt(num_labels), dtype)


def dft_bias(k: int, num_labels: int, dtype: DTypeLike = jnp.float32) -> Float[Array, "D"]:
  """Returns the 2k + 1 inputs at which every label has probability k / N, to start a bias from.

  Raises:
    ValueError: not 1 <= k < N / 2.

  Example: dft_bias(1, 4) is [-2.1972, 0., 0.], the first 2 log(1 / 3).
  Source: Grivas, Vergari & Lopez 2024, arXiv:2310.10443.
  """
  _checked_size(2 * k + 1, num_labels)
  if k < 1:
    raise ValueError(f"k = {k} must be at least 1: no bias makes every label impossible.")
  bias = np.zeros(2 * k + 1)
  bias[0] = math.log(k / (num_labels - k)) * math.sqrt(num_labels)
  return jnp.asarray(bias, dtype)


@partial(jax.jit, static_argnames="num_labels")
def _dft_logits(inputs, slack_kernel, *, num_labels):
  dtype = float_dtype(inputs)
  x = inputs.astype(jnp.promote_types(dtype, jnp.float32))
  size = x.shape[-1] - (0 if slack_kernel is None else jnp.shape(slack_kernel)[0])
  fixed, free = x[..., :size], x[..., size:]
  # The inverse transform of a real signal counts every frequency but 0 twice.
  waves = jax.lax.complex(fixed[..., 1::2], -fixed[..., 2::2]) * np.sqrt(0.5).astype(x.dtype)
  first = jax.lax.complex(fixed[..., :1], jnp.zeros_like(fixed[..., :1]))
  logits = jnp.fft.irfft(jnp.concatenate([first, waves], -1), n=num_labels, norm="ortho")
  if slack_kernel is not None:
    slack_kernel = jnp.asarray(slack_kernel).astype(x.dtype)
    logits = logits + jnp.matmul(free, slack_kernel, precision=jax.lax.Precision.HIGHEST)
  return logits.astype(dtype)


def _checked_size(size, num_labels):
  if size < 1 or size % 2 == 0 or size > num_labels:
    raise ValueError(
      f"{size} inputs for num_labels = {num_labels}: without the slack they must be an odd number "
      "2k + 1, at most the number of labels, where k is the largest number of positive labels."
    )
