"""The cross-entropy of a mixture of softmaxes without the matrix of its probabilities."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.linear_cross_entropy import (
  CLASS_AXIS,
  check_layer,
  kept,
  linear_cross_entropy,
  make_plan,
)
from rankbias.ops.linear_cross_entropy_blocks import (
  Best,
  better,
  block_logits,
  class_blocks,
  in_blocks,
  whole,
)
from rankbias.ops.mixtures import check_components
from rankbias.ops.softmax import checked_temperature, log_normalize


def mixture_cross_entropy(
  prior_logits: Real[ArrayLike, "*batch components"],
  contexts: Float[ArrayLike, "*batch K d"],
  kernel: Float[ArrayLike, "..."],
  labels: Integer[ArrayLike, "..."],
  *,
  bias: Float[ArrayLike, "..."] | None = None,
  logit_map: Callable | None = None,
  temperature: Real[ArrayLike, ""] = 1.0,
  chunk: int | tuple[int, ...] | None = None,
  where: Bool[ArrayLike, "..."] | None = None,
  kernel_layout: str = "dv",
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
  """Computes the cross-entropy of a mixture of K softmaxes that share one kernel, by blocks.

  loss = -log sum_k pi_k p_k(y) = -logsumexp_k(log pi_k - loss_k),   pi = softmax(prior_logits)
  loss_k = -log softmax(f(g_k W + b) / T)_y

  Of a mixture the loss needs the probability of the label alone, so K streamed cross-entropies are
  all of it: memory does not grow with the number of classes times that of tokens, and there are 4 K
  matrix products forward and backward. Whether the label is the likeliest class needs the mixture
  at every class, from one more product each, which a compiler leaves out where it is not used.

  Args:
    contexts: one vector g_k a component, for example tanh of K linear maps of the features.
    labels: of the shape of prior_logits without the last axis.
    chunk: contexts and classes of a block, one number or two, which need not divide anything.
    kernel, bias, logit_map, temperature, where, kernel_layout: as in `linear_cross_entropy`.

  Returns: the loss of every token, in float32 or wider, and whether its label is the likeliest
    class of the mixture, the first of equals. Tokens left out have 0 and False.

  Raises:
    ValueError: as `linear_cross_entropy` and `mixture_log_probs`.

  Example: with K = 1 it is linear_cross_entropy(contexts[..., 0, :], kernel, labels)[0].
  Source: Yang et al. 2018, arXiv:1711.03953 (the mixture); the streamed form is derived here.
  """
  check_components(prior_logits, contexts)
  contexts = jnp.asarray(contexts, jnp.result_type(contexts, kernel))
  one = jax.ShapeDtypeStruct((*contexts.shape[:-2], contexts.shape[-1]), contexts.dtype)
  check_layer(one, kernel, labels, bias, kernel_layout, None)
  keep = kept(labels, where, jnp.shape(kernel)[CLASS_AXIS[kernel_layout]])
  per_component = partial(jnp.broadcast_to, shape=contexts.shape[:-1])
  own = {"logit_map": logit_map, "temperature": temperature}
  own |= {"chunk": chunk, "kernel_layout": kernel_layout}
  losses, aux = linear_cross_entropy(
    contexts,
    kernel,
    per_component(jnp.asarray(labels)[..., None]),
    bias=bias,
    where=per_component(keep[..., None]),
    **own,
  )
  priors = jnp.where(keep[..., None], jnp.asarray(prior_logits, losses.dtype), 0)
  log_priors = log_normalize(priors, -1)
  shifts = log_priors - aux.logsumexp
  right = _right(jax.lax.stop_gradient((contexts, kernel, bias, shifts)), labels, own)
  return jnp.where(keep, mixed_losses(log_priors, losses), 0), keep & right


def mixed_losses(log_priors, losses):
  """Returns -log sum_k pi_k exp(-loss_k); inf where no component gives the label anything."""
  impossible = jnp.all(losses == jnp.inf, -1)
  shares = jnp.where(impossible[..., None], 0, log_priors - losses)
  return jnp.where(impossible, jnp.inf, -jax.nn.logsumexp(shares, -1))


def _right(parts, labels, own):
  """Returns whether the likeliest class of the mixture is the label."""
  contexts, kernel, bias, shifts = parts
  *batch, components, width = contexts.shape
  kernel, bias = jnp.asarray(kernel), None if bias is None else jnp.asarray(bias)
  own = own | {"temperature": checked_temperature(jax.lax.stop_gradient(own["temperature"]))}
  plan, weights = make_plan(contexts, kernel, bias, shifts.size, **own, group=components)
  plan = plan._replace(tokens=plan.tokens // components)
  contexts, shifts = contexts.reshape(-1, components, width), shifts.reshape(-1, components)
  weights = jax.lax.stop_gradient(weights)
  best = best_of_mixture(plan, weights, contexts, jnp.ravel(labels), shifts)
  return best.is_target().reshape(batch)


def best_of_mixture(plan, weights, contexts, labels, shifts):
  """Returns the Best [N] of sum_k exp(score_k + shift_k) over the classes.

  The scores are those of contexts [N, K, d], the shifts [N, K].
  """

  def of_block(block):
    contexts, labels, shifts = block
    features = contexts.reshape(-1, contexts.shape[-1])

    def step(best, i):
      logits, _, block = block_logits(plan, weights, features, i)
      scores = plan.scores(logits, *weights.constants).reshape(*shifts.shape, -1)
      mass = jnp.sum(jnp.exp(scores + shifts[..., None]), 1)
      return better(best, jnp.where(block.new, mass, -jnp.inf), block, labels), None

    nothing = jnp.zeros(len(labels), shifts.dtype)
    start = Best(nothing, nothing, nothing - 1)
    return jax.lax.scan(step, start, class_blocks(plan, weights))[0]

  blocks = in_blocks(plan, contexts, labels, shifts)
  return whole(jax.lax.map(of_block, blocks), len(labels))
