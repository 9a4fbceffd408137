"""The passes of streamed cross-entropies over blocks of logits: statistics and derivative."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Plan(NamedTuple):
  """What is known before tracing.

  scores(z, *constants) are what the softmax is taken of, from logits [tokens, classes] of a block.
  """

  scores: Callable
  tokens: int
  classes: int
  class_axis: int  # of the kernel: 1 in [d, V], 0 in [V, d]


class Weights(NamedTuple):
  """The layer: kernel, bias [V] or None, and what the map of the logits closes over."""

  kernel: jax.Array
  bias: jax.Array | None
  constants: tuple


class Best(NamedTuple):
  """Of every token: the best score, that of the label, and the best of classes before it."""

  top: jax.Array
  target: jax.Array
  before: jax.Array

  def is_target(self):
    """A tie goes to the first class: the label is it where it beats all before and is the best."""
    return (self.target == self.top) & (self.target > self.before)


class Rows(NamedTuple):
  """Of every token: the log-sum-exp of its scores, and the best of them."""

  logsumexp: jax.Array
  best: Best


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def token_rows(plan, features, weights, labels):
  """Returns the Rows [N] of features [N, d]; log-sum-exp and target have a derivative."""
  return _token_rows(plan, features, weights, labels)[0]


def _token_rows(plan, features, weights, labels):
  blocks = in_blocks(plan, features, labels)
  rows = jax.lax.map(lambda block: _statistics(plan, weights, *block)[0], blocks)
  rows = whole(rows, len(features))
  return rows, (features, weights, labels, rows.logsumexp)


def _token_rows_pull(plan, saved, cotangents):
  features, weights, labels, logsumexp = saved
  rates = cotangents.logsumexp, cotangents.best.target
  blocks = in_blocks(plan, features, labels, logsumexp, *rates)

  def step(total, block):
    return _pull(plan, weights, total, *block)[::-1]

  total, d_features = jax.lax.scan(step, _zeros(weights), blocks)
  return _gradients(d_features, total, features, weights)


token_rows.defvjp(_token_rows, _token_rows_pull)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_sum(plan, features, weights, labels, shares):
  """Returns sum_i shares_i loss_i and the Rows; the sum alone has a derivative, not in shares.

  Its gradients are formed with the value, from the logits of one block of tokens, all classes.
  """
  rows = token_rows(plan, features, weights, labels)
  return _weighted(rows, shares), rows


def loss_of(rows):
  """Returns -log p of the labels; 0 where all scores are -inf, inf where that of the label is."""
  loss = jnp.where(rows.best.target == -jnp.inf, jnp.inf, rows.logsumexp - rows.best.target)
  return jnp.where(rows.logsumexp == -jnp.inf, 0, loss)


def _weighted(rows, shares):
  return jnp.sum(jnp.where(shares == 0, 0, shares * loss_of(rows)))


def _weighted_sum(plan, features, weights, labels, shares):
  def step(total, block):
    h, label, share = block
    rows, logits = _statistics(plan, weights, h, label, keep=True)
    share = jnp.where(rows.best.target == -jnp.inf, 0, share)
    d_h, total = _pull(plan, weights, total, h, label, rows.logsumexp, share, -share, logits)
    return total, (rows, d_h)

  blocks = in_blocks(plan, features, labels, shares)
  total, (rows, d_features) = jax.lax.scan(step, _zeros(weights), blocks)
  rows = whole(rows, len(features))
  return (_weighted(rows, shares), rows), _gradients(d_features, total, features, weights)


def _weighted_sum_pull(_, gradients, cotangents):
  scaled = jax.tree.map(lambda x: (x * cotangents[0]).astype(x.dtype), gradients)
  return (*scaled, None)


weighted_sum.defvjp(_weighted_sum, _weighted_sum_pull)


def _statistics(plan, weights, features, labels, keep=False):
  """Returns the Rows of a block of tokens, and its logits in blocks of classes if they are kept."""

  def step(carry, i):
    best, total = carry
    logits, _, block = block_logits(plan, weights, features, i)
    scores = jnp.where(block.new, plan.scores(logits, *weights.constants), -jnp.inf)
    found = better(best, scores, block, labels)
    total = total * jnp.exp(best.top - found.top)
    total += jnp.sum(jnp.exp(scores - found.top[:, None]), -1)
    return (found, total), logits if keep else None

  dtype = wide_dtype(features)
  # Finite, as -inf minus -inf would be NaN; -inf minus this is -inf.
  lowest = jnp.full(len(features), jnp.finfo(dtype).min, dtype)
  start = Best(lowest, 0 * lowest, jnp.full_like(lowest, -jnp.inf)), 0 * lowest
  (best, total), logits = jax.lax.scan(step, start, class_blocks(plan, weights))
  return Rows(best.top + jnp.log(total), best), logits


def better(best, scores, block, labels):
  """Returns the best with that of one more block, whose old classes have -inf."""
  hit = block.new & (block.classes == labels[:, None])
  earlier = jnp.where(block.classes < labels[:, None], scores, -jnp.inf)
  return Best(
    jnp.maximum(best.top, jnp.max(scores, -1)),
    best.target + jnp.sum(jnp.where(hit, scores, 0), -1),
    jnp.maximum(best.before, jnp.max(earlier, -1)),
  )


def _pull(plan, weights, total, features, labels, logsumexp, d_logsumexp, d_target, logits=None):
  """Returns the gradient of a block of tokens, and the total of the Weights' with it added."""
  # No mass where none is asked for: padding has a log-sum-exp that is not that of its scores.
  norm = jnp.where((d_logsumexp == 0) | (logsumexp == -jnp.inf), jnp.inf, logsumexp)[:, None]

  def step(carry, i):
    d_features, total = carry
    z, kernel, block = block_logits(
      plan, weights, features, i, None if logits is None else logits[i]
    )
    scores, pull = jax.vjp(plan.scores, z, *weights.constants)
    hit = block.classes == labels[:, None]
    d_scores = jnp.exp(scores - norm) * d_logsumexp[:, None]
    d_scores = jnp.where(block.new, d_scores + jnp.where(hit, d_target[:, None], 0), 0)
    d_logits, *d_constants = pull(d_scores)
    narrow = d_logits.astype(kernel.dtype)
    d_features += _dot(narrow, kernel, (1, plan.class_axis))
    d_kernel = _dot(*((features, narrow) if plan.class_axis else (narrow, features)), (0, 0))
    total = Weights(
      _add_at(total.kernel, d_kernel, block.start, plan.class_axis),
      None if total.bias is None else _add_at(total.bias, jnp.sum(d_logits, 0), block.start, 0),
      tuple(a + b for a, b in zip(total.constants, d_constants, strict=True)),
    )
    return (d_features, total), None

  start = jnp.zeros(features.shape, wide_dtype(features)), total
  return jax.lax.scan(step, start, class_blocks(plan, weights))[0]


class _Block(NamedTuple):
  start: jax.Array
  classes: jax.Array  # [1, v] their indices
  new: jax.Array  # [1, v] False where a class belongs to the block before


def block_logits(plan, weights, features, i, logits=None):
  """Returns the logits [tokens, classes] of the i-th block of classes, its kernel and its place.

  The last block ends with the last class, and may start within the block before.
  """
  axis, size = plan.class_axis, plan.classes
  start = jnp.minimum(i * size, weights.kernel.shape[axis] - size)
  classes = start + jnp.arange(size)[None]
  kernel = jax.lax.dynamic_slice_in_dim(weights.kernel, start, size, axis).astype(features.dtype)
  if logits is None:
    logits = _dot(features, kernel, (1, 1 - axis))
    if weights.bias is not None:
      logits += jax.lax.dynamic_slice_in_dim(weights.bias, start, size)[None].astype(logits.dtype)
  return logits, kernel, _Block(start, classes, classes >= i * size)


def _dot(left, right, axes):
  """Multiplies in the dtype of the layer and adds up in float32 or wider."""
  wide = wide_dtype(left)
  contracted = ((axes[0],), (axes[1],)), ((), ())
  return jax.lax.dot_general(left, right, contracted, preferred_element_type=wide)


def wide_dtype(x):
  """Returns float32, or the wider dtype of x."""
  return jnp.promote_types(x.dtype, jnp.float32)


def class_blocks(plan, weights):
  """Returns the numbers of the blocks of classes."""
  return jnp.arange(-(-weights.kernel.shape[plan.class_axis] // plan.classes))


def _add_at(total, part, start, axis):
  """Adds part to the entries of total from start on."""
  held = jax.lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
  return jax.lax.dynamic_update_slice_in_dim(total, held + part, start, axis)


def in_blocks(plan, *arrays):
  """Cuts arrays [N, ...] into [blocks, tokens, ...], zeros at the end."""
  length = len(arrays[0])
  count = max(-(-length // plan.tokens), 1)

  def cut(x):
    missing = count * plan.tokens - length
    padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
    return padded.reshape(count, plan.tokens, *x.shape[1:])

  return tuple(map(cut, arrays))


def whole(blocks, length):
  """Undoes `in_blocks`."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], blocks)


def _zeros(weights):
  return jax.tree.map(lambda x: jnp.zeros(x.shape, wide_dtype(x)), weights)


def _gradients(d_features, total, features, weights):
  """Returns the cotangents of features, weights and labels, in their dtypes."""
  d_features = whole(d_features, len(features)).astype(features.dtype)
  return d_features, jax.tree.map(lambda x, y: x.astype(y.dtype), total, weights), None
