"""Margins: logits from cosines that ask more of the right class than of the others."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.labels import check_integer_labels, label_entries
from rankbias.ops.rows import checked, float_dtype, masked_logits


def scaled_cosines(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Turns the cosines between a feature and the class vectors into logits, without a margin.

  logits = s c. For all margins: the loss is cross_entropy(logits, labels); labels only shape
  training, a trained network is used with the cosines alone. An integer outside 0..classes-1
  gives a row of NaN.

  Args:
    cosines: products of normalised features and normalised class vectors, in [-1, 1].
    labels: integers of the shape of cosines without `axis`.
    scale: s > 0. Cosines alone span too little for a softmax over many classes to reach 1.
    axis: the axis of the classes.

  Raises:
    ValueError: labels are not integers of that shape, or scale is not positive.

  Example: scaled_cosines([[.5, -1.]], [0]) is [[16., -32.]].
  Source: Wang et al. 2017, arXiv:1704.06369 (NormFace).
  """
  return _margined(*_checked(cosines, labels, scale, axis), 0.0, None, _keep, False, axis)


def additive_margin(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  margin: Real[ArrayLike, ""] = 0.35,
  easy_margin: bool = True,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Lowers the cosine of the right class by a constant: logits = s (c - m) there, s c elsewhere.

  Args:
    margin: m, a cosine.
    easy_margin: apply the margin only where the cosine of the right class is positive, as the
      published code of the loss search does; False always applies it, as the source does.
    cosines, labels, scale, axis: as in `scaled_cosines`, as are the failures.

  Example: additive_margin([[.5, -1.]], [0], margin=.25) is [[8., -32.]].
  Source: Wang et al. 2018, arXiv:1801.05599 (AM-Softmax), and arXiv:1801.09414 (CosFace).
  """
  arguments = _checked(cosines, labels, scale, axis)
  return _margined(*arguments, margin, None, _lower, easy_margin, axis)


def angular_margin(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  margin: Real[ArrayLike, ""] = 0.5,
  easy_margin: bool = True,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Widens the angle to the right class: logits = s cos(theta + m) there, s c elsewhere.

  cos(theta + m) = c cos m - sqrt(1 - c^2) sin m. Its slope in c is infinite at c = +-1; exactly
  there, and beyond by rounding, the root counts as a constant and the slope is s cos m. With
  easy_margin=False the logit rises again where theta > pi - m.

  Args:
    margin: m, an angle in radians; 0.5 is ArcFace's (the published loss search has 0.35 for all).
    easy_margin, cosines, labels, scale, axis: as in `additive_margin`.

  Example: angular_margin([[1., 0.]], [0]) is [[28.08, 0.]], which is 32 cos .5.
  Source: Deng et al. 2019, arXiv:1801.07698 (ArcFace).
  """
  arguments = _checked(cosines, labels, scale, axis)
  return _margined(*arguments, margin, None, _widen, easy_margin, axis)


def guided_additive_margin(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  margin: Real[ArrayLike, ""] = 0.35,
  t: Real[ArrayLike, ""] = 0.2,
  easy_margin: bool = True,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Applies `additive_margin` and raises the cosines of the wrong classes that violate it.

  logits = s ((1 + t) c + t) for every wrong class with c > c_y - m, whether or not easy_margin
  spares the right class.

  Args:
    t: how much the violating classes are raised; 0 leaves `additive_margin`.
    margin, easy_margin, cosines, labels, scale, axis: as in `additive_margin`.

  Example: guided_additive_margin([[.5, .25]], [0], margin=.35) is [[4.8, 16.]].
  Source: Wang et al. 2019, arXiv:1912.00833 (MV-Softmax, adaptive form).
  """
  arguments = _checked(cosines, labels, scale, axis)
  return _margined(*arguments, margin, t, _lower, easy_margin, axis)


def guided_angular_margin(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  margin: Real[ArrayLike, ""] = 0.5,
  t: Real[ArrayLike, ""] = 0.2,
  easy_margin: bool = True,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Applies `angular_margin` and raises the cosines of the wrong classes that violate it.

  logits = s ((1 + t) c + t) for every wrong class with c > cos(theta_y + m), whether or not
  easy_margin spares the right class.

  Args:
    t, margin, easy_margin, cosines, labels, scale, axis: as in `guided_additive_margin`; the
      margin is an angle in radians.

  Example: guided_angular_margin([[1., 0.]], [0]) is [[28.08, 0.]]: no class violates it.
  Source: Wang et al. 2019, arXiv:1912.00833 (MV-Softmax, adaptive form).
  """
  arguments = _checked(cosines, labels, scale, axis)
  return _margined(*arguments, margin, t, _widen, easy_margin, axis)


def multiplicative_margin(
  cosines: Real[ArrayLike, "*shape"],
  labels: Real[ArrayLike, "..."],
  *,
  margin: int = 4,
  blend: Real[ArrayLike, ""] = 5.0,
  scale: Real[ArrayLike, ""] = 32.0,
  axis: int = -1,
) -> Float[Array, "*shape"]:
  """Multiplies the angle to the right class by an integer.

  logits = s (blend c + psi) / (1 + blend) there, s c elsewhere, with

    psi(theta) = (-1)^k cos(m theta) - 2 k,  k = floor(m theta / pi),

  which falls monotonically from 1 to 1 - 2 m. The published schedule of the blend starts at
  1000 and ends at 5: blend = max(5, 1000 (1 + 1e-4 step)^-2).

  Args:
    margin: m, an integer of 1 or more; 1 leaves the cosines.
    blend: the weight of the plain cosine, >= 0.
    cosines, labels, scale, axis: as in `scaled_cosines`.

  Raises:
    ValueError: as in `scaled_cosines`, or a margin that is not such an integer.

  Example: multiplicative_margin([[0., 1.]], [0], margin=2, blend=0.) is [[-32., 32.]].
  Source: Liu et al. 2017, arXiv:1704.08063 (SphereFace).
  """
  if margin != int(margin) or margin < 1:
    raise ValueError(
      f"margin = {margin} must be an integer of 1 or more: it multiplies the angle. "
      "For a margin that is added, use angular_margin."
    )
  arguments = _checked(cosines, labels, scale, axis)
  return _margined(*arguments, blend, None, _multiply(int(margin)), False, axis)


def _checked(cosines, labels, scale, axis):
  cosines, labels = jnp.asarray(cosines), jnp.asarray(labels)
  check_integer_labels(labels, cosines.shape, axis)
  checked("scale", scale, lambda s: s > 0, "must be positive: it multiplies the cosines.")
  return cosines, labels, scale


@partial(jax.jit, static_argnums=(5, 6, 7))
def _margined(cosines, labels, scale, parameter, t, target, easy_margin, axis):
  c = masked_logits(cosines, None, None)
  parameter = jnp.asarray(parameter, c.dtype)
  hit, known = label_entries(labels, c.shape, axis)
  own = jnp.sum(jnp.where(hit, c, 0), axis, keepdims=True)
  hard = target(own, parameter)
  others = c if t is None else jnp.where(c > hard, (1 + t) * c + t, c)
  aim = jnp.where(own > 0, hard, own) if easy_margin else hard
  logits = jnp.asarray(scale, c.dtype) * jnp.where(hit, aim, others)
  return jnp.where(known, logits, jnp.nan).astype(float_dtype(cosines))


def _keep(c, _):
  return c


def _lower(c, margin):
  return c - margin


def _widen(c, margin):
  square = (1 - c) * (1 + c)
  sine = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
  return c * jnp.cos(margin) - sine * jnp.sin(margin)


@lru_cache
def _multiply(margin):
  def target(c, blend):
    before, cosine = jnp.ones_like(c), c  # cos(m theta) by cos((m+1) x) = 2 cos x cos m x - ...
    for _ in range(margin - 1):
      before, cosine = cosine, 2 * c * cosine - before
    theta = jnp.arccos(jnp.clip(jax.lax.stop_gradient(c), -1, 1))
    k = jnp.floor(margin * theta / jnp.pi)
    psi = jnp.where(k % 2 == 0, cosine, -cosine) - 2 * k
    return (blend * c + psi) / (1 + blend)

  return target


# f(cosines, labels, *, scale, axis, **own) -> logits of the same shape, by their published names.
MARGINS: dict[str, Callable[..., Array]] = {
  "fc": scaled_cosines,
  "am": additive_margin,
  "arc": angular_margin,
  "mv_am": guided_additive_margin,
  "mv_arc": guided_angular_margin,
  "sphereface": multiplicative_margin,
}
