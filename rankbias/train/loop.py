"""The host's loop: calls of many steps, cut where something is to be measured or saved."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rankbias.train import parallel


class Hook(NamedTuple):
  """Something to do with the state when certain numbers of steps have been taken."""

  stops: frozenset[int]
  call: Callable[[int, Any], Any]  # (steps taken, state) -> a new state, or None to keep it


class Interrupted(Exception):
  """The process was asked to stop; the run can be continued."""


def log_spaced(steps: int, count: int) -> list[int]:
  """About `count` steps from 0 to `steps`, dense at first: 0, 1, 2, 3, 5, 8, ..., steps.

  A count of 1 is the last step alone, and 0 none.
  """
  if count < 2:
    return [steps] * count
  return sorted({0, steps, *np.geomspace(1, steps, count - 1).round().astype(int).tolist()})


def every(steps: int, count: int) -> list[int]:
  """`count` evenly spaced steps, the last one included."""
  return sorted({round(steps * (i + 1) / count) for i in range(count)} - {0})


def train(
  chunk: Callable,
  state: Any,
  constants: Any,
  *,
  rows: Callable[[int], np.ndarray],
  variant: Callable[[int], int] = lambda step: 0,
  start: int,
  steps: int,
  length: int,
  hooks: Sequence[Hook],
  on_metrics: Callable[[int, dict, float], None],
  on_interrupt: Callable[[int, Any], None],
  ended: Callable[[int, Any], bool] = lambda step, state: False,
) -> Any:
  """Takes the steps from `start` to `steps` and returns the final state.

  Args:
    chunk: the pmapped function of `train.step.make_chunk`.
    rows: step -> int32 [members, global batch], which examples that step sees.
    variant: step -> which of the chunk's steps it takes.
    length: the most steps in one call.
    hooks: called in order at their stops, before the first step too if 0 is among them and the
      run starts there.
    on_metrics: (first step, {name: [steps, members]}, seconds) after every call.
    on_interrupt: (steps taken, state) before `Interrupted` is raised.
    ended: (steps taken, state) -> whether no further step is needed.

  Raises:
    Interrupted: on SIGTERM or SIGINT, between two calls.
  """
  stops = sorted(set().union(*(hook.stops for hook in hooks), {steps}))

  def visit(step, state):
    for hook in hooks:
      new = hook.call(step, state) if step in hook.stops else None
      state = state if new is None else new
    return state

  if start == 0:
    state = visit(0, state)
  step = start
  with stop_requested() as asked:
    while step < steps and not ended(step, state):
      end = min([step + length, *(s for s in stops if s > step)])
      began = time.perf_counter()
      state, metrics = chunk(state, make_feed(rows, variant, step, end, length), constants)
      metrics = parallel.fetch(metrics)
      metrics = {name: values[: end - step] for name, values in metrics.items()}
      on_metrics(step, metrics, time.perf_counter() - began)
      step = end
      state = visit(step, state)
      if asked.is_set() and step < steps:
        on_interrupt(step, state)
        raise Interrupted(f"stopped on request after {step} of {steps} steps")
  return state


def make_feed(
  rows: Callable, variant: Callable, step: int, end: int, length: int
) -> dict[str, np.ndarray]:
  """What steps [step, end) are fed with, cut over this process's devices."""
  block = np.stack([rows(s) for s in range(step, end)])
  padding = np.zeros((length - len(block), *block.shape[1:]), block.dtype)
  variants = np.zeros(length, np.int32)
  variants[: end - step] = [variant(s) for s in range(step, end)]
  batch = np.arange(block.shape[-1], dtype=np.int32)
  feed = {
    "rows": parallel.local_slices(np.concatenate([block, padding]), axis=2),
    "positions": parallel.local_slices(batch, axis=0),
  }
  devices = len(feed["positions"])
  feed["variant"] = np.tile(variants, (devices, 1))
  feed["count"] = np.full(devices, end - step, np.int32)
  return feed


@contextlib.contextmanager
def stop_requested() -> Iterator[threading.Event]:
  """Yields an event that SIGTERM and SIGINT set; a second SIGINT interrupts at once."""
  asked = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield asked  # signals can only be caught in the main thread
    return

  def handle(number, frame):
    if asked.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    if number == signal.SIGINT:
      os.write(2, b"\nstopping after this call; Ctrl-C again stops at once\n")
    asked.set()

  previous = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield asked
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
