"""What a program found: the content of result.json and arrays.npz."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rankbias.evaluate import COMPARISONS, EVALUATIONS, TOGETHER, Predictor
from rankbias.train.progress import clock

QUIET = 20  # seconds without a word about evaluations that last

MEASURED = ("train", "test", "norms", "ranks", "tolerance")  # of a member; null where not measured
# {name: array}, kept out of result.json
ARRAYS = ("spectrum", "spectrum_centered", "weights", "curves")
COMPARED = ("similarity",)  # the same of all members together, "similarity/<layer>"


def evaluate(config, configs, built, source, state, say: Callable) -> tuple[dict, dict]:
  """Runs the config's evaluations on every member; returns result.json and arrays.npz."""
  entries, predictors, arrays = [], [], {}
  for m, own in enumerate(configs):
    one = jax.tree.map(lambda x, m=m: x[m], state)
    entries.append(outcome(own, built.numbers[m], jax.device_get(one)))
    trained = one.get("best", one)
    predictor = built.predictor(trained["params"], trained["extra"], one["numbers"])
    predictors.append(predictor if entries[m]["status"] == "finished" else None)
  data = [source.seen_by(own.seed) for own in configs]
  together = at_once(config.evaluate, predictors, data)
  began = spoke = time.perf_counter()
  for m, (entry, predictor) in enumerate(zip(entries, predictors, strict=True)):
    for name, options in config.evaluate.items() if predictor else ():
      if name in TOGETHER:
        entry |= together[name][m]
      elif name in EVALUATIONS:
        entry |= EVALUATIONS[name](predictor, data[m], **options)
    for kind in ARRAYS:
      arrays |= {f"{m}/{kind}/{name}": array for name, array in entry.pop(kind, {}).items()}
    now, done, left = time.perf_counter(), m + 1, len(entries) - m - 1
    if left and now - spoke > QUIET:
      spoke, each = now, (now - began) / done
      say(f"evaluated {done} of {len(entries)} members, about {clock(each * left)} left")
  compared = {name: own for name, own in config.evaluate.items() if name in COMPARISONS}
  between = {}
  for name, options in compared.items():
    between |= COMPARISONS[name](predictors, source.seen_by(config.seed), **options)
  for kind in COMPARED:
    arrays |= {f"{kind}/{name}": array for name, array in between.pop(kind, {}).items()}
  params = state["params"]
  result = {
    "format": 1,
    "name": config.name,
    "data": {
      "name": source.name,
      **{name: len(split["y"]) for name, split in source.splits.items()},
      "classes": source.num_classes,
    },
    "model": {
      "name": config.model.name,
      "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
      "weight_layers": built.weight_layers,
      "layers": list(built.layers),
    },
    "members": entries,
  } | ({"between": between} if compared else {})
  return result, arrays


def at_once(
  chosen: Mapping[str, Mapping[str, Any]], predictors: Sequence[Predictor | None], data: Sequence
) -> dict[str, dict[int, dict[str, Any]]]:
  """The evaluations in `TOGETHER` of the members that finished: {evaluation: {member: found}}.

  One call serves all members whose data are the same object.
  """
  alike = {}
  for m, predictor in enumerate(predictors):
    if predictor is not None:
      alike.setdefault(id(data[m]), []).append(m)
  found = {}
  for name, options in chosen.items():
    for members in alike.values() if name in TOGETHER else ():
      own = TOGETHER[name]([predictors[m] for m in members], data[members[0]], **options)
      found.setdefault(name, {}).update(zip(members, own, strict=True))
  return found


def outcome(config: ConfigDict, numbers: Mapping[str, float], state: Any) -> dict[str, Any]:
  """What became of a member, from its final state."""
  stopped, fitted = int(state["stopped_at"]), int(state["fitted_at"])
  best = state.get("best")
  kept = {"best": {"step": int(best["step"]), "loss": float(best["loss"])}} if best else {}
  return {
    "temperature": config.temperature,
    "seed": config.seed,
    "learning_rate": numbers["learning_rate"],
    "steps": int(state["step"]),
    "status": "diverged" if stopped >= 0 else "finished",
    "stopped_at": stopped if stopped >= 0 else None,
    "last": {name: float(state["last"][name]) for name in ("loss", "accuracy")},
    "step_99": fitted if fitted >= 0 else None,
    **kept,
    **dict.fromkeys(MEASURED),
  }
