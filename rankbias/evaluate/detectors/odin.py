"""ODIN: the largest probability after a step of the input that makes it larger."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from rankbias.evaluate.detectors.confidence import log_odds
from rankbias.evaluate.detectors.contract import wide

TEMPERATURE, STEP = 1000.0, 0.0014  # of ODIN, not of training; the step where 1 is white


def odin_step(
  network: Callable,
  x: Float[ArrayLike, "n ..."],
  *,
  temperature: float = TEMPERATURE,
  step: Float[ArrayLike, "..."] | float = STEP,
) -> Float[Array, "n ..."]:
  """Moves inputs by `step` along the sign of the gradient of log max softmax(z(x) / temperature).

  The sign is that of the gradient of the log-odds, of which the former is an increasing function:
  it is right where the probability is 1 to the last digit. An entry whose gradient is 0 stays where
  it is.

  Args:
    network: inputs [n, ...] -> logits [n, C], of each example on its own.
    step: broadcasts against x, for instance .0014 / std for inputs that were divided by std.

  Source: Liang, Li & Srikant 2018, arXiv:1706.02690.
  """
  x = wide(x)
  slope = jax.grad(lambda inputs: jnp.sum(log_odds(wide(network(inputs)) / temperature)))(x)
  return x + jnp.broadcast_to(jnp.asarray(step, x.dtype), x.shape) * jnp.sign(slope)


def score_odin(
  network: Callable,
  x: Float[ArrayLike, "n ..."],
  *,
  temperature: float = TEMPERATURE,
  step: Float[ArrayLike, "..."] | float = STEP,
) -> Float[Array, "n"]:
  """Scores by the largest softmax(z / temperature) of the moved inputs, as log-odds.

  Arguments are those of `odin_step`.

  Source: Liang, Li & Srikant 2018, arXiv:1706.02690.
  """
  moved = odin_step(network, x, temperature=temperature, step=step)
  return log_odds(wide(network(moved)) / temperature)
