"""Temperatures that change while training, and the learning rate that goes with them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from rankbias.train.optimizer import LEARNING_RATE_RULES

# T as a function of its first value, its last, and the share of the way gone.
KINDS: dict[str, Callable] = {
  "linear": lambda start, end, gone: start + (end - start) * gone,
  "cosine": lambda start, end, gone: start + (end - start) * (1 - jnp.cos(jnp.pi * gone)) / 2,
  "geometric": lambda start, end, gone: start * (end / start) ** gone,
}


def make_anneal(options: Mapping[str, Any], steps: int, rule: str, weight_layers: int) -> Callable:
  """Returns `anneal(numbers, step) -> numbers`: what holds of a member at that step.

      T(step) = kind(start, T, min(step / length, 1))      lr(step) = lr rule(T(step) / T)

  T is the member's own temperature, with which training ends and with which everything is evaluated
  at the end, so that members whose T differ share a program; `start` may be below it or above. The
  learning rate is that of the rule at T(step), as rules are powers of T.

  Args:
    options: empty, where numbers stay as they are, or {"kind": one of `KINDS`, "start": the
      temperature of step 0, "steps": length, all of them if it is left out}.
    steps: of the whole run; rule: of `LEARNING_RATE_RULES`, for `weight_layers` layers.
  """
  if not options:
    return lambda numbers, step: numbers
  kind, start, length = KINDS[options["kind"]], options["start"], options.get("steps") or steps
  factor = LEARNING_RATE_RULES[rule]

  def anneal(numbers, step):
    end = numbers["temperature"]
    gone = jnp.asarray(step, end.dtype) / length
    now = jnp.where(gone < 1, kind(jnp.asarray(start, end.dtype), end, gone), end)
    rate = numbers["learning_rate"] * factor(now / end, weight_layers)
    return numbers | {"temperature": now, "learning_rate": rate.astype(end.dtype)}

  return anneal


def check(options: Any, steps: int) -> None:
  """Raises for a `temperature_schedule` that cannot be."""
  if not hasattr(options, "items"):
    raise ValueError(
      f"temperature_schedule={options!r} must be empty or "
      '{"kind": "geometric", "start": 100.0}, from there to temperature'
    )
  if not options:
    return
  known = ("kind", "start", "steps")
  for name in options:
    if name not in known:
      raise ValueError(f"temperature_schedule.{name} is unknown; use {', '.join(known)}")
  for name in known[:2]:
    if name not in options:
      raise ValueError(
        f'temperature_schedule.{name} is missing; give {{"kind": "geometric", "start": 100.0}}'
      )
  if options["kind"] not in KINDS:
    raise ValueError(
      f"temperature_schedule.kind={options['kind']!r} is unknown; use {', '.join(KINDS)}"
    )
  if not (options["start"] > 0 and math.isfinite(options["start"])):
    raise ValueError(
      f"temperature_schedule.start={options['start']!r} must be a finite number > 0: logits are "
      "divided by it"
    )
  if not 0 <= (options.get("steps") or 0) <= steps:
    raise ValueError(
      f"temperature_schedule.steps={options['steps']} must lie in [0, steps={steps}], 0 for all of "
      "them: training ends at the temperature that is evaluated"
    )
