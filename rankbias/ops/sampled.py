"""Cross-entropy with the softmax over very many items, estimated from a few drawn ones."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.midx_index import Key
from rankbias.ops.proposals import Proposal
from rankbias.ops.rows import float_dtype
from rankbias.ops.softmax import checked_temperature, log_normalize


def sampled_softmax_loss(
  query: Real[ArrayLike, "*batch d"],
  items: Real[ArrayLike, "items d"],
  positives: Integer[ArrayLike, "..."],
  key: Key,
  proposal: Proposal,
  num_samples: int,
  *,
  temperature: Real[ArrayLike, "*#batch"] = 1.0,
  bias: Real[ArrayLike, "items"] | None = None,
  remove_accidental_hits: bool = True,
  where: Bool[ArrayLike, "*#batch"] | None = None,
) -> Float[Array, "*batch"]:
  """Estimates the cross-entropy of every positive item under the softmax over all items, in nats.

  With scores s_j = (query . items_j + bias_j) / T and M draws j_m from the proposal q, the full
  loss is log Z - s_y, Z = sum_j exp(s_j). Its estimate is

    log( exp(s_y) + sum_(m: j_m != y) exp(s_(j_m)) / (M q(j_m)) ) - s_y.

  The positive enters once and exactly, draws that hit it are removed, and so the estimate of Z is
  unbiased. Loss and gradient converge to the full ones; the mean loss is too low by about half the
  relative variance of that estimate, ~ 1 / M, and less the closer q is to the softmax. Gradients
  reach query, items and bias, never the proposal. Memory is batch x M x d, never batch x V; with a
  multi-index of K codewords also batch x M x K.

  With remove_accidental_hits=False the positive is one more draw, corrected like the others:

    log( exp(s_y) / q(y) + sum_m exp(s_(j_m)) / q(j_m) ) - s_y + log q(y),

  the published loss. Its gradient converges to the full one too, its value to the full loss plus
  log(M q(y)). Correcting the positive but removing hits, or the reverse, converges to neither.

  Args:
    positives: the right item of every query, shape [*batch]; one outside 0..V-1 gives NaN.
    key: every call needs a new one.
    proposal: `uniform_proposal`, `popularity_proposal`, `midx_proposal` or any `Proposal`; it
      is given query / T. Bring the bias into it as `log_weights = bias / T`.
    num_samples: M draws a query, with replacement.
    temperature: T > 0, a number or one a query.
    where: True where a query counts; others cost 0, without gradient, whatever they hold.

  Raises:
    ValueError: sizes do not fit, num_samples < 1, or temperature is not positive.

  Example: sampled_softmax_loss(query, items, labels, key, uniform_proposal(len(items)), 50).
  Source: Chen et al. 2025, arXiv:2501.08563 (corrected draws, the second form); Blanc & Rendle
  2018, arXiv:1712.00527 (scores less log(M q), the positive apart).
  """
  query, items, positives = jnp.asarray(query), jnp.asarray(items), jnp.asarray(positives)
  _check(query, items, positives, num_samples)
  temperature = checked_temperature(temperature)
  if where is not None:
    where = jnp.broadcast_to(where, positives.shape)
    query, positives = jnp.where(where[..., None], query, 0), jnp.where(where, positives, 0)
  scaled = jax.lax.stop_gradient(_scaled(query, temperature, positives.shape))
  draws = proposal.sample(scaled, key, num_samples)
  own = None if remove_accidental_hits else proposal.log_probability(scaled, positives)
  return _loss(query, items, positives, draws, own, temperature, bias, where)


def _check(query, items, positives, num_samples):
  if query.shape[:-1] != positives.shape or query.shape[-1:] != items.shape[1:]:
    raise ValueError(
      f"query of shape {query.shape}, items of shape {items.shape} and positives of shape "
      f"{positives.shape} do not fit: pass [..., d], [V, d] and [...]."
    )
  if num_samples < 1:
    raise ValueError(f"num_samples = {num_samples} must be 1 or more.")


def _scaled(query, temperature, batch):
  """Returns query / T in float32 or wider."""
  query = query.astype(jnp.promote_types(float_dtype(query), jnp.float32))
  if temperature is None:
    return query
  return query / jnp.broadcast_to(jnp.asarray(temperature, query.dtype), batch)[..., None]


@jax.jit
def _loss(query, items, positives, draws, log_positive, temperature, bias, where):
  ids, log_q = jax.lax.stop_gradient(draws)
  batch, dtype = positives.shape, jnp.result_type(float_dtype(query), float_dtype(items))
  wide = jnp.promote_types(dtype, jnp.float32)
  # One gather for the positive and the draws: its transpose is one scatter into the items.
  ids = jnp.concatenate([positives.astype(ids.dtype)[..., None], ids], -1)
  scores = jnp.einsum("...d,...nd->...n", query, items[ids], preferred_element_type=wide)
  if bias is not None:
    scores += jnp.asarray(bias, wide)[ids]
  if temperature is not None:
    scores /= jnp.broadcast_to(jnp.asarray(temperature, wide), batch)[..., None]
  if log_positive is None:
    first, count = jnp.zeros((*batch, 1), wide), log_q.shape[-1]
    log_q = jnp.where(ids[..., 1:] == ids[..., :1], jnp.inf, log_q + math.log(count))
  else:
    first = jax.lax.stop_gradient(log_positive)[..., None]
  logits = scores - jnp.concatenate([first, log_q], -1).astype(wide)
  loss = -log_normalize(logits, -1)[..., 0]
  loss = jnp.where((positives >= 0) & (positives < items.shape[0]), loss, jnp.nan)
  return (loss if where is None else jnp.where(where, loss, 0)).astype(dtype)
