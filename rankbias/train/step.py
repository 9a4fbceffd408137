"""One optimiser step of one member on one device, and the loop of steps that a call runs.

State is a plain dict, so that a checkpoint can hold it and a test can read it:

  params      {"model": ..., "head": ...}
  extra       what the loss carries along and does not train (BatchNorm's running statistics)
  opt         the optimiser's state
  key         uint32 [2], the member's key; step s uses fold_in(key, s)
  step        steps taken
  numbers     the member's own {"temperature", "learning_rate", "weight_decay"}, before annealing
  stopped_at  step whose loss was not finite, or -1; from then on nothing changes
  last        {"loss", "accuracy"}, the last finite training numbers
  right       images classified right in the current epoch when visited
  fitted_at   end of the first epoch with at least 99 % of its images right when visited, or -1
  best        {"loss", "step", "params", "extra"} of the lowest loss on a split, if one is measured
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rankbias.train.parallel import AXIS

FITTED = 0.99  # training accuracy at which a member counts as fitted


def init_state(params, extra, key, numbers, optimizer: Callable) -> dict[str, Any]:
  """The state before the first step."""
  return {
    "params": params,
    "extra": extra,
    "opt": optimizer(numbers).init(params),
    "key": key,
    "step": jnp.int32(0),
    "numbers": numbers,
    "stopped_at": jnp.int32(-1),
    "last": {"loss": jnp.float32(jnp.nan), "accuracy": jnp.float32(jnp.nan)},
    "right": jnp.float32(0),
    "fitted_at": jnp.int32(-1),
  }


def with_best(state: dict[str, Any]) -> dict[str, Any]:
  """The state with a place for the best parameters on a split: before it is measured, the first."""
  kept = {name: state[name] for name in ("params", "extra")}
  return state | {"best": {"loss": jnp.float32(jnp.inf), "step": jnp.int32(0), **kept}}


def make_step(
  loss: Callable, optimizer: Callable, anneal: Callable = lambda numbers, step: numbers
) -> Callable:
  """Returns `step(state, batch) -> (state, metrics)`, to be run under the axis name "data".

  Args:
    loss: (params, extra, batch, key, numbers) -> (mean loss, (metrics, extra)) on this device's
      part of the batch.
    optimizer: numbers -> optax.GradientTransformation.
    anneal: (numbers, step) -> the numbers that hold at that step.

  A step whose loss or gradient is not finite is not taken: the member keeps its last good
  parameters, `stopped_at` says when, and its metrics are NaN from then on.
  """

  def step(state, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
    gradient = jax.value_and_grad(loss, has_aux=True)
    numbers = anneal(state["numbers"], state["step"])
    (value, (metrics, extra)), grads = gradient(
      state["params"], state["extra"], batch, key, numbers
    )
    value, metrics, extra, grads = jax.lax.pmean((value, metrics, extra, grads), AXIS)
    updates, opt = optimizer(numbers).update(grads, state["opt"], state["params"])
    params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), state["params"], updates)

    finite = jnp.isfinite(value) & all_finite(grads)
    alive = (state["stopped_at"] < 0) & finite
    metrics = {"loss": value, **metrics}
    new = {
      **state,
      "params": params,
      "extra": extra,
      "opt": opt,
      "last": {k: metrics[k].astype(jnp.float32) for k in state["last"]},
    }
    state = jax.tree.map(lambda old, new: jnp.where(alive, new, old), state, new)
    died = (state["stopped_at"] < 0) & ~finite
    state["stopped_at"] = jnp.where(died, state["step"], state["stopped_at"])
    state["step"] += 1
    return state, jax.tree.map(lambda x: jnp.where(alive, x, jnp.nan), metrics)

  return step


def all_finite(tree) -> jax.Array:
  """True when every number of the tree is finite."""
  return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def with_fit_time(step: Callable, steps_per_epoch: int) -> Callable:
  """Wraps a step so that `fitted_at` records when an epoch was 99 % right."""

  def wrapped(state, batch):
    state, metrics = step(state, batch)
    right = state["right"] + jnp.where(jnp.isnan(metrics["accuracy"]), 0, metrics["accuracy"])
    ends = state["step"] % steps_per_epoch == 0
    fitted = ends & (right >= FITTED * steps_per_epoch) & (state["fitted_at"] < 0)
    state["fitted_at"] = jnp.where(fitted, state["step"], state["fitted_at"])
    state["right"] = jnp.where(ends, 0, right).astype(state["right"].dtype)
    return state, metrics

  return wrapped


def over_members(fn: Callable, members: int, in_axes: Any = 0) -> Callable:
  """Maps `fn` over the leading axis of members.

  One member is not vmapped but squeezed: a vmapped convolution becomes a grouped one, which is
  slower on CPU.
  """
  if members > 1:
    return jax.vmap(fn, in_axes=in_axes)

  def single(*args):
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
    args = [
      arg if axis is None else jax.tree.map(lambda x: x[0], arg)
      for arg, axis in zip(args, axes, strict=True)
    ]
    return jax.tree.map(lambda x: jnp.asarray(x)[None], fn(*args))

  return single


def make_chunk(steps: Sequence[Callable], gather: Callable, members: int, length: int) -> Callable:
  """Returns `chunk(state, feed, constants) -> (state, metrics)`: up to `length` steps in one call.

  Args:
    steps: (state, batch) -> (state, metrics) of one member, for every static form that a batch
      can have. The form is chosen for all members at once: a choice of each member's own would
      compute all forms and select.
    gather: (constants, rows, positions) -> batch, of one member: turns indices into examples.
    members: leading axis of every leaf of the state.
    length: steps a call can run. The number it does run is data (`feed["count"]`), so that one
      compiled loop serves every call. A length of 1 compiles no loop at all: XLA runs convolutions
      inside loops about 50 times slower on CPU.

  `feed` is {"rows": int32 [length, members, b], "positions": int32 [b], "variant": int32 [length],
  "count": int32 []}; metrics have shape [length, members], zero beyond the count.
  """
  branches = [
    over_members(
      lambda state, rows, positions, constants, step=step: step(
        state, gather(constants, rows, positions)
      ),
      members,
      in_axes=(0, 0, None, None),
    )
    for step in steps
  ]

  def take(i, state, feed, constants):
    own = state, feed["rows"][i], feed["positions"], constants
    return jax.lax.switch(feed["variant"][i], branches, *own)

  def chunk(state, feed, constants):
    if length == 1:
      state, metrics = take(0, state, feed, constants)
      return state, jax.tree.map(lambda x: x[None], metrics)

    def body(i, carry):
      state, log = carry
      state, metrics = take(i, state, feed, constants)
      return state, jax.tree.map(lambda buffer, x: buffer.at[i].set(x), log, metrics)

    _, shapes = jax.eval_shape(take, 0, state, feed, constants)
    log = jax.tree.map(lambda s: jnp.zeros((length, *s.shape), s.dtype), shapes)
    return jax.lax.fori_loop(0, feed["count"], body, (state, log))

  return chunk
