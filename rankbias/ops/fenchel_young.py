"""Fenchel-Young losses: the convex loss that belongs to a map, softmax's being cross-entropy."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.losses import check_label_shapes, label_distribution
from rankbias.ops.rows import float_dtype, masked_logits, row_maximum
from rankbias.ops.softmax import softmax
from rankbias.ops.sparse import entmax, entmax15, sparsemax
from rankbias.ops.tsallis import tsallis_negentropy

# The map is the arg max of <p, z> - Omega(p) over the simplex.
Regularizer = Callable[..., Array]  # Omega(weights, axis) -> one number a row
_FIXED = {softmax: 0.0, entmax15: 0.5, sparsemax: 1.0}


def fenchel_young_loss(
  normalizer: Callable[..., Array] = softmax, regularizer: Regularizer | None = None
) -> Callable[..., Array]:
  """Builds the loss whose gradient in the logits is `normalizer(logits) - labels`.

      L(z, y) = <p - y, z> + Omega(y) - Omega(p),   p = normalizer(z) = argmax_p <p, z> - Omega(p)

  in nats. It is convex in z, at least 0, and 0 exactly where p = y; for sparse maps that is reached
  as soon as the right logit leads by a margin (1 for sparsemax, 1 / (alpha - 1) in general).

  Args:
    normalizer: `softmax` (the loss is then `cross_entropy`), `sparsemax`, `entmax15`, `entmax`, or
      `functools.partial(entmax, alpha=...)`, whose Omega, sum (p^alpha - p) / (alpha (alpha - 1)),
      is known; another map together with its regularizer.
    regularizer: Omega(weights, axis) -> [...] of a map that is none of these; differentiable.

  Returns:
    loss(logits, labels, *, axis=-1, where=None) -> [...], with labels as in `cross_entropy`:
    integers, or distributions. A label on a masked class costs +inf, an empty row 0, and an integer
    that names no class gives NaN.

  Raises:
    ValueError: the map has no known regularizer and none is given; the loss raises for labels that
      do not fit the logits.

  Example: fenchel_young_loss(sparsemax)(jnp.array([[0., 3.]]), jnp.array([1])) is [0.].
  Source: Blondel, Martins & Niculae 2020, arXiv:1901.02324.
  """
  if regularizer is None:
    regularizer = partial(_negentropy, a=_tsallis_index(normalizer))

  def loss(
    logits: Real[ArrayLike, "*shape"],
    labels: Real[ArrayLike, "..."],
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "*#shape"] | None = None,
  ) -> Float[Array, "..."]:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_label_shapes(logits, labels, axis)
    masked = masked_logits(logits, None, where)
    target = label_distribution(labels, masked, axis)
    return _loss(masked, target, normalizer, regularizer, axis).astype(float_dtype(logits))

  return loss


def _negentropy(weights, axis, a):
  return tsallis_negentropy(weights, a, axis)


def _tsallis_index(normalizer):
  """Returns alpha - 1 of a map of the entmax family."""
  if normalizer in _FIXED:
    return _FIXED[normalizer]
  if normalizer is entmax:
    return 0.5
  bound = normalizer if isinstance(normalizer, partial) else partial(normalizer)
  if bound.func is entmax and not bound.args and set(bound.keywords) == {"alpha"}:
    return float(bound.keywords["alpha"]) - 1
  raise ValueError(
    f"normalizer = {normalizer} has no known regularizer: pass the Omega of which it is the arg "
    "max, or use softmax, sparsemax, entmax15 or functools.partial(entmax, alpha=number)."
  )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _loss(logits, target, normalizer, regularizer, axis):
  weights = normalizer(logits, axis=axis)
  return _gap(logits, target, weights, regularizer, axis)


@_loss.defjvp
def _loss_jvp(normalizer, regularizer, axis, primals, tangents):
  weights = normalizer(primals[0], axis=axis)

  def gap(logits, target):  # the weights maximise it, so to first order they are constants
    return _gap(logits, target, weights, regularizer, axis)

  return jax.jvp(gap, primals, tangents)


def _gap(logits, target, weights, regularizer, axis):
  mass = logits != -jnp.inf
  shifted = jnp.where(mass, logits - row_maximum(logits, axis), 0)
  linear = jnp.sum((weights - target) * shifted, axis)
  gap = linear + regularizer(target, axis) - regularizer(weights, axis)
  outside = jnp.any(~mass & (target != 0), axis)
  # Never below zero: rounding leaves about -1e-7 where the weights are the labels.
  gap = jnp.where(outside, jnp.inf, jnp.where(gap < 0, 0, gap))
  return jnp.where(jnp.any(mass, axis), gap, 0)
