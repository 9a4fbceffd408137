"""Trains and measures one program of members in a run folder: run(config, workdir) -> result."""

import importlib
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

from rankbias import data, program, record, result, runs, selection, warm_start
from rankbias.config import did_you_mean, flatten, override, scientific
from rankbias.data.source import Source
from rankbias.evaluate import check_examples, check_layers, check_options, check_splits
from rankbias.models import HEADS, MODELS, build_model, check_head, check_regularizers
from rankbias.train import loop, optimizer, parallel, temperature
from rankbias.train.checkpoint import open_checkpoints
from rankbias.train.progress import Progress

LOG_ROWS = 40  # rows of running loss and accuracy in metrics.jsonl, beside the measured steps
CHECKPOINTS = 10  # over a run, unless the config says otherwise

NOT_LOADED = ("fallback", "crop", "flip")  # fields of config.data that are not the loader's

LEAST = {
  0: (
    *("data.limit", "data.crop", "measure.alignment"),
    *("steps_per_call", "members_per_program", "checkpoint_every", "measure.count"),
  ),
  1: ("steps", "batch_size", "measure.images"),
}


def run(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  *,
  members: Sequence[Mapping[str, Any]] = ({},),
  source: Source | None = None,
  label: str = "",
  programs_left: int = 0,
  sinks: Sequence[Callable] = (),
) -> dict[str, Any]:
  """Trains the members together, measures them, and returns the content of result.json.

  The run folder is <workdir>/<config.name>/<run id>. A finished one is only read; an unfinished one
  is continued from its newest checkpoint, to the same result.

  Args:
    members: overrides of numbers (`rankbias.config.MEMBER_FIELDS`), one dict a member.
    source: the data, when they are loaded already.
    label, programs_left: for the progress line and its estimate.
    sinks: further receivers (folder, rows) of the rows that go to metrics.jsonl.

  Raises:
    ValueError: for a config that cannot run, before anything is trained or written.
    train.loop.Interrupted: on SIGTERM or SIGINT, after a checkpoint.
  """
  configs = [override(config, member) for member in members]
  for each in configs:
    check(each)
  folder = run_folder(config, workdir, members)
  if runs.is_finished(folder):
    return runs.read(folder)["result"]
  if source is None:
    source = load_data(config)
  check_data(config, source)
  built = program.build(configs, source)
  check_layers(config.evaluate, built.layers)
  left_out = record.check_measure(config, built, source)
  prepare_folder(folder, config, members, source)
  log = record.Log(folder, sinks)
  progress = Progress(config.steps, config.batch_size * len(members), label, programs_left)
  if left_out:
    progress.say(f"measure.alignment leaves out {', '.join(left_out)}: no Dense or Conv uses them")
  with one_blas_thread():
    state = train(config, built, source, folder, log, progress)
    began = time.perf_counter()
    content, arrays = result.evaluate(config, configs, built, source, state, progress.say)
  log.timing("evaluate", began)
  content["members"] = [
    {"overrides": dict(member), **entry}
    for member, entry in zip(members, content["members"], strict=True)
  ]
  if record.is_writer():
    runs.finish(folder, content, arrays)
  parallel.wait_for_all("finished")
  return runs.plain(content)


def one_blas_thread() -> threadpool_limits:
  """A context in which LAPACK uses one thread a call.

  XLA runs independent factorisations side by side; threads of OpenBLAS's own on top of that wait
  for each other by spinning, and on a busy machine a measurement of one second took a minute.
  """
  importlib.import_module("scipy.linalg.cython_lapack")  # what jaxlib calls, else loaded too late
  return threadpool_limits(1, user_api="blas")


def check(config: ConfigDict) -> None:
  """Raises ValueError, naming the field, its value and the remedy, for a config that cannot run."""
  known = {
    "data.name": (config.data.name, data.DATASETS),
    "model.name": (config.model.name, MODELS),
    "head.name": (config.head.name, HEADS),
    "dtype": (config.dtype, ("float32", "float64")),
  }
  for field, (name, family) in known.items():
    if name not in family:
      raise ValueError(f"{field}={name!r} is unknown; {did_you_mean(str(name), family)}")
  build_model(**config.model.to_dict())  # raises for its options
  check_head(**config.head.to_dict())
  if not (config.temperature > 0 and math.isfinite(config.temperature)):
    raise ValueError(
      f"temperature={config.temperature} must be a finite number > 0: logits are divided by it"
    )
  for field in ("init_scale", "head_init_scale"):
    if not (config[field] > 0 and math.isfinite(config[field])):
      raise ValueError(f"{field}={config[field]} must be a finite number > 0")
  flat = flatten(config)
  for least, fields in LEAST.items():
    for field in fields:
      if flat[field] < least:
        raise ValueError(f"{field}={flat[field]} must be at least {least}")
  if not 0 <= config.seed < 2**32:
    raise ValueError(f"seed={config.seed} must lie in [0, 2^32)")
  if not 0 <= config.label_smoothing < 1:
    raise ValueError(f"label_smoothing={config.label_smoothing} must lie in [0, 1)")
  if config.dtype == "float64" and not jax.config.jax_enable_x64:
    raise ValueError("dtype='float64' needs 64-bit JAX; start with JAX_ENABLE_X64=1")
  warm_start.check(config)
  check_options(config.evaluate, flat)
  selection.check(config.select, flat)
  optimizer.check(config.optimizer)
  temperature.check(config.temperature_schedule, config.steps)
  check_regularizers(config.regularizers)
  parallel.check_batch(config.batch_size)


def check_data(config: ConfigDict, source: Source) -> None:
  """Raises for what the config asks of data that do not have it."""
  for field in ("crop", "flip"):
    if config.data[field] and source.form is not None:
      raise ValueError(
        f"data.{field}={config.data[field]} is for images, and {source.name!r} has none: leave it "
        "out."
      )
  check_splits(config.evaluate, source.splits)
  check_examples(config.evaluate, source)
  selection.check_data(config.select, source)
  if config.measure.count:
    source.fixed(1)  # raises where nothing can be measured


def load_data(config: ConfigDict) -> Source:
  """Loads the data set that the config names; see `rankbias.data.load` for what it raises."""
  own = config.data.to_dict()
  for field in NOT_LOADED:
    del own[field]
  return data.load(
    own.pop("name"), dir=own.pop("dir") or None, limit=own.pop("limit") or None, **own
  )


def prepare_folder(folder: pathlib.Path, config: ConfigDict, members, source: Source) -> None:
  """Writes what is known before training: the config, and where the run and its data are."""
  if record.is_writer():
    runs.prepare(
      folder,
      name=config.name,
      config=scientific(config),
      members=members,
      environment={**runs.environment(jax.devices()), "data": source.origin},
    )
  parallel.wait_for_all("prepared")


def run_folder(config: ConfigDict, workdir, members) -> pathlib.Path:
  """<workdir>/<config name>/<run id>."""
  return pathlib.Path(workdir) / config.name / runs.run_id(scientific(config), list(members))


def train(config, built, source, folder, log, progress) -> Any:
  """Trains from the newest checkpoint, or from the start, to the end; returns the final state."""
  marks, saves = loop.log_spaced(config.steps, config.measure.count), checkpoint_steps(config)
  running = record.Running(built.members, log)
  with open_checkpoints(folder / "checkpoints") as checkpoints:
    state, start = built.init(), checkpoints.latest() or 0
    if start:
      state = checkpoints.restore(start, state)
      progress.say(f"continues from step {start} of {config.steps}")
    elif config.warm_start:
      state, drawn = warm_start.begin(config.warm_start, state)
      new = f"; not in it and drawn: {', '.join(drawn)}" if drawn else ""
      progress.say(f"begins with the parameters of {config.warm_start}{new}")
    if record.is_writer():
      runs.trim(folder, start if start else -1)
    measures = record.make_measure(config, built, source, log) if marks else None
    hooks = [
      *([loop.Hook(frozenset(marks), measures)] if marks else []),
      *selection.make_hooks(config, built, source, log),
      loop.Hook(frozenset([*marks, *saves, *loop.every(config.steps, LOG_ROWS)]), running.write),
      loop.Hook(frozenset(saves), checkpoints.save),
    ]

    def on_metrics(first, metrics, seconds):
      running.add(metrics)
      count, images = len(metrics["loss"]), progress.batch * len(metrics["loss"])
      loss, accuracy = np.nanmean(running.last, axis=1) if running.alive() else (math.nan,) * 2
      progress.update(first, count, seconds, loss, accuracy)
      event = "train" if progress.calls > 1 else "compile"  # the first call compiles
      log.timing(event, time.perf_counter() - seconds, step=first + count, images=images)

    state = loop.train(
      built.chunk,
      parallel.replicate(state),
      built.constants(),
      rows=built.rows,
      variant=built.variant,
      start=start,
      steps=config.steps,
      length=built.length,
      hooks=hooks,
      on_metrics=on_metrics,
      # The processes of a job notice a signal at different steps and cannot save one state.
      on_interrupt=checkpoints.save if jax.process_count() == 1 else lambda *_: None,
      ended=selection.make_ended(config.select),
    )
    last = int(parallel.fetch(state["step"])[0])
    if last < config.steps:  # ended by patience, between two checkpoints
      checkpoints.save(last, state)
  progress.close()
  return parallel.one_device(state)


def checkpoint_steps(config: ConfigDict) -> list[int]:
  """The steps after which the state is saved, the last one included."""
  if config.checkpoint_every:
    return [*range(config.checkpoint_every, config.steps, config.checkpoint_every), config.steps]
  return loop.every(config.steps, CHECKPOINTS)
