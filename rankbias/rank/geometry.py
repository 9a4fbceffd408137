"""Neural collapse: how far features, their class means and the classifier are from one simplex."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Real

from rankbias.rank import lapack
from rankbias.rank.spectrum import working_dtype

GlobalMean = Literal["classes", "samples"]


class ClassStatistics(NamedTuple):
  """What neural collapse is measured from; a class without samples has zeros everywhere."""

  counts: Float[Array, "K"]
  means: Float[Array, "K d"]
  variances: Float[Array, "K"]  # mean of |x - mu_c|^2 over the samples of a class
  within: Float[Array, "d d"]  # mean of (x - mu_c) (x - mu_c)^T over all samples


class NeuralCollapse(NamedTuple):
  """The measures of `neural_collapse`; those of a classifier are None without a kernel."""

  nc1: Float[Array, ""]
  nc1_trace_ratio: Float[Array, ""]
  cdnv: Float[Array, ""]
  nc2: Float[Array, ""]
  nc2_kernel: Float[Array, ""] | None = None
  nc3: Float[Array, ""] | None = None
  nc4: Float[Array, ""] | None = None
  mean_logits_norm: Float[Array, ""] | None = None


@partial(jax.jit, static_argnames=("num_classes", "global_mean"))
def neural_collapse(
  features: Real[ArrayLike, "n d"],
  labels: Int[ArrayLike, "n"],
  *,
  num_classes: int,
  kernel: Real[ArrayLike, "d K"] | None = None,
  bias: Real[ArrayLike, "K"] | None = None,
  global_mean: GlobalMean = "classes",
) -> NeuralCollapse:
  """Measures neural collapse of features and, where a kernel is given, of the classifier.

  With class means mu_c, M = mu_c - mu_G [K, d], Sigma_B = M^T M / K, Sigma_W the mean of
  (x - mu_c)(x - mu_c)^T, W = kernel^T and E(G) = |G / |G| - (I - 1 1^T / K) / sqrt(K - 1)|, all
  norms Frobenius:
    nc1 = tr(pinv(Sigma_B) Sigma_W) / K       nc1_trace_ratio = tr Sigma_W / tr Sigma_B
    cdnv = mean over pairs of (v_c + v_c') / (2 |mu_c - mu_c'|^2),  v_c the variance of a class
    nc2 = E(M M^T)      nc2_kernel = E(W W^T)      nc3 = E(W M^T)
    nc4 = share of samples on which argmax x W^T + b is the class of the nearest mean
    mean_logits_norm = |W mu_G + b|
  All but nc4, which goes to 1, and the last go to 0 as a network collapses.

  Args:
    labels: samples with a label outside 0..K-1, such as -1 for padding, count nowhere.
    bias: of the classifier. nc4 is published without one: leave it out to compare.
    global_mean: mu_G is the mean of the class means, or of the samples; they differ where classes
      are imbalanced. A class without samples is left out of everything but the argmax of nc4, and
      K is the number of the others; fewer than two give NaN.

  Raises:
    ValueError: global_mean is unknown, or kernel has another number of classes.

  Example: neural_collapse([[1.], [1.], [-1.]], [0, 0, 1], num_classes=2) has nc1, cdnv, nc2 of 0.
  Source: Papyan, Han & Donoho 2020, arXiv:2008.08186; CDNV: Galanti, Gyorgy & Hutter 2021,
  arXiv:2112.15121.
  """
  statistics = class_statistics(features, labels, num_classes=num_classes)
  center = center_of(statistics, global_mean)
  spread = _spread(statistics, center)
  present = statistics.counts > 0
  measures = NeuralCollapse(
    nc1=_variability(statistics.within, spread, jnp.sum(present) - 1),
    nc1_trace_ratio=jnp.trace(statistics.within) / (jnp.sum(spread**2) / jnp.sum(present)),
    cdnv=_distance_normalized_variance(statistics, spread),
    nc2=_simplex_error(_matmul(spread, spread.T), present),
  )
  if kernel is None:
    return measures
  kernel = jnp.asarray(kernel).astype(spread.dtype)
  if kernel.shape[1] != num_classes:
    raise ValueError(
      f"kernel has {kernel.shape[1]} columns for num_classes = {num_classes}: pass it as [d, K]."
    )
  offset = jnp.zeros(num_classes, spread.dtype) if bias is None else jnp.asarray(bias)
  return measures._replace(
    nc2_kernel=_simplex_error(_matmul(kernel.T, kernel), present),
    nc3=_simplex_error(_matmul(spread, kernel).T, present),
    nc4=_agreement(features, labels, statistics, center, kernel, offset),
    mean_logits_norm=jnp.linalg.norm(_matmul(center, kernel) + offset),
  )


@partial(jax.jit, static_argnames="num_classes")
def class_statistics(
  features: Real[ArrayLike, "n d"], labels: Int[ArrayLike, "n"], *, num_classes: int
) -> ClassStatistics:
  """Computes counts, means and variances of the classes, and the covariance within them.

  Means are corrected by the mean of the residuals, so that float32 keeps the variance of features
  that are nearly collapsed. Labels outside 0..K-1 count nowhere.

  Example: class_statistics([[1.], [3.], [5.]], [0, 0, 1], num_classes=2).means is [[2.], [5.]].
  Source: Chan, Golub & LeVeque 1983, The American Statistician 37(3) (corrected two-pass).
  """
  x = jnp.asarray(features)
  x = x.astype(working_dtype(x.dtype))
  counted, labels = _counted(labels, num_classes)
  total = partial(jax.ops.segment_sum, segment_ids=labels, num_segments=num_classes)
  counts = total(counted.astype(x.dtype))
  divisor = jnp.maximum(counts, 1)
  x = jnp.where(counted[:, None], x, 0)  # what is not counted may hold anything, NaN included
  means = total(x) / divisor[:, None]
  residuals = jnp.where(counted[:, None], x - means[labels], 0)
  correction = total(residuals) / divisor[:, None]
  means = means + correction
  residuals = jnp.where(counted[:, None], residuals - correction[labels], 0)
  variances = total(jnp.sum(residuals**2, 1)) / divisor
  within = _matmul(residuals.T, residuals) / jnp.maximum(jnp.sum(counts), 1)
  return ClassStatistics(counts, means, variances, within)


@jax.jit
def ortho_dev(
  class_means: Real[ArrayLike, "K d"], ood_mean: Real[ArrayLike, "d"]
) -> Float[Array, ""]:
  """Computes how far the mean of foreign data is from orthogonal to the means of the classes.

  mean_c |<mu_c, mu_ood>| / (|mu_c| |mu_ood|), of means that are not centred: 0 is orthogonal, 1
  parallel. A class mean of zeros, such as that of a class without samples, has no direction and is
  left out; NaN where no class is left, or where mu_ood is zero.

  Example: ortho_dev([[1., 0.], [0., 2.]], [3., 0.]) is 0.5.
  Source: Ben Ammar et al. 2023, arXiv:2310.06823, equation 5 (NC5).
  """
  means, foreign = _unit(class_means), _unit(ood_mean)
  present = jnp.any(means != 0, axis=1)
  cosines = jnp.where(present, jnp.abs(_matmul(means, foreign)), 0)
  mean = jnp.sum(cosines) / jnp.sum(present)  # 0 / 0 is NaN
  return jnp.where(jnp.any(foreign != 0), mean, jnp.nan)


def _unit(vectors):
  """Returns the vectors of the last axis with length 1; zeros stay zeros."""
  x = jnp.asarray(vectors)
  x = x.astype(working_dtype(x.dtype))
  top = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
  x = x / jnp.where(top == 0, 1, top)  # no square overflows
  used = jnp.any(x != 0, axis=-1, keepdims=True)
  return jnp.where(used, x / jnp.linalg.norm(jnp.where(used, x, 1), axis=-1, keepdims=True), 0)


def _counted(labels, num_classes):
  """Returns which labels name a class, and the labels with the others made 0."""
  labels = jnp.asarray(labels)
  counted = (labels >= 0) & (labels < num_classes)
  return counted, jnp.where(counted, labels, 0)


def center_of(statistics: ClassStatistics, kind: str) -> Float[Array, "d"]:
  """Returns the mean of the class means, or of the samples; raises where the kind is unknown."""
  if kind not in ("classes", "samples"):
    raise ValueError(f"global_mean = {kind!r} is unknown: use 'classes' or 'samples'.")
  counts = statistics.counts
  weights = (counts > 0).astype(counts.dtype) if kind == "classes" else counts
  return _matmul(weights, statistics.means) / jnp.maximum(jnp.sum(weights), 1)


def _spread(statistics, center):
  """Returns mu_c - mu_G [K, d], and a row of zeros for a class without samples."""
  return jnp.where(statistics.counts[:, None] > 0, statistics.means - center[None, :], 0)


def _inverse(spread, bound):
  """Returns V [r, d] and 1 / sigma_i^2 of M = U diag(sigma) V, 0 beyond the rank of M."""
  _, values, right = lapack.svd(spread)
  # A weighted sum of the rows of M is zero, so its rank is below the number of classes; what
  # rounding leaves in that direction must not be inverted.
  noise = max(spread.shape) * jnp.finfo(spread.dtype).eps * jnp.max(values, initial=0)
  used = (values > noise) & (jnp.arange(values.size) < bound)
  return right, jnp.where(used, 1 / jnp.where(used, values, 1) ** 2, 0)


@jax.custom_jvp
def _variability(within, spread, bound):
  """Returns tr(pinv(M^T M) Sigma_W), the rank of M at most `bound`; NaN where it is 0."""
  right, squares = _inverse(spread, bound)
  energy = jnp.sum(_matmul(right, within) * right, axis=1)
  return jnp.where(jnp.any(squares > 0), jnp.sum(energy * squares), jnp.nan)


@_variability.defjvp
def _variability_jvp(primals, tangents):
  (within, spread, bound), (d_within, d_spread, _) = primals, tangents
  right, squares = _inverse(spread, bound)
  inverse = _matmul(right.T * squares[None, :], right)  # P, and Q projects off the rows of M
  outside = jnp.eye(right.shape[1], dtype=right.dtype) - _matmul(
    right.T * (squares > 0)[None, :], right
  )
  # At constant rank d tr(P S) = <P, dS> + 2 <M G, dM>,  G = Q S P P + P P S Q - P S P.
  half = _matmul(_matmul(outside, _matmul(within, inverse)), inverse)
  slope = half + half.T - _matmul(inverse, _matmul(within, inverse))
  rate = jnp.sum(inverse * d_within) + 2 * jnp.sum(_matmul(spread, slope) * d_spread)
  return _variability(within, spread, bound), rate


def _distance_normalized_variance(statistics, spread):
  gram = _matmul(spread, spread.T)
  squares = jnp.diagonal(gram)
  distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
  v, present = statistics.variances, statistics.counts > 0
  pairs = present[:, None] & present[None, :] & ~jnp.eye(v.size, dtype=bool)
  ratio = (v[:, None] + v[None, :]) / (2 * jnp.where(pairs, distances, 1))
  return jnp.sum(jnp.where(pairs, ratio, 0)) / jnp.sum(pairs)


def _simplex_error(gram, present):
  """Returns |G / |G| - (I - 1 1^T / K) / sqrt(K - 1)| over the classes present."""
  pairs = present[:, None] & present[None, :]
  k = jnp.sum(present).astype(gram.dtype)
  gram = jnp.where(pairs, gram, 0)
  target = (jnp.eye(gram.shape[0], dtype=gram.dtype) - 1 / k) / jnp.sqrt(k - 1)
  return jnp.linalg.norm(gram / jnp.linalg.norm(gram) - jnp.where(pairs, target, 0))


def _agreement(features, labels, statistics, center, kernel, bias):
  """Returns the share of counted samples where classifier and nearest class mean agree."""
  x = jnp.asarray(features).astype(kernel.dtype)
  chosen = jnp.argmax(_matmul(x, kernel) + bias[None, :], axis=1)
  means = statistics.means - center[None, :]  # distances lose fewer digits around the mean
  distances = jnp.sum(means**2, 1)[None, :] - 2 * _matmul(x - center[None, :], means.T)
  distances = jnp.where(statistics.counts[None, :] > 0, distances, jnp.inf)
  counted, _ = _counted(labels, statistics.counts.size)
  agreed = (chosen == jnp.argmin(distances, axis=1)) & counted
  return jnp.sum(agreed) / jnp.sum(counted)


def _matmul(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
