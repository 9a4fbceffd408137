"""The cross-entropy of partitioned and multi-facet softmax without their matrices of classes."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.facets import check_facets, check_parts
from rankbias.ops.linear_cross_entropy import (
  check_layer,
  checked_tokens,
  kept,
  linear_cross_entropy,
  make_plan,
)
from rankbias.ops.linear_cross_entropy_blocks import Best, Rows, Weights, loss_of, token_rows
from rankbias.ops.mixture_cross_entropy import best_of_mixture, mixed_losses
from rankbias.ops.softmax import checked_temperature, log_normalize


def partitioned_cross_entropy(
  facets: Float[ArrayLike, "*batch P d"],
  kernel: Float[ArrayLike, "width V"],
  labels: Integer[ArrayLike, "..."],
  *,
  bias: Float[ArrayLike, "..."] | None = None,
  temperature: Real[ArrayLike, ""] = 1.0,
  chunk: int | tuple[int, ...] | None = None,
  where: Bool[ArrayLike, "..."] | None = None,
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
  """Computes the cross-entropy of `partitioned_logits` by blocks of tokens and of classes.

  loss = logsumexp_p(lse_p) - z_y / T,   lse_p = log sum_{v mod P = p} exp(z_v / T)

  Each part is a linear layer with a facet of its own and streams as in `linear_cross_entropy`: four
  matrix products for all parts together, forward and backward, and no array of all classes. Beside
  the blocks a copy of the kernel is held, in the order of the parts, and of its gradient.

  Args:
    labels: of the shape of facets without the last two axes.
    chunk: tokens and classes of a block, one number or two, which need not divide anything.
    bias, temperature, where: as in `linear_cross_entropy`.

  Returns: the loss of every token, in float32 or wider, and whether its label is the likeliest
    class, the first of equals. Tokens left out have 0 and False.

  Raises:
    ValueError: as `linear_cross_entropy`.

  Example: with one facet it is linear_cross_entropy(facets[..., 0, :], kernel, labels)[0].
  Source: Chang & McCallum 2022, as in `partitioned_logits`; the streamed form is derived here.
  """
  facets = jnp.asarray(facets)
  one = jnp.zeros((*facets.shape[:-2], 1), facets.dtype)
  own = {"bias": bias, "temperature": temperature, "chunk": chunk, "where": where}
  return multi_facet_cross_entropy(one, facets, facets[..., :0, :], kernel, labels, **own)


def multi_facet_cross_entropy(
  prior_logits: Real[ArrayLike, "*batch softmaxes"],
  partition_facets: Float[ArrayLike, "*batch P d"],
  facets: Float[ArrayLike, "*batch K d"],
  kernel: Float[ArrayLike, "width V"],
  labels: Integer[ArrayLike, "..."],
  *,
  bias: Float[ArrayLike, "..."] | None = None,
  temperature: Real[ArrayLike, ""] = 1.0,
  chunk: int | tuple[int, ...] | None = None,
  where: Bool[ArrayLike, "..."] | None = None,
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
  """Computes the cross-entropy of `multi_facet_log_probs` by blocks of tokens and of classes.

  loss = -logsumexp( log pi_0 - partitioned loss, log pi_k - loss_k, k = 1..K )

  As in `mixture_cross_entropy` the loss needs the probability of the label alone: 4 (1 + K) matrix
  products, and 1 + K for whether the label is the likeliest class, which a compiler leaves out
  where it is not used. With K = 0 it is `partitioned_cross_entropy`.

  Args:
    prior_logits: [..., 1 + K], the partitioned softmax first.
    labels: of the shape of prior_logits without the last axis.
    bias, temperature, chunk, where: as in `partitioned_cross_entropy`.

  Returns: as `partitioned_cross_entropy`.

  Raises:
    ValueError: as `linear_cross_entropy` and `multi_facet_log_probs`.

  Example: multi_facet_cross_entropy(zeros((n, 1)), q, q[:, :0], W, y) is the partitioned one.
  Source: Chang & McCallum 2022, as in `partitioned_logits`; the streamed form is derived here.
  """
  check_facets(prior_logits, facets)
  check_parts(partition_facets)
  dtype = jnp.result_type(partition_facets, facets, kernel)
  partition_facets, facets = (jnp.asarray(x, dtype) for x in (partition_facets, facets))
  *batch, _, width = partition_facets.shape
  one = jax.ShapeDtypeStruct((*batch, width), dtype)
  check_layer(one, kernel, labels, bias, "dv", None)
  keep = kept(labels, where, jnp.shape(kernel)[1])
  tokens = tuple(
    jnp.asarray(x).reshape(keep.size, *jnp.shape(x)[keep.ndim :])
    for x in (prior_logits, partition_facets, facets, labels, keep)
  )
  layer = jnp.asarray(kernel), None if bias is None else jnp.asarray(bias)
  found = _streamed(chunk, *tokens, *layer, checked_temperature(temperature))
  return tuple(x.reshape(batch) for x in found)


@partial(jax.jit, static_argnums=0)
def _streamed(
  chunk, prior_logits, partition_facets, facets, labels, keep, kernel, bias, temperature
):
  parts = partition_facets.shape[1]
  own = {"temperature": temperature, "chunk": chunk}
  partition_facets, labels, shares = checked_tokens(partition_facets, labels, keep, kernel.shape[1])
  weights = _dealt(Weights(kernel, bias, ()), parts)
  places = (labels // parts)[None] + (jnp.arange(parts)[:, None] < (labels % parts)[None])
  rows = _rows(partition_facets, weights, places, own)
  best, logsumexp = _joined(rows.best, labels), jax.nn.logsumexp(rows.logsumexp, 0)
  losses = loss_of(Rows(logsumexp, best))[:, None]
  priors = jnp.where(keep[:, None], prior_logits.astype(losses.dtype), 0)
  log_priors = log_normalize(priors, -1)
  if facets.shape[1]:
    each = [jnp.broadcast_to(x[:, None], facets.shape[:2]) for x in (labels, keep)]
    layer = {"bias": bias, "chunk": chunk, "temperature": 1 if temperature is None else temperature}
    plain, aux = linear_cross_entropy(facets, kernel, each[0], where=each[1], **layer)
    losses = jnp.concatenate([losses, plain], -1)
    shifts = log_priors - jnp.concatenate([logsumexp[:, None], aux.logsumexp], -1)
    mixed = partition_facets, facets, weights, places, shifts
    best = _joined(_best(*jax.lax.stop_gradient(mixed), own), labels)
  losses = mixed_losses(log_priors, losses)
  return jnp.where(keep, losses * shares, 0), keep & ~jnp.isnan(shares) & best.is_target()


def _dealt(weights, parts):
  """Returns the kernel [P, d, v] and bias [P, v] of the parts; a class that is missing has -inf."""
  kernel, bias, _ = weights
  size = -(-kernel.shape[1] // parts)
  missing = size * parts - kernel.shape[1]
  if missing:
    bias = jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias
    kernel = jnp.pad(kernel, ((0, 0), (0, missing)))
    bias = jnp.pad(bias, (0, missing), constant_values=-jnp.inf)

  def deal(x):
    return jnp.moveaxis(x.reshape(*x.shape[:-1], size, parts), -1, 0)

  return Weights(deal(kernel), None if bias is None else deal(bias), ())


def _rows(facets, weights, places, own):
  """Returns the Rows [P, N] of the parts, of facets [N, P, d]."""

  def of_part(part):
    facet, kernel, bias, place = part
    plan, weights = make_plan(facet, kernel, bias, len(facet), None, **own, kernel_layout="dv")
    return token_rows(plan, facet, weights, place)

  return jax.lax.map(of_part, (jnp.moveaxis(facets, 1, 0), *weights[:2], places))


def _best(partition_facets, facets, weights, places, shifts, own):
  """Returns the Best [P, N] of the mixture within the parts."""
  group = shifts.shape[1]

  def of_part(part):
    facet, kernel, bias, place = part
    contexts = jnp.concatenate([facet[:, None], facets], 1)
    layer = contexts, kernel, bias, shifts.size, None
    plan, weights = make_plan(*layer, **own, kernel_layout="dv", group=group)
    plan = plan._replace(tokens=plan.tokens // group)
    return best_of_mixture(plan, weights, contexts, place, shifts)

  return jax.lax.map(of_part, (jnp.moveaxis(partition_facets, 1, 0), *weights[:2], places))


def _joined(best, labels):
  """Returns the Best [N] of all classes from those of the parts [P, N], where labels have a place.

  Place i of part p is class i P + p. The place of a label in a part that is not its own is the
  first after it, so that the classes before that are those before the label.
  """
  own = labels[None] % len(best.target)
  target = jnp.take_along_axis(best.target, own, 0)[0]
  return Best(jnp.max(best.top, 0), target, jnp.max(best.before, 0))
