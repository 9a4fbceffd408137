"""A trained run in, a smaller network out: low-rank layers or an early end, saved and read back."""

import pathlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rankbias import network, runs
from rankbias.config import override
from rankbias.evaluate import Predictor
from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.compress import fraction_ranks, incoming_ranks, inputs_of_layers, shrink
from rankbias.evaluate.cut import cut_at, cut_probes, make_cut, scores, superfluous_after
from rankbias.evaluate.factors import parameters, with_factors
from rankbias.train.checkpoint import open_checkpoints

IMAGES, ROWS = 512, 4096  # from which the inputs of the layers are known
AUTO = "auto"  # a cut at the first layer after which others are superfluous
SAME = 1e-6  # what reading back may change of a loss, relatively


def read_member(folder: str | pathlib.Path, member: int = 0) -> ConfigDict:
  """Returns the config of a member of a finished run, and checks that it can be operated on.

  Raises:
    ValueError: the run is not finished, lacks the member, or its member diverged.
  """
  folder = pathlib.Path(folder)
  if not runs.is_finished(folder):
    raise ValueError(
      f"folder {str(folder)!r} is no finished run: it has no result.json; give one such as "
      "runs/<config>/<run id>"
    )
  run = runs.read(folder)
  if "surgery" in run["config"]:
    raise ValueError(f"folder {str(folder)!r} holds a smaller network already; give its run")
  found = run["result"]["members"]
  if not 0 <= member < len(found):
    raise ValueError(f"member={member} is not in {str(folder)!r}: it has 0 to {len(found) - 1}")
  if found[member]["status"] != "finished":
    raise ValueError(f"member={member} of {str(folder)!r} diverged: there is no network to shrink")
  return override(ConfigDict(run["config"]), run["members"][member])


def load(folder: str | pathlib.Path, source: Any, member: int = 0) -> Predictor:
  """The network that a member of a finished run ended with, as a predictor.

  Args:
    source: the data that it was trained on, which know how examples enter the network.

  Raises:
    ValueError: as `read_member`; or there is no checkpoint.
  """
  config = read_member(folder, member)
  saved = _restore(folder)
  numbers = saved["numbers"]
  kept = saved.get("best", saved)
  own, extra, numbers = jax.tree.map(
    lambda leaf: np.asarray(leaf)[member], (kept["params"], kept.get("extra") or {}, numbers)
  )
  variables = {"params": own["model"], **extra}
  return _predictor(config, source, variables, {"params": own["head"]}, numbers["temperature"])


def shrunk(
  predictor: Predictor,
  source: Any,
  *,
  rtol: float | None = None,
  fraction: float | None = None,
  ranks: Mapping[str, int] | None = None,
  cut: str = "",
  tolerance: float | None = None,
  method: str = "activations",
) -> tuple[Predictor, dict[str, Any]]:
  """The smaller network that one of the options names, and what was done, for `save`.

  Args:
    rtol: every layer at the covariance rank of its inputs, as in `evaluate.compress`.
    fraction: every layer at this part of its full rank.
    ranks: {layer: rank} of the layers to truncate.
    cut: a layer, whose ridge probe replaces everything after it; "auto" finds the first one that
      is as good as the last hidden layer (`evaluate.cut.superfluous_after`).
    tolerance: of "auto", a share of right answers; None is one standard error.
    method: what a truncation keeps best, "activations" or "weights".

  Raises:
    ValueError: not exactly one option is given, a layer is unknown, a rank too large, or nothing
      would become smaller.
  """
  given = {"rtol": rtol, "fraction": fraction, "ranks": ranks, "cut": cut or None}
  chosen = _one_of(given, method, tolerance)
  if cut:
    found = superfluous_after(predictor, source, tolerance) if cut == AUTO else {}
    layer = found.get("layer", cut)
    small = cut_at(predictor, source, layer, cut_probes(predictor, source, [layer])[layer])
    done = {"cut": layer} | ({"superfluous_after": found} if found else {})
  else:
    maps = inputs_of_layers(predictor, source, IMAGES, ROWS)
    if rtol is not None:
      ranks = incoming_ranks(maps, rtol)
    elif fraction is not None:
      ranks = fraction_ranks(maps, fraction)
    small, kept = shrink(predictor, maps, ranks, method)
    done = {**chosen, "method": method, "ranks": kept}
  before, after = _count(predictor), _count(small)
  if after >= before:
    options = ", ".join(f"{k}={v}" for k, v in chosen.items())
    raise ValueError(f"{options} saves none of {before:,} parameters: {_why_not(done, after)}")
  return small, done


def save(
  small: Predictor,
  folder: str | pathlib.Path,
  run: str | pathlib.Path,
  source: Any,
  done: Mapping[str, Any],
  member: int,
) -> dict[str, Any]:
  """Writes the smaller network, reads it back and returns the content of its result.json.

  The folder has the files of a run: config.json (with "surgery", what was done), checkpoints/ and,
  last, result.json with the parameters, loss and accuracy of the network before and after; a cut
  one has scores of a ridge, and so no loss.

  Args:
    done, member: as `shrunk` returned it, and of which member of the run.

  Raises:
    ValueError: the folder holds something already, or what is read back is not what was written.
  """
  folder = pathlib.Path(folder)
  if (folder / "config.json").exists():
    raise ValueError(f"folder {str(folder)!r} holds a network already; choose another")
  whole, saved_run = load(run, source, member), runs.read(run)
  identity = {"surgery": {"run": pathlib.Path(run).name, "member": member, **done}}
  config = {**saved_run["config"], **identity}
  runs.prepare(
    folder,
    name=saved_run["name"],
    config=config,
    members=[saved_run["members"][member]],
    environment=runs.environment(jax.devices()),
  )
  state = {
    "params": small.params,
    "head": small.head_params,
    "temperature": np.asarray(small.temperature),
  }
  with open_checkpoints(folder / "checkpoints") as checkpoints:
    checkpoints.save(0, state)
  split = source.splits["test"]
  before, after = (
    {"parameters": _count(each), **split_accuracy(each, split)} for each in (whole, small)
  )
  again = split_accuracy(load_small(folder, source), split)
  same = np.isclose(again["loss"], after["loss"], rtol=SAME, atol=SAME, equal_nan=True)
  if again["accuracy"] != after["accuracy"] or not same:
    raise ValueError(f"folder {str(folder)!r}: read back, the network says {again}, not {after}")
  if "cut" in done:
    del after["loss"]
  saved = 1 - after["parameters"] / before["parameters"]
  result = {"format": 1, "surgery": dict(done), "before": before, "after": after, "saved": saved}
  runs.finish(folder, result, {})
  return result


def load_small(folder: str | pathlib.Path, source: Any) -> Predictor:
  """The smaller network that `save` wrote, as a predictor.

  Raises:
    ValueError: the folder holds no such network.
  """
  run = runs.read(folder)
  config = dict(run["config"])
  done = config.pop("surgery", None)
  if done is None:
    raise ValueError(f"folder {str(folder)!r} holds a whole network: read it with surgery.load")
  saved = _restore(folder)
  config = override(ConfigDict(config), run["members"][0])
  params, temperature = saved["params"], saved["temperature"]
  predictor = _predictor(config, source, params, saved["head"], temperature)
  if "cut" not in done:
    return predictor._replace(apply=with_factors(predictor.apply))
  model, head = network.build(config, source)
  shapes, _ = jax.eval_shape(
    lambda: network.init_variables(model, head, source, jax.random.key(0), config.dtype)
  )
  params = {"params": {}, "other": {}} | params  # Orbax leaves out what is empty
  apply = make_cut(predictor.apply, shapes, done["cut"])
  return Predictor(apply, params, scores, saved["head"], temperature)


def _one_of(given, method, tolerance) -> dict[str, Any]:
  """The only option that is given; raises for several and for what cannot be meant."""
  chosen = {name: value for name, value in given.items() if value is not None}
  if len(chosen) != 1:
    raise ValueError(f"give exactly one of {', '.join(given)}; got {', '.join(chosen) or 'none'}")
  for name in ("rtol", "fraction"):
    if not 0 < chosen.get(name, 0.5) < 1:
      raise ValueError(f"{name}={chosen[name]} must lie between 0 and 1")
  if method not in ("activations", "weights"):
    raise ValueError(f"method={method!r} is unknown; use activations or weights")
  if tolerance is not None and chosen.get("cut") != AUTO:
    raise ValueError(f"tolerance={tolerance} is that of cut={AUTO!r}: leave it out")
  return chosen


def _why_not(done, after) -> str:
  """Why a network would not become smaller."""
  if "cut" in done:
    return f"the layers up to {done['cut']!r} and its probe have {after:,}; only earlier cuts save"
  return "two factors of a rank r are smaller where r (d + m) < d m; choose a coarser one"


def _predictor(config, source, variables, head_variables, temperature) -> Predictor:
  model, head = network.build(config, source)
  return Predictor(
    network.make_apply(model, partial(source.inputs, dtype=config.dtype)),
    variables,
    network.make_apply_head(head),
    head_variables,
    temperature,
    network.make_log_head(head),
  )


def _restore(folder):
  with open_checkpoints(pathlib.Path(folder) / "checkpoints") as checkpoints:
    step = checkpoints.latest()
    if step is None:
      raise ValueError(f"folder {str(folder)!r} has no checkpoint: its checkpoints/ is empty")
    return checkpoints.restore_as_saved(step)


def _count(predictor) -> int:
  return parameters(predictor.params["params"], predictor.head_params)
