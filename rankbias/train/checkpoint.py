"""Checkpoints of a training state, by Orbax: the newest complete one is what a run resumes from."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from rankbias.train import parallel


class Checkpoints(NamedTuple):
  """An open folder of checkpoints."""

  manager: ocp.CheckpointManager

  def save(self, step: int, state: Any) -> None:
    """Starts writing `state`; every process of a job must call this."""
    if step not in self.manager.all_steps():
      self.manager.save(step, args=ocp.args.StandardSave(parallel.fetch(state)), force=True)

  def latest(self) -> int | None:
    """The step of the newest complete checkpoint; one cut short by a kill does not count."""
    return self.manager.latest_step()

  def restore(self, step: int, like: Any) -> Any:
    """Reads the state of `step` as NumPy arrays, in the structure, shapes and dtypes of `like`."""
    target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    return self.manager.restore(step, args=ocp.args.StandardRestore(target))

  def restore_as_saved(self, step: int) -> Any:
    """Reads the state of `step` as NumPy arrays, whatever its structure."""
    return self.manager.restore(step, args=ocp.args.StandardRestore())


@contextlib.contextmanager
def open_checkpoints(folder: str | pathlib.Path, *, keep: int = 2) -> Iterator[Checkpoints]:
  """Opens `folder` for saving and restoring; on leaving, a running save is completed."""
  options = ocp.CheckpointManagerOptions(max_to_keep=keep)
  with ocp.CheckpointManager(pathlib.Path(folder).absolute(), options=options) as manager:
    yield Checkpoints(manager)
