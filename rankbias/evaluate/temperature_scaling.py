"""The temperature under which given logits predict given labels best, solved to convergence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

RANGE = 1e4  # the temperature is searched between 1 / RANGE and RANGE times the spread of logits
STEPS = 100  # at most; quadratic convergence takes about ten


class FittedTemperature(NamedTuple):
  """A temperature, the loss there, and whether it is a minimum or the end of the range."""

  temperature: Float[Array, ""]
  loss: Float[Array, ""]  # mean -log softmax(z / T)_y, in nats
  converged: Bool[Array, ""]


@jax.jit
def fit_temperature(
  logits: Real[ArrayLike, "n C"], labels: Int[ArrayLike, "n"]
) -> FittedTemperature:
  """Finds the temperature T that minimises the mean of -log softmax(z / T)_y.

  The loss is convex in b = 1 / T: with d = z - z_y and p = softmax(b z) it is mean log sum e^(b d),
  of slope g = mean E_p[d] and curvature h = mean Var_p[d] >= 0. So it has one minimum, the root of
  g, found by Newton steps in log b, d(log b) = -g / (b h), inside a bracket that every step
  narrows, and by halving it where a step would leave it. Computed in float32 or wider.

  Some data have no finite minimum: where every label has the largest logit of its row, alone or
  tied, the loss falls to the end as T -> 0; where labels have logits below the mean of their row on
  average, as T -> infinity. Then, and where the minimum lies beyond it, the result is the end of
  the range, 1e-4 or 1e4 times the largest spread max z - min z of a row, and `converged` is False.
  Where all spreads are 0 no T changes anything, and T is 1, not converged.

  Safe under jit and vmap. It has no derivative in reverse mode. A logit of -inf is a class that
  does not exist.

  Raises:
    ValueError: there are no examples, or labels are not one a row.

  Example: fit_temperature([[2., 0.]] * 4, [0, 0, 0, 1]) has the temperature 2 / log 3 = 1.8205.
  Source: Guo et al. 2017, arXiv:1706.04599; this solution is derived here.
  """
  logits, labels = jnp.asarray(logits), jnp.asarray(labels)
  if not logits.size or labels.shape != logits.shape[:1]:
    raise ValueError(
      f"logits of shape {logits.shape} and labels of shape {labels.shape}: give [n, C] and [n], "
      "with at least one example."
    )
  z = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  masked = z == -jnp.inf
  lowest = jnp.min(jnp.where(masked, jnp.inf, z), 1)
  scale = jnp.max(jnp.max(z, 1) - lowest)
  used = jnp.where(scale > 0, scale, 1)
  d = (z - jnp.take_along_axis(z, labels[:, None], 1)) / used
  log_b, converged = _root(d, masked)
  loss = jnp.mean(jax.nn.logsumexp(jnp.exp(log_b) * d, 1))
  flat = scale == 0
  return FittedTemperature(jnp.where(flat, 1, used * jnp.exp(-log_b)), loss, converged & ~flat)


def _root(d, masked):
  """The log of b where mean E_p[d] = 0, and whether that is inside of the range."""
  end = jnp.log(jnp.asarray(RANGE, d.dtype))
  rounding = 4 * jnp.finfo(d.dtype).eps
  finite = jnp.where(masked, 0, d)

  def slope(log_b):
    p = jax.nn.softmax(jnp.exp(log_b) * d, axis=1)
    mean = jnp.sum(p * finite, 1)
    spread = jnp.sum(p * (finite - mean[:, None]) ** 2, 1)
    return jnp.mean(mean), jnp.mean(spread)

  def narrow(state):
    log_b, low, high, _, count = state
    g, h = slope(log_b)
    low, high = jnp.where(g <= 0, log_b, low), jnp.where(g >= 0, log_b, high)
    newton = log_b - g / (jnp.exp(log_b) * h)
    inside = (newton > low) & (newton < high)  # not for NaN
    new = jnp.where(inside, newton, (low + high) / 2)
    return new, low, high, jnp.abs(new - log_b), count + 1

  def going_on(state):
    *_, step, count = state
    return (step > rounding) & (count < STEPS)

  below, above = slope(-end)[0], slope(end)[0]
  start = (jnp.zeros_like(end), -end, end, jnp.full_like(end, jnp.inf), 0)
  root = jax.lax.while_loop(going_on, narrow, start)[0]
  found = (below < 0) & (above > 0)
  return jnp.where(found, root, jnp.where(below >= 0, -end, end)), found
