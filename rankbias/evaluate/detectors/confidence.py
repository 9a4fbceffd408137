"""Detectors that look at the logits alone: how large, how sure, how like the others they are."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rankbias.evaluate.detectors.contract import wide

LEAST = -1e30  # in the place of log 0: times 0 it is 0


def log_odds(logits: Float[Array, "n C"]) -> Float[Array, "n"]:
  """Computes log p / (1 - p) of the largest probability: its logit minus log-sum-exp of the others.

  It orders examples as p does, and does not round to 1: in float32 every p above 1 - 6e-8 is 1,
  as after training most are. Infinite where there is no other class, -inf for a row of -inf.

  Example: log_odds([[log 3, 0.]]) is log 3.
  """
  return _top(wide(logits))[0]


def score_msp(parameters: dict[str, Any], features, logits) -> Float[Array, "n"]:
  """Scores by the largest probability of the softmax, as `log_odds`; the sigmoid of it is p.

  Source: Hendrycks & Gimpel 2017, arXiv:1610.02136.
  """
  del parameters, features
  return log_odds(logits)


def score_max_logit(parameters: dict[str, Any], features, logits) -> Float[Array, "n"]:
  """Scores by the largest logit.

  Source: Hendrycks et al. 2022, arXiv:1911.11132.
  """
  del parameters, features
  return jnp.max(wide(logits), -1)


def score_energy(
  parameters: dict[str, Any], features, logits, *, temperature: float = 1.0
) -> Float[Array, "n"]:
  """Scores by the negative free energy t log sum_c e^(z_c / t), of t = `temperature`.

  Source: Liu et al. 2020, arXiv:2010.03759.
  """
  del parameters, features
  return temperature * jax.nn.logsumexp(wide(logits) / temperature, axis=-1)


def score_gen(
  parameters: dict[str, Any], features, logits, *, gamma: float = 0.1, largest: int = 100
) -> Float[Array, "n"]:
  """Scores by a generalised entropy, -sum p^g (1 - p)^g over the `largest` probabilities.

  1 - p and the powers are taken from logarithms, so that neither rounds to 0.

  Source: Liu, Lochman & Zach 2023, CVPR (GEN).
  """
  del parameters, features
  log_p, log_q = log_probabilities(logits)
  if largest < log_p.shape[-1]:
    log_p, places = jax.lax.top_k(log_p, largest)
    log_q = jnp.take_along_axis(log_q, places, -1)
  return -jnp.sum(jnp.exp(gamma * (log_p + log_q)), -1)


def fit_kl_matching(features, logits, head=None) -> dict[str, Any]:
  """Averages the probabilities of the examples that are predicted as each class.

  Returns {"log_mean" [C, C], "used" [C]}; a class that is never predicted is not used.
  """
  del features, head
  log_p = log_probabilities(logits)[0]
  classes = log_p.shape[-1]
  predicted = jnp.argmax(wide(logits), -1)
  count = jax.ops.segment_sum(jnp.ones_like(log_p[:, 0]), predicted, classes)
  top = jnp.maximum(jax.ops.segment_max(log_p, predicted, classes), LEAST)
  total = jax.ops.segment_sum(jnp.exp(log_p - top[predicted]), predicted, classes)
  log_mean = jnp.log(total) + top - jnp.log(jnp.maximum(count, 1))[:, None]
  return {"log_mean": jnp.maximum(log_mean, LEAST), "used": count > 0}


def score_kl_matching(parameters: dict[str, Any], features, logits) -> Float[Array, "n"]:
  """Scores by -min_c KL(p || mean prediction of class c).

  Source: Hendrycks et al. 2022, arXiv:1911.11132.
  """
  del features
  log_p = log_probabilities(logits)[0]
  p = jnp.exp(log_p)
  entropy = jnp.sum(p * jnp.maximum(log_p, LEAST), -1, keepdims=True)
  cross = jnp.matmul(p, parameters["log_mean"].T, precision=jax.lax.Precision.HIGHEST)
  divergence = jnp.where(parameters["used"][None, :], entropy - cross, jnp.inf)
  return -jnp.min(divergence, -1)


def log_probabilities(
  logits: Float[Array, "n C"],
) -> tuple[Float[Array, "n C"], Float[Array, "n C"]]:
  """Returns log p and log(1 - p), each to its own relative precision also where p is nearly 1."""
  z = wide(logits)
  odds, first = _top(z)
  at_top = jax.nn.log_sigmoid(odds)[:, None]
  others = z - jnp.max(z, -1, keepdims=True) + at_top
  log_p = jnp.where(first, at_top, others)
  rest = jnp.log1p(-jnp.exp(jnp.where(first, -1, others)))
  return log_p, jnp.where(first, jax.nn.log_sigmoid(-odds)[:, None], rest)


def _top(z):
  """The log-odds of the first of the largest, and where it is."""
  first = jnp.arange(z.shape[-1])[None, :] == jnp.argmax(z, -1)[:, None]
  top = jnp.max(z, -1, keepdims=True)
  gaps = z - jnp.where(top == -jnp.inf, 0, top)  # first: a sum of large logits would lose digits
  odds = -jax.nn.logsumexp(jnp.where(first, -jnp.inf, gaps), axis=-1)
  return jnp.where(top[:, 0] == -jnp.inf, -jnp.inf, odds), first
