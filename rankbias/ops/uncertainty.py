"""How unsure is an ensemble of predictions, by the data or by the model? Entropies and votes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from rankbias.ops.rows import float_dtype


def predictive_entropy(
  probabilities: Float[ArrayLike, "samples *batch classes"],
  *,
  where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "*batch"]:
  """Measures the whole uncertainty: the entropy of the averaged prediction, in nats.

  H(q) = -sum_c q_c log q_c  with  q = mean_t p_t, between 0 and log(number of classes).

  It is the sum of `expected_entropy` (noise in the data) and `mutual_information` (disagreement of
  the samples, which more data would remove).

  Args:
    probabilities: p_t, the prediction of every sample t, such as `softmax` under dropout. They are
      not normalised here. An exact 0 adds nothing (0 log 0 = 0), and its derivative, infinite in
      truth, is some finite number, so that nothing is NaN where a softmax underflows.
    where: broadcasts against probabilities; False where a class does not exist. What it holds, NaN
      included, counts as a probability of 0.

  Raises:
    ValueError: there is no sample.

  Example: predictive_entropy([[1., 0.], [0., 1.]]) is log 2 = .6931.
  Source: Gal 2016, "Uncertainty in deep learning" (thesis); Houlsby et al. 2011, arXiv:1112.5745.
  """
  return _predictive_entropy(_checked(probabilities), where)


def expected_entropy(
  probabilities: Float[ArrayLike, "samples *batch classes"],
  *,
  where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "*batch"]:
  """Measures the uncertainty within every sample: the mean of their entropies, in nats.

  mean_t H(p_t), at most `predictive_entropy`. Arguments are those of `predictive_entropy`.

  Raises:
    ValueError: there is no sample.

  Example: expected_entropy([[1., 0.], [0., 1.]]) is 0: each sample is sure.
  Source: Depeweg et al. 2018, arXiv:1710.07283.
  """
  return _expected_entropy(_checked(probabilities), where)


def mutual_information(
  probabilities: Float[ArrayLike, "samples *batch classes"],
  *,
  where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "*batch"]:
  """Measures how far the samples disagree, in nats: what a label would tell about the model.

  I = H(q) - mean_t H(p_t) = mean_t KL(p_t || q)  with  q = mean_t p_t, between 0 and the logarithm
  of the number of samples or of classes, whichever is smaller.

  Computed as sum_c mean_t [p log(p / q) - (p - q)], whose terms are all >= 0: the difference of two
  entropies has an error of about 1e-7 in float32, and so no right digit where the samples nearly
  agree. Clamped at 0, since rounding is all that can bring it below. Arguments are those of
  `predictive_entropy`.

  Raises:
    ValueError: there is no sample.

  Example: mutual_information([[1., 0.], [0., 1.]]) is log 2 = .6931: sure, and contrary.
  Source: Houlsby et al. 2011, arXiv:1112.5745 (BALD).
  """
  return _mutual_information(_checked(probabilities), where)


def variation_ratio(
  probabilities: Float[ArrayLike, "samples *batch classes"],
  *,
  of_mean: bool = False,
  where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "*batch"]:
  """Measures the share of samples whose most likely class is not the one that most samples name.

  1 - max_c v_c / T  with  v_c = #{t : argmax p_t = c}, between 0 and 1 - 1 / (number of classes). A
  sample with ties votes for its first class. Piecewise constant: the gradient is zero.

  Args:
    of_mean: count the votes for the class of the averaged prediction, argmax q, instead of those
      for the mode. The two differ where many lukewarm samples outvote a few sure ones; the mode is
      the definition, the other is what some libraries compute, and it is never the smaller one.
    where: as in `predictive_entropy`; a class that does not exist gets no vote.

  Raises:
    ValueError: there is no sample.

  Example: variation_ratio([[.6, .4], [.6, .4], [0., 1.]]) is 1/3; with of_mean=True it is 2/3.
  Source: Gal 2016, "Uncertainty in deep learning" (thesis).
  """
  return _variation_ratio(_checked(probabilities), where, of_mean=of_mean)


# f(probabilities, *, where=None) -> one number for each prediction.
UNCERTAINTIES: dict[str, Callable[..., Array]] = {
  "predictive_entropy": predictive_entropy,
  "expected_entropy": expected_entropy,
  "mutual_information": mutual_information,
  "variation_ratio": variation_ratio,
}


@jax.jit
def _predictive_entropy(probabilities, where):
  mean = jnp.mean(_masked(probabilities, where), 0)
  return _entropy(mean).astype(float_dtype(probabilities))


@jax.jit
def _expected_entropy(probabilities, where):
  p = _masked(probabilities, where)
  return jnp.mean(_entropy(p), 0).astype(float_dtype(probabilities))


@jax.jit
def _mutual_information(probabilities, where):
  p = _masked(probabilities, where)
  q = jnp.mean(p, 0, keepdims=True)
  information = jnp.sum(jnp.mean(_divergence(p, q), 0), -1)
  return jnp.maximum(information, 0).astype(float_dtype(probabilities))


@partial(jax.jit, static_argnames="of_mean")
def _variation_ratio(probabilities, where, *, of_mean):
  p = _masked(probabilities, where)
  classes = jnp.arange(p.shape[-1])
  chosen = jnp.argmax(p, -1, keepdims=True)
  votes = jnp.sum(chosen == classes.reshape((1,) * (p.ndim - 1) + (-1,)), 0)
  if of_mean:
    winner = jnp.argmax(jnp.mean(p, 0), -1, keepdims=True)
    votes = jnp.take_along_axis(votes, winner, -1)
  against = len(p) - jnp.max(votes, -1)
  broken = jnp.isnan(p).any((0, p.ndim - 1))
  return jnp.where(broken, jnp.nan, against / len(p)).astype(float_dtype(probabilities))


def _checked(probabilities):
  """Returns an array with at least one sample."""
  probabilities = jnp.asarray(probabilities)
  if not probabilities.shape[0]:
    raise ValueError(
      f"probabilities of shape {probabilities.shape} hold no sample; axis 0 needs at least one"
    )
  return probabilities


def _masked(probabilities, where):
  """Returns probabilities in float32 or wider, 0 where a class does not exist."""
  p = probabilities.astype(jnp.promote_types(float_dtype(probabilities), jnp.float32))
  return p if where is None else jnp.where(jnp.broadcast_to(where, p.shape), p, 0)


def _divergence(p, q):
  """Computes p log(p / q) - (p - q), to its own precision where p is near q.

  There it is written in the relative difference alone: compiled code may round two differences
  p - q of one expression differently, and what is left of that would be larger than the result.
  """
  near = p > q / 2
  excess = jnp.where(near, (p - q) / jnp.where(near, q, 1), 0)
  small = q * ((1 + excess) * jnp.log1p(excess) - excess)
  return jnp.where(near, small, p * (_log(p) - _log(q)) - (p - q))


def _entropy(p):
  """Computes -sum p log p over the classes; never below zero by rounding."""
  return jnp.maximum(-jnp.sum(p * _log(p), -1), 0)


def _log(p):
  """Computes log p, and 0 for p = 0, since 0 log 0 = 0."""
  return jnp.log(jnp.where(p == 0, 1, p))
