"""Mixtures before and after the softmax: of softmaxes, which raise the rank, and of contexts."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.affine import affine, checked_affine, wide
from rankbias.ops.rows import float_dtype
from rankbias.ops.softmax import checked_temperature, log_normalize, normalize, tempered_rows


def mixture_log_probs(
  prior_logits: Real[ArrayLike, "*batch components"],
  contexts: Real[ArrayLike, "*batch K d"],
  kernel: Real[ArrayLike, "width V"],
  bias: Real[ArrayLike, "classes"] | None = None,
  *,
  temperature: Real[ArrayLike, "..."] = 1.0,
  logit_map: Callable | None = None,
) -> Float[Array, "*batch V"]:
  """Computes the log-probabilities of a mixture of K softmaxes that share one kernel.

  log p_v = logsumexp_k( log pi_k + log_softmax(f(g_k W + b) / T)_v ),   pi = softmax(prior_logits)

  The rank of log p is not bounded by d. A loss alone is cheaper and smaller by
  `mixture_cross_entropy`. No array of [..., K, V] is held: a scan over the components
  keeps a running log-sum-exp, and the derivative forms the logits of a component again (K products
  with the kernel forward, 3 K backward). Held are the result and about two arrays of its size
  forward and four backward, beside the gradient of the kernel.

  The temperature acts inside the components, the prior has none: T -> 0 leaves the probabilities pi
  on K arg maxima, T -> infinity the uniform distribution.

  Args:
    contexts: one vector g_k a component, for example tanh of K linear maps of the features.
    bias: -inf masks a class, when there is no `logit_map`.
    temperature: T > 0; a number, a traced scalar or an array that broadcasts against the logits.
    logit_map: f, elementwise (`sigsoftmax_logits` makes a mixture of sigsoftmaxes); values that it
      closes over get their gradients. A new function is compiled anew.

  Raises:
    ValueError: shapes do not fit, or a temperature known before tracing is not positive.

  Example: with K = 1 it is log_softmax(contexts[..., 0, :] @ kernel + bias).
  Source: Yang et al. 2018, arXiv:1711.03953 (T and the map added here).
  """
  check_components(prior_logits, contexts)
  dtype = float_dtype(contexts)
  contexts, kernel, bias = checked_affine("contexts", contexts, kernel, bias)
  prior_logits = jnp.asarray(prior_logits, contexts.dtype)
  temperature, hoisted = checked_temperature(temperature), ()
  if temperature is not None:
    temperature = jnp.asarray(temperature, contexts.dtype)
  if logit_map is not None:
    logits = jax.ShapeDtypeStruct((*contexts.shape[:-2], kernel.shape[1]), contexts.dtype)
    logit_map, hoisted = jax.closure_convert(logit_map, logits)
  shared = kernel, bias, temperature, hoisted
  return _mixture(logit_map, prior_logits, contexts, shared).astype(dtype)


def mixed_contexts(
  prior_logits: Real[ArrayLike, "*batch components"], contexts: Real[ArrayLike, "*batch K d"]
) -> Float[Array, "*batch d"]:
  """Mixes K vectors before the one softmax: a mixture of contexts.

  g = sum_k pi_k g_k,   pi = softmax(prior_logits)

  With logits g W + b it is the control of `mixture_log_probs`: the same parameters, and the rank of
  log_softmax(g W + b) stays at most d + 2. Arguments and errors are those of `mixture_log_probs`.

  Example: mixed_contexts([0., 0.], [[1., 0.], [0., 1.]]) is [.5, .5].
  Source: Yang et al. 2018, arXiv:1711.03953.
  """
  check_components(prior_logits, contexts)
  return _mixed_contexts(prior_logits, contexts)


@jax.jit
def _mixed_contexts(prior_logits, contexts):
  wide_logits, wide_contexts = wide(prior_logits, contexts)
  weights = normalize(wide_logits, -1)
  return jnp.sum(weights[..., None] * wide_contexts, -2).astype(float_dtype(contexts))


@partial(jax.jit, static_argnums=0)
def _mixture(logit_map, prior_logits, contexts, shared):
  log_priors = jnp.moveaxis(log_normalize(prior_logits, -1), -1, 0)
  return _scanned(logit_map, log_priors, jnp.moveaxis(contexts, -2, 0), shared)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scanned(logit_map, log_priors, contexts, shared):
  """Returns log sum_k pi_k p_k for log_priors [K, ...] and contexts [K, ..., d]."""

  def add(total, component):
    return jnp.logaddexp(total, _component(logit_map, *component, shared)), None

  shape = (*contexts.shape[1:-1], shared[0].shape[1])
  start = jnp.full(shape, -jnp.inf, contexts.dtype)
  total, _ = jax.lax.scan(add, start, (log_priors, contexts))
  return jnp.minimum(total, 0)  # a sum of roundings may be above


def _component(logit_map, log_prior, context, shared):
  kernel, bias, temperature, hoisted = shared
  logits = affine(context, kernel, bias)
  if logit_map is not None:
    logits = logit_map(logits, *hoisted)
  rows, shifted = tempered_rows(logits, temperature, None, -1)
  return log_prior[..., None] + log_normalize(rows, -1, shifted)


def _forward(logit_map, log_priors, contexts, shared):
  total = _scanned(logit_map, log_priors, contexts, shared)
  return total, (log_priors, contexts, shared, total)


def _backward(logit_map, saved, cotangent):
  """d log sum_k exp(c_k) = sum_k exp(c_k - total) d c_k, one component at a time."""
  log_priors, contexts, shared, total = saved

  def one(sums, component):
    logs, pull = jax.vjp(partial(_component, logit_map), *component, shared)
    share = jnp.where(total == -jnp.inf, 0, jnp.exp(logs - total))  # a masked class has none
    *own, change = pull(cotangent * share)
    return jax.tree.map(jnp.add, sums, change), own

  start = jax.tree.map(jnp.zeros_like, shared)
  sums, (d_priors, d_contexts) = jax.lax.scan(one, start, (log_priors, contexts))
  return d_priors, d_contexts, sums


_scanned.defvjp(_forward, _backward)


def check_components(prior_logits, contexts):
  """Raises where there is not one prior logit for every context."""
  if jnp.shape(prior_logits) != jnp.shape(contexts)[:-1] or not jnp.size(prior_logits):
    raise ValueError(
      f"prior_logits of shape {jnp.shape(prior_logits)} does not fit contexts of shape "
      f"{jnp.shape(contexts)}: pass [..., K] and [..., K, d], one logit for each of K >= 1 vectors."
    )
