"""Optimisers with numbers that may differ per member, schedules, and learning-rate rules in T."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

# Learning rate as a function of temperature: base rate times rule(T, L), L weight layers.
LEARNING_RATE_RULES: dict[str, Callable[[float, int], float]] = {
  "same": lambda temperature, layers: 1.0,
  # The rate of the same network with initial weights scaled by T^(-1/L) and trained at T = 1, for
  # a homogeneous network: see docs/math.md.
  "equivalent": lambda temperature, layers: temperature ** (2 / layers),
  "linear": lambda temperature, layers: temperature,
  # Keeps the function-space speed of the linearised network.
  "quadratic": lambda temperature, layers: temperature**2,
}


def sgd(learning_rate, weight_decay, options: Mapping[str, Any]) -> optax.GradientTransformation:
  """Gradient descent with heavy-ball momentum; the decay is added to the gradient."""
  rule = optax.sgd(learning_rate, momentum=options["momentum"] or None)
  return optax.chain(optax.add_decayed_weights(weight_decay), rule)


def adam(learning_rate, weight_decay, options: Mapping[str, Any]) -> optax.GradientTransformation:
  """Adam with its usual moments (0.9, 0.999); the decay is added to the gradient (L2)."""
  return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))


def adamw(learning_rate, weight_decay, options: Mapping[str, Any]) -> optax.GradientTransformation:
  """Adam with decoupled decay: weights shrink by learning rate times decay, beside Adam's step."""
  return optax.adamw(learning_rate, weight_decay=weight_decay)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw}


def constant(options: Mapping[str, Any], steps: int):
  """No change."""
  return lambda step: 1.0


def cosine(options: Mapping[str, Any], steps: int):
  """Half a period of a cosine, from 1 to 0."""
  return optax.cosine_decay_schedule(1.0, max(steps - options["warmup_steps"], 1))


def step_decay(options: Mapping[str, Any], steps: int):
  """A factor 0.1 at one half and at three quarters of the run."""
  steps -= options["warmup_steps"]
  return optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1})


SCHEDULES = {"constant": constant, "cosine": cosine, "step": step_decay}


def make_schedule(options: Mapping[str, Any], steps: int) -> Callable:
  """The learning rate's factor as a function of the step, after a linear warm-up from zero."""
  after = SCHEDULES[options["schedule"]](options, steps)
  warmup = options["warmup_steps"]
  if not warmup:
    return after
  return lambda step: jnp.where(step < warmup, (step + 1) / warmup, after(step - warmup))


def make_optimizer(options: Mapping[str, Any], steps: int) -> Callable:
  """Returns `build(numbers) -> optax.GradientTransformation`.

  `numbers` holds this member's "learning_rate" and "weight_decay", possibly traced, so that members
  with different numbers share one program. Parameters are {"model": ..., "head": ...}; the head has
  factors of its own on both numbers. Weight decay is the gradient of (decay / 2) ||w||^2, added
  before momentum or Adam's moments; `adamw` alone shrinks the weights beside Adam's step.
  """
  schedule = make_schedule(options, steps)
  rule = OPTIMIZERS[options["name"]]

  def group(learning_rate, weight_decay):
    return rule(lambda step: learning_rate * schedule(step), weight_decay, options)

  def build(numbers) -> optax.GradientTransformation:
    rate, decay = numbers["learning_rate"], numbers["weight_decay"]
    groups = {
      "model": group(rate, decay),
      "head": group(rate * options["head_learning_rate"], decay * options["head_weight_decay"]),
    }
    optimizer = optax.partition(groups, {"model": "model", "head": "head"})
    if options["clip_norm"]:
      optimizer = optax.chain(optax.clip_by_global_norm(options["clip_norm"]), optimizer)
    return optimizer

  return build


def check(options: Mapping[str, Any]) -> None:
  """Raises for an optimiser that cannot train: unknown names and numbers out of range."""
  families = {
    "name": OPTIMIZERS,
    "schedule": SCHEDULES,
    "learning_rate_rule": LEARNING_RATE_RULES,
  }
  for field, family in families.items():
    if options[field] not in family:
      raise ValueError(f"optimizer.{field}={options[field]!r} is unknown; use {', '.join(family)}")
  for field in (
    *("learning_rate", "weight_decay", "head_learning_rate", "head_weight_decay"),
    *("momentum", "clip_norm", "warmup_steps"),
  ):
    if not (math.isfinite(options[field]) and options[field] >= 0):
      raise ValueError(f"optimizer.{field}={options[field]!r} must be a finite number >= 0")
