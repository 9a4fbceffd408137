"""Training that begins with the parameters of a finished run instead of drawn ones."""

import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rankbias import runs
from rankbias.train.checkpoint import open_checkpoints


def check(config: ConfigDict) -> None:
  """Raises where `config.warm_start` is no finished run, or parameters would be scaled again."""
  folder = config.warm_start
  if not folder:
    return
  if not runs.is_finished(pathlib.Path(folder)):
    raise ValueError(
      f"warm_start={folder!r} is no folder of a finished run; give one with a result.json, such as "
      "runs/<config>/<run id>"
    )
  for field in ("init_scale", "head_init_scale"):
    if config[field] != 1:
      raise ValueError(
        f"{field}={config[field]} scales drawn parameters, and warm_start={folder!r} reads "
        f"trained ones; set {field}=1"
      )


def begin(folder: str, state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Replaces the parameters of a new state by those that a run ended with.

  A run of one member gives all members their start, one of as many members gives each its own.
  Parameters that the run does not have, such as those of a new part of a model, stay as they were
  drawn; their names are returned. The optimiser begins anew.

  Raises:
    ValueError: the run has parameters that the new network lacks, or of other shapes.
  """
  with open_checkpoints(pathlib.Path(folder) / "checkpoints") as checkpoints:
    step = checkpoints.latest()
    if step is None:
      raise ValueError(f"warm_start={folder!r} has no checkpoint: its folder checkpoints/ is empty")
    saved = checkpoints.restore_as_saved(step)
  kept = saved.get("best", saved)["params"]
  old = {jax.tree_util.keystr(path): leaf for path, leaf in _leaves(kept)}
  drawn = []

  def one(path, leaf):
    name = jax.tree_util.keystr(path)
    if name not in old:
      drawn.append(name)
      return leaf
    value = np.asarray(old.pop(name))
    if value.shape[1:] != leaf.shape[1:] or len(value) not in (1, len(leaf)):
      raise ValueError(
        f"warm_start={folder!r}: the parameter {name} has shape {value.shape} there, members "
        f"first, and {leaf.shape} here; only networks of one shape can begin with it, and a run of "
        "one member or of as many members"
      )
    return np.broadcast_to(value, leaf.shape).astype(leaf.dtype)

  params = jax.tree_util.tree_map_with_path(one, state["params"])
  if old:
    raise ValueError(
      f"warm_start={folder!r} has parameters that this network lacks: {', '.join(sorted(old))}"
    )
  best = {"best": {**state["best"], "params": params}} if "best" in state else {}
  return {**state, "params": params, **best}, drawn


def _leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)
