"""Is a head a linear map with a bias, and which? Its kernel and bias, read off the head itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rankbias.evaluate.predictor import Predictor

# Of the largest logit: by how much logits may differ from those of a linear map. Heads compute in
# the default precision, which on an accelerator may keep 10 bits of a product's factors, 5e-4 of
# each; in float32 it is 1e-6. A nonlinearity that does not show above it changes no measure here.
LINEAR = 1e-3


def linear_head(
  predictor: Predictor, features: Any, logits: Any
) -> tuple[Float[Array, "d C"], Float[Array, "C"]] | None:
  """The kernel and bias with logits = features kernel + bias, None where the head is no such map.

  They are read off the head at zero and at the unit vectors, and tried on these features: the
  largest deviation may be 1e-3 of the largest logit.

  Args:
    features: [n, d], as the head sees them, and the logits [n, C] that the network has for them.

  Example: linear_head(predictor, *(outputs(predictor, source, "test")[:2])).
  """
  own = predictor.functions()[1], predictor.head_params
  kernel, bias, deviation, largest = _read(*own, features, logits)
  return (kernel, bias) if deviation <= LINEAR * largest else None


def affine(head: Callable, width: int, dtype) -> tuple[Float[Array, "d C"], Float[Array, "C"]]:
  """Returns the kernel and the bias of a head that is affine in the features.

  Example: affine(lambda h: h @ kernel + bias, len(kernel), kernel.dtype) is (kernel, bias).
  """
  bias = head(jnp.zeros((1, width), dtype))[0]
  kernel = head(jnp.eye(width, dtype=dtype)) - bias[None, :]
  return kernel.astype(dtype), bias.astype(dtype)


@partial(jax.jit, static_argnums=0)
def _read(head, params, features, logits):
  kernel, bias = affine(partial(head, params), features.shape[1], features.dtype)
  product = jnp.matmul(features, kernel, precision=jax.lax.Precision.HIGHEST)
  deviation = jnp.max(jnp.abs(product + bias[None, :] - logits))
  return kernel, bias, deviation, jnp.max(jnp.abs(logits))
