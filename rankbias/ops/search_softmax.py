"""Search-softmax: cross-entropies whose target probability is divided by a searched factor."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.labels import check_integer_labels, label_entries
from rankbias.ops.losses import cross_entropy
from rankbias.ops.rows import checked, float_dtype, masked_logits


def search_softmax_loss(
  logits: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  modulation: Real[ArrayLike, "..."] = -1.0,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "..."]:
  """Computes -log p_m of the label, p_m = p / (k p + b): the softmax p with a searched margin.

  k = a exp(s/3);  b = 1 - k if a <= 0, else 1;  a the modulation, s the scale.

  With the log odds u = log sum_(j != y) exp(z_j) - z_y this is exactly

    softplus(u + log(1 + |k|))             if a <= 0,
    softplus(u - log(1 + k)) + log(1 + k)  if a > 0,

  a cross-entropy with the logit of the label moved by a constant, which is how it is computed. For
  cosines scaled by s, a <= 0 is an additive margin of log(1 + |a| e^(s/3)) / s: 1/3 at a = -1.
  For a > 0 even a perfect prediction keeps log(1 + k), with e^(32/3) about 43,000; the published
  search only visits a <= 0. In a the loss has a kink at 0. p_m is no distribution: the other
  classes keep their p.

  Args:
    logits: already scaled and with margins, if there are any.
    labels: integers of the shape of logits without `axis`; one outside the classes gives NaN.
    modulation: a, a number or one a row; -1 is where the search starts.
    scale: s, that of the cosines; it only sets the size of k.
    where: as in `cross_entropy`: a label on a masked class costs +inf, an empty row 0.

  Raises:
    ValueError: labels are not integers of that shape.

  Example: search_softmax_loss([[0., 0.]], [0], modulation=0.) is [.6931], the cross-entropy.
  Source: Wang et al. 2020, arXiv:2007.06542.
  """
  logits, labels = _arguments(logits, labels, axis)
  return _search(logits, labels, modulation, scale, where, axis=axis)


def binned_search_softmax_loss(
  logits: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  modulation: Real[ArrayLike, "bins"],
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "..."]:
  """Computes `search_softmax_loss` with a modulation that depends on the probability of the label.

  a = a_j where p lies in the j-th of equal bins of (0, 1], and k = a exp(s/2): a larger factor
  than the global one. The loss jumps between bins; no gradient passes through the choice.

  Args:
    modulation: a_1 .. a_bins; the published code has 10, (-1, 0, ..., 0) at the start.
    logits, labels, scale, axis, where: as in `search_softmax_loss`.

  Raises:
    ValueError: labels are not integers of that shape.

  Example: binned_search_softmax_loss(logits, labels, modulation=-np.eye(10)[0]).
  Source: Wang et al. 2020, arXiv:2007.06542 (the local variant of its code).
  """
  logits, labels = _arguments(logits, labels, axis)
  return _binned(logits, labels, jnp.asarray(modulation), scale, where, axis=axis)


def random_softmax_loss(
  logits: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  modulation: Real[ArrayLike, "..."],
  axis: int = -1,
  where: Bool[ArrayLike, "*#shape"] | None = None,
) -> Float[Array, "..."]:
  """Computes -log p_m of the label, p_m = p / (a p + 1 - a), for a factor drawn at random.

  This is softplus(u + log(1 - a)) with the log odds u of `search_softmax_loss`: a margin for
  a < 0, the cross-entropy at 0, a discount for 0 < a < 1, and a loss of 0 at a = 1.

  Args:
    modulation: a <= 1, a number or one a row; draw it anew at every step.
    logits, labels, axis, where: as in `search_softmax_loss`.

  Raises:
    ValueError: labels are not integers of that shape, or a > 1.

  Example: random_softmax_loss([[0., 0.]], [0], modulation=-1.) is [1.0986], log 3.
  Source: Wang et al. 2020, arXiv:2007.06542 (Random-Softmax).
  """
  logits, labels = _arguments(logits, labels, axis)
  checked("modulation", modulation, lambda a: a <= 1, "must be at most 1: a p + 1 - a > 0.")
  return _random(logits, labels, modulation, where, axis=axis)


def _arguments(logits, labels, axis):
  logits, labels = jnp.asarray(logits), jnp.asarray(labels)
  check_integer_labels(labels, logits.shape, axis)
  return logits, labels


@partial(jax.jit, static_argnames="axis")
def _search(logits, labels, modulation, scale, where, *, axis):
  z = masked_logits(logits, None, where)
  k = jnp.asarray(modulation, z.dtype) * jnp.exp(jnp.asarray(scale, z.dtype) / 3)
  return _modulated(z, labels, k, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _binned(logits, labels, modulation, scale, where, *, axis):
  z = masked_logits(logits, None, where)
  bins = modulation.shape[0]
  p = jnp.exp(-cross_entropy(jax.lax.stop_gradient(z), labels, axis=axis))
  j = jnp.searchsorted(jnp.linspace(0, 1, bins + 1, dtype=z.dtype)[1:], p)  # NaN: beyond the last
  a = modulation.astype(z.dtype)[jnp.minimum(j, bins - 1)]
  k = a * jnp.exp(jnp.asarray(scale, z.dtype) / 2)
  return _modulated(z, labels, k, axis).astype(float_dtype(logits))


@partial(jax.jit, static_argnames="axis")
def _random(logits, labels, modulation, where, *, axis):
  z = masked_logits(logits, None, where)
  # At a = 1 the loss would be softplus(-inf); the smallest number gives 0 all the same.
  rest = jnp.maximum(1 - jnp.asarray(modulation, z.dtype), jnp.finfo(z.dtype).tiny)
  return _moved(z, labels, jnp.log(rest), axis).astype(float_dtype(logits))


def _modulated(z, labels, k, axis):
  k = jnp.broadcast_to(k, labels.shape)
  eases = k > 0
  margin = jnp.log1p(jnp.where(eases, 0, -k))
  floor = jnp.log1p(jnp.where(eases, k, 0))
  empty = jnp.all(z == -jnp.inf, axis)
  return _moved(z, labels, margin - floor, axis) + jnp.where(empty, 0, floor)


def _moved(z, labels, margin, axis):
  """Computes the cross-entropy with the logit of the label lowered by the margin."""
  hit, _ = label_entries(labels, z.shape, axis)
  margin = jnp.expand_dims(jnp.broadcast_to(margin, labels.shape), axis)
  return cross_entropy(z - jnp.where(hit, margin, 0), labels, axis=axis)
