"""The cross-entropy of a linear layer without its matrix of logits: by blocks, both ways."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.attention_mask import fitted
from rankbias.ops.linear_cross_entropy_blocks import (
  Plan,
  Weights,
  loss_of,
  token_rows,
  weighted_sum,
  wide_dtype,
)
from rankbias.ops.rows import masked_logits
from rankbias.ops.softmax import checked_temperature

CLASS_AXIS = {"dv": 1, "vd": 0}
BLOCK = 1024  # tokens and classes
KEPT = 2**25  # logits that reduction="mean" keeps


class CrossEntropyAux(NamedTuple):
  """What the streamed cross-entropy knows of every token beside its loss.

  logsumexp is that of the scores f(z) / T. It has a gradient with one loss a token, and none
  (`jax.lax.stop_gradient`) with reduction "mean". correct says that the label is the argmax, the
  first of equals. Tokens left out have 0 and False.
  """

  logsumexp: Float[Array, "..."]
  correct: Bool[Array, "..."]


def linear_cross_entropy(
  features: Float[ArrayLike, "*batch d"],
  kernel: Float[ArrayLike, "..."],
  labels: Integer[ArrayLike, "..."],
  *,
  bias: Float[ArrayLike, "..."] | None = None,
  logit_map: Callable | None = None,
  temperature: Real[ArrayLike, ""] = 1.0,
  chunk: int | tuple[int, ...] | None = None,
  where: Bool[ArrayLike, "..."] | None = None,
  kernel_layout: str = "dv",
  reduction: str | None = None,
) -> tuple[Float[Array, "..."], CrossEntropyAux]:
  """Computes the cross-entropy of a linear layer without storing its logits, forward or backward.

  loss = -log softmax(f(h W + b) / T)_y = log sum_v exp(f(z_v) / T) - f(z_y) / T

  Logits appear in blocks of tokens x classes, and again in the derivative. With reduction "mean",
  over the tokens that `where` keeps (0 if none), the gradients are formed along with the value from
  one block of tokens, all classes: 3 matrix products instead of 4. They are those of the loss, and
  aux.logsumexp has none then: a penalty on it (a z-loss) takes reduction None. Sums, loss and
  logsumexp are in float32 or wider, also of bfloat16. There is no forward mode.

  Args:
    kernel: W, [d, V] in the layout "dv" (Flax) or [V, d] in "vd" (a tied embedding, not copied).
    labels: of the shape of features without the last axis. A traced one outside 0..V-1 makes the
      loss and its gradients NaN.
    bias: [V]. A label whose class has -inf costs inf, and has no gradient.
    logit_map: f, an increasing function that jax can differentiate, entry by entry. Whatever it
      closes over gets its gradient: plif_map(parameters, bound=20.), a jax.tree_util.Partial, a
      lambda. Call a loss with a map under jit, or it is compiled every time.
    temperature: T > 0; a number, or a scalar array with a derivative.
    chunk: tokens and classes of a block, one number or two, which need not divide anything.
    where: True where a token counts. Others cost 0, have no gradient and may hold anything.

  Raises:
    ValueError: shapes that do not fit, labels known before tracing outside 0..V-1, a temperature
      or chunk that is not positive, an unknown layout or reduction, a map that changes the shape.

  Example: linear_cross_entropy(h, W, y)[0] is cross_entropy(h @ W, y).
  Source: Wijmans et al. 2024, arXiv:2411.09009 (no map); the derivative of the map, derived here.
  """
  check_layer(features, kernel, labels, bias, kernel_layout, reduction)
  keep = kept(labels, where, np.shape(kernel)[CLASS_AXIS[kernel_layout]])
  kernel, bias = jnp.asarray(kernel), None if bias is None else jnp.asarray(bias)
  features = jnp.asarray(features, jnp.result_type(features, kernel))
  settings = logit_map, checked_temperature(temperature), chunk, kernel_layout, reduction
  loss, aux = _streamed(features, kernel, bias, jnp.asarray(labels), keep, *settings)
  return loss, CrossEntropyAux(*aux)


def _streamed(
  features, kernel, bias, labels, keep, logit_map, temperature, chunk, kernel_layout, reduction
):
  own = logit_map, temperature, chunk, kernel_layout, reduction
  plan, weights = make_plan(features, kernel, bias, labels.size, *own)
  run = _rows_of_tokens if logit_map is not None else _compiled
  return run(plan, reduction, features, weights, labels, keep)


def make_plan(
  features,
  kernel,
  bias,
  rows,
  logit_map,
  temperature,
  chunk,
  kernel_layout,
  reduction=None,
  group=1,
):
  """Returns the Plan of so many rows of features, whole groups of them a block, and the Weights."""
  axis = CLASS_AXIS[kernel_layout]
  tokens, classes = _block_shape(chunk, rows, kernel.shape[axis], reduction)
  shape = -(-tokens // group) * group, classes
  wide = jnp.promote_types(features.dtype, jnp.float32)
  scores, constants = _scores(logit_map, temperature, shape, wide)
  return Plan(scores, *shape, axis), Weights(kernel, bias, constants)


def _rows_of_tokens(plan, reduction, features, weights, labels, keep):
  """Returns the loss and (logsumexp, correct) in the shape of the labels."""
  batch = labels.shape
  features = features.reshape(labels.size, features.shape[-1])
  labels, keep, classes = labels.ravel(), keep.ravel(), weights.kernel.shape[plan.class_axis]
  features, labels, shares = checked_tokens(features, labels, keep, classes)
  if reduction == "mean":
    shares = jnp.where(keep, shares / jnp.maximum(jnp.sum(keep), 1), 0)
    loss, rows = weighted_sum(plan, features, weights, labels, shares)
    rows = jax.lax.stop_gradient(rows)
  else:
    rows = token_rows(plan, features, weights, labels)
    loss = jnp.where(keep, loss_of(rows) * shares, 0).reshape(batch)
  known = ~jnp.isnan(shares)
  aux = jnp.where(keep, rows.logsumexp, 0), keep & known & rows.best.is_target()
  return loss, tuple(x.reshape(batch) for x in aux)


def checked_tokens(features, labels, keep, classes):
  """Returns features and labels of tokens [N], and what to multiply their losses by.

  Nothing of a token left out may reach a product, where NaN times 0 is NaN: its features and label
  are 0. A kept label that names no class is 0, too, and its factor is NaN; that of others is 1.
  """
  labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))  # hold the number of classes
  known = (labels >= 0) & (labels < classes)
  dropped = ~keep.reshape(keep.shape + (1,) * (features.ndim - 1))
  features, labels = jnp.where(dropped, 0, features), jnp.where(keep & known, labels, 0)
  return features, labels, jnp.where(known | ~keep, 1, jnp.nan).astype(wide_dtype(features))


_compiled = partial(jax.jit, static_argnums=(0, 1))(_rows_of_tokens)


def _scores(logit_map, temperature, shape, dtype):
  """Returns the scores as a function of logits and constants, and the constants."""
  if np.ndim(temperature if temperature is not None else 1):
    raise ValueError(f"temperature of shape {np.shape(temperature)} must be one number.")
  if logit_map is None:
    return _tempered, () if temperature is None else (jnp.asarray(temperature, dtype),)
  block = jnp.zeros(shape, dtype)
  found = jax.eval_shape(logit_map, block)
  if getattr(found, "shape", None) != block.shape:
    raise ValueError(
      f"logit_map = {logit_map} makes {found} of a block of {shape}: it must map every entry."
    )
  # What the map closes over becomes an argument, so that it can have a gradient.
  scores, constants = jax.closure_convert(lambda z: _tempered(logit_map(z), temperature), block)
  return scores, tuple(constants)


def _tempered(logits, temperature=None):
  return masked_logits(logits, temperature, None)


def _block_shape(chunk, tokens, classes, reduction):
  """Returns tokens and classes of a block, so that blocks are nearly equal."""
  if chunk is None:
    most = min(BLOCK, max(KEPT // classes, 128)) if reduction else BLOCK
    chunk = most, BLOCK
  chunk = (chunk, chunk) if np.ndim(chunk) == 0 else tuple(chunk)
  if len(chunk) != 2 or min(chunk) < 1:
    raise ValueError(
      f"chunk = {chunk} must be one or two numbers >= 1: tokens and classes of a block."
    )
  sizes = (tokens, classes)
  counts = [max(-(-size // limit), 1) for size, limit in zip(sizes, chunk, strict=True)]
  return tuple(max(-(-size // count), 1) for size, count in zip(sizes, counts, strict=True))


def check_layer(features, kernel, labels, bias, kernel_layout, reduction):
  """Raises for an unknown layout or reduction, and for shapes that do not fit."""
  if kernel_layout not in CLASS_AXIS:
    raise ValueError(
      f"kernel_layout = {kernel_layout!r} must be 'dv' for [d, V] or 'vd' for [V, d]."
    )
  if reduction not in (None, "mean"):
    raise ValueError(f"reduction = {reduction!r} must be None for one loss a token, or 'mean'.")
  axis, batch, shape = CLASS_AXIS[kernel_layout], np.shape(features)[:-1], np.shape(kernel)
  if len(shape) != 2 or shape[1 - axis] != np.shape(features)[-1] or not shape[axis]:
    raise ValueError(
      f"kernel of shape {shape} does not fit features of shape {np.shape(features)}: "
      f"kernel_layout = {kernel_layout!r} needs {'[d, V]' if axis else '[V, d]'}."
    )
  if np.shape(labels) != batch or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
    raise ValueError(
      f"labels of shape {np.shape(labels)} and dtype {jnp.result_type(labels)} must be integers of "
      f"shape {batch}: one class for every token."
    )
  if bias is not None and np.shape(bias) != (shape[axis],):
    raise ValueError(
      f"bias of shape {np.shape(bias)} must be {(shape[axis],)}: one number for every class."
    )


def kept(labels, where, classes):
  """Returns which tokens count, and raises for a label of one that names no class.

  That is where both are known: arrays that a trace makes of them are not, so pass what users gave.
  """
  keep = fitted("where", True if where is None else where, np.shape(labels))
  if not isinstance(labels, jax.core.Tracer) and not isinstance(where, jax.core.Tracer):
    known = np.reshape(True if where is None else where, keep.shape)
    found = np.asarray(labels)[np.broadcast_to(known, np.shape(labels))]
    outside = found[(found < 0) | (found >= classes)]
    if outside.size:
      raise ValueError(
        f"labels hold {outside[0]}, and the classes are 0..{classes - 1}: check the vocabulary, or "
        "leave the token out by where=."
      )
  return jnp.broadcast_to(keep, np.shape(labels))
