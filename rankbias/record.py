"""What is written down while a program trains: running numbers, measurements, durations."""

import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rankbias import runs
from rankbias.data.source import Source
from rankbias.evaluate import (
  Mechanism,
  Predictor,
  check_alignment,
  kernel_names,
  measure_layers,
  measure_mechanism,
)
from rankbias.program import Program, first_member
from rankbias.train import parallel
from rankbias.train.step import over_members


def is_writer() -> bool:
  """One process of a job writes the run folder."""
  return jax.process_index() == 0


class Log:
  """Rows for metrics.jsonl and timing.jsonl, written by one process."""

  def __init__(self, folder: pathlib.Path, sinks: Sequence[Callable]):
    self.folder, self.sinks = folder, (runs.append, *sinks)

  def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    if is_writer() and rows:
      for sink in self.sinks:
        sink(self.folder, rows)

  def timing(self, event: str, began: float, **more: Any) -> None:
    if is_writer():
      row = {"event": event, "seconds": round(time.perf_counter() - began, 4), **more}
      runs.append(self.folder, [row], file="timing.jsonl")


class Running:
  """Loss and accuracy of the training batches, averaged since the last row of each member."""

  def __init__(self, members: int, log: Log):
    self.log, self.parts = log, []
    self.last = np.full((2, members), math.nan)

  def add(self, metrics: Mapping[str, np.ndarray]) -> None:
    self.parts.append(np.stack([metrics["loss"], metrics["accuracy"]], axis=1))
    self.last = self.parts[-1][-1]

  def alive(self) -> bool:
    return bool(np.isfinite(self.last).any())

  def write(self, step: int, state: Any) -> None:
    if not self.parts:
      return
    loss, accuracy = np.concatenate(self.parts).mean(0)
    self.parts = []
    self.log.rows(
      [
        {"step": step, "member": m, "split": "train", "loss": loss[m], "accuracy": accuracy[m]}
        for m in range(len(loss))
        if math.isfinite(loss[m])
      ]
    )


def check_measure(config: ConfigDict, built: Program, source: Source) -> Sequence[str]:
  """Raises where `measure.alignment` is too large; returns the kernels that it leaves out."""
  if not (config.measure.alignment and config.measure.count):
    return ()
  predictor, (x, _) = untrained(built), source.fixed(config.measure.images)
  check_alignment(predictor, x, config.measure.alignment)
  return kernel_names(predictor, x)[1]


def untrained(built: Program) -> Predictor:
  """The predictor of one member, with shapes in the place of numbers."""
  state = jax.eval_shape(built.init)
  return built.predictor(*(first_member(state[k]) for k in ("params", "extra", "numbers")))


def make_measure(config: ConfigDict, built: Program, source: Source, log: Log) -> Callable:
  """The hook that measures norms and ranks on fixed examples, of all members at once.

  The temperature is that of the step, and in the row where it changes.
  """
  x, y = source.fixed(config.measure.images)

  chosen = Mechanism(config.measure.alignment, config.measure.gradients, config.label_smoothing)
  names = [*built.layers, "logits"]
  if chosen.alignment or chosen.gradients:
    used, others = kernel_names(untrained(built), x)
    names += used + others
  position = {layer: i for i, layer in enumerate(names)}

  def forward(row):  # jax.jit returns dicts in alphabetical order
    return dict(sorted(row.items(), key=lambda item: position.get(item[0].split(":")[0], -1)))

  def measure(step, state):
    began = time.perf_counter()
    state = parallel.one_device(state)
    numbers = built.anneal(state["numbers"], step)
    trained = (state["params"], state["extra"], numbers)
    rows = measure_members(built.predictor, built.members, trained, x, y, chosen)
    rows = jax.device_get(rows)
    members = np.flatnonzero(np.asarray(state["stopped_at"]) < 0).tolist()
    own = [{name: values[m].tolist() for name, values in forward(rows).items()} for m in members]
    heads = [{"step": step, "member": m, "split": "measure"} for m in members]
    if config.temperature_schedule:
      now = np.asarray(numbers["temperature"]).tolist()
      heads = [head | {"temperature": now[head["member"]]} for head in heads]
    log.rows([head | row for head, row in zip(heads, own, strict=True)])
    log.timing("measure", began, step=step)

  return measure


@partial(jax.jit, static_argnums=(0, 1, 5))
def measure_members(
  predictor: Callable, members: int, trained: Any, x, y, chosen: Mechanism
) -> dict[str, Any]:
  """Measures all members; programs that share their parts share what is compiled here."""

  def member(params, extra, numbers):
    own = predictor(params, extra, numbers)
    return measure_layers(own, x, y) | measure_mechanism(own, x, y, chosen)

  return over_members(member, members)(*trained)
