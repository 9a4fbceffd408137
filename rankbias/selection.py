"""Early stopping: the loss on a split while training, and the best parameters in the state.

The state holds them itself, in "best", so that a run continued from any checkpoint keeps the same.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rankbias.data.source import Source
from rankbias.evaluate import check_context, held_out
from rankbias.evaluate.predictor import OOD
from rankbias.program import Program
from rankbias.record import Log
from rankbias.train import loop, parallel

NEEDED = ("split", "every")
STREAM = ("lanes", "context")  # of `evaluate.held_out`, for streams of tokens


def check(options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
  """Raises for options of `config.select` that cannot be, before data are loaded."""
  if not options:
    return
  known = (*NEEDED, "patience", *STREAM)
  for name, value in options.items():
    if name not in known:
      raise ValueError(f"select.{name} is unknown; use {', '.join(known)}")
    if name != "split" and value is not None and value < (least := name in ("every", "lanes")):
      raise ValueError(f"select.{name}={value} must be at least {int(least)}")
  for name in NEEDED:
    if name not in options:
      raise ValueError(f'select.{name} is missing; give {{"split": "valid", "every": 1000}}')
  check_context("select", options, fields)


def check_data(options: Mapping[str, Any], source: Source) -> None:
  """Raises where the data have no such split, or none with a label for every example."""
  if not options:
    return
  splits = [name for name in source.splits if name not in OOD]
  if options["split"] not in splits:
    raise ValueError(f"select.split={options['split']!r}: the data have {', '.join(splits)}")
  if hasattr(source, "tokens"):
    return
  if source.splits[options["split"]]["y"].ndim > 1:
    raise ValueError(
      f"select: {source.name} has no single label an example; remove select from the config"
    )
  for name in STREAM:
    if options.get(name):
      raise ValueError(f"select.{name}={options[name]}: {source.name} is no stream of tokens")


def make_hooks(config: ConfigDict, built: Program, source: Source, log: Log) -> Sequence[loop.Hook]:
  """What measures the split and keeps the best parameters of every member, if the config selects.

  A member that has waited for more than `patience` measurements keeps what it has, though others
  of its program may go on: a member ends the same alone and in company.
  """
  options = config.select
  if not options:
    return ()
  every, patience = options["every"], options.get("patience") or 0
  own = {name: options[name] for name in STREAM if options.get(name)}

  def select(step, state):
    began = time.perf_counter()
    local = parallel.one_device(state)
    members = np.flatnonzero(np.asarray(local["stopped_at"]) < 0).tolist()
    rows, losses = [], np.full(built.members, np.inf, np.float32)
    for m in members:
      one = [jax.tree.map(lambda x, m=m: x[m], local[k]) for k in ("params", "extra", "numbers")]
      found = held_out(built.predictor(*one), source, options["split"], **own)
      rows.append({"step": step, "member": m, "split": options["split"], **found})
      losses[m] = found["loss"]
    log.rows(rows)
    log.timing("select", began, step=step)
    better = losses < np.asarray(local["best"]["loss"])
    if patience:
      better &= step - np.asarray(local["best"]["step"]) <= patience * every
    if better.any():
      now = {"loss": losses, "step": np.full(built.members, step, np.int32)}
      now |= {name: local[name] for name in ("params", "extra")}
      return state | {"best": parallel.replicate(chosen(better, now, local["best"]))}
    return None

  return (loop.Hook(frozenset([*range(every, config.steps, every), config.steps]), select),)


@jax.jit
def chosen(better: Any, now: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
  """What is kept of every member: what it is now, for those that are better."""

  def one(new, old):
    return jnp.where(better.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

  return jax.tree.map(one, now, best)


def make_ended(options: Mapping[str, Any]) -> Callable[[int, Any], bool]:
  """Returns `ended(step, state)`: whether every member has diverged or lost its patience."""
  if not options.get("patience"):
    return lambda step, state: False
  wait = options["patience"] * options["every"]

  def ended(step, state):
    best, stopped = parallel.fetch((state["best"]["step"], state["stopped_at"]))
    return bool(np.all((stopped >= 0) | (step - best >= wait)))

  return ended
