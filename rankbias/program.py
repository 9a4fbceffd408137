"""A group of members as one program: model, head and data become a state and compiled functions."""

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rankbias import network
from rankbias.config import MEMBER_FIELDS, flatten
from rankbias.data.source import Source
from rankbias.evaluate import Predictor
from rankbias.models import scale_kernels
from rankbias.train import optimizer, parallel, step, temperature

LOOP = 100  # steps a call where a loop costs nothing


class Program(NamedTuple):
  """What `experiment.run` trains and measures.

  Attributes:
    members: how many networks train side by side; the leading axis of every leaf of the state.
    length: the most steps a compiled call runs.
    init: () -> state.
    chunk: pmapped (state, feed, constants) -> (state, metrics).
    constants: () -> the training data on every device.
    rows: step -> int32 [members, batch], the examples it sees.
    variant: step -> which of its static forms its batch has.
    predictor: (params, extra, numbers) of one member -> Predictor.
    anneal: (numbers, step) -> the numbers that hold at that step.
    layers: names of the activations, in forward order.
    numbers: the members' {"temperature", "learning_rate", "weight_decay"}, learning rates after the
      rule in T.
  """

  members: int
  length: int
  init: Callable[[], Any]
  chunk: Callable
  constants: Callable[[], Any]
  rows: Callable[[int], np.ndarray]
  variant: Callable[[int], int]
  predictor: Callable[[Any, Any, Any], Predictor]
  anneal: Callable[[Any, Any], Any]
  layers: tuple[str, ...]
  weight_layers: int
  numbers: list[dict[str, float]]


class Parts(NamedTuple):
  """What programs share whose members differ in numbers alone, so that it compiles once.

  Attributes:
    init: (seeds, {"model", "head": init scales}, numbers) -> state; the others as in `Program`.
  """

  length: int
  init: Callable
  chunk: Callable
  predictor: Callable
  anneal: Callable
  layers: tuple[str, ...]
  weight_layers: int


latest: dict[str, tuple[Source, Parts]] = {}  # of the last program


def build(configs: Sequence[ConfigDict], source: Source) -> Program:
  """Builds the program of members whose configs differ in nothing but `config.MEMBER_FIELDS`.

  What is compiled serves the next program too, if that differs in those fields only.
  """
  config = configs[0]
  parts = shared(config, len(configs), source)
  numbers = [member_numbers(c, parts.weight_layers) for c in configs]
  batch = config.batch_size

  def init():
    seeds = jnp.asarray([c.seed for c in configs], jnp.uint32)
    scales = {
      "model": jnp.asarray([c.init_scale for c in configs], config.dtype),
      "head": jnp.asarray([c.init_scale * c.head_init_scale for c in configs], config.dtype),
    }
    own = {k: jnp.asarray([n[k] for n in numbers], config.dtype) for k in numbers[0]}
    return parts.init(seeds, scales, own)

  return Program(
    **parts._asdict() | {"init": init},
    members=len(configs),
    constants=lambda: parallel.replicate(source.constants()),
    rows=lambda s: np.stack([source.indices("train", s, size=batch, seed=c.seed) for c in configs]),
    variant=source.variant,
    numbers=numbers,
  )


def shared(config: ConfigDict, members: int, source: Source) -> Parts:
  """The parts of the last program where they fit, or new ones."""
  fields = {k: v for k, v in flatten(config).items() if k not in MEMBER_FIELDS}
  key = json.dumps([members, fields], sort_keys=True, default=str)
  if key not in latest or latest[key][0] is not source:
    latest.clear()
    latest[key] = source, make_parts(copy.deepcopy(config), members, source)
  return latest[key][1]


def make_parts(config: ConfigDict, members: int, source: Source) -> Parts:
  """Model, head, optimiser and data as functions to be compiled."""
  model, head = network.build(config, source)
  make_optimizer = optimizer.make_optimizer(config.optimizer.to_dict(), config.steps)

  def init_member(one):
    seed, scales, own = one
    init_key, train_key = jax.random.split(jax.random.key(seed))
    variables, head_variables = network.init_variables(model, head, source, init_key, config.dtype)
    variables |= network.init_carry(model, config.batch_size)
    params = {
      "model": scale_kernels(variables.pop("params"), scales["model"]),
      "head": scale_kernels(head_variables["params"], scales["head"]),
    }
    state = step.init_state(params, variables, jax.random.key_data(train_key), own, make_optimizer)
    return step.with_best(state) if config.select else state

  losses = [network.make_loss(model, head, source, config, v) for v in range(source.variants)]
  rule = config.optimizer.learning_rate_rule
  anneal = temperature.make_anneal(
    config.temperature_schedule.to_dict(), config.steps, rule, model.weight_layers
  )
  steps = [step.make_step(loss, make_optimizer, anneal) for loss in losses]
  if source.epoch:
    steps_per_epoch = -(-source.epoch // config.batch_size)
    steps = [step.with_fit_time(each, steps_per_epoch) for each in steps]
  length = steps_per_call(config)
  apply = network.make_apply(model, partial(source.inputs, dtype=config.dtype))
  apply_head, log_head = network.make_apply_head(head), network.make_log_head(head)
  return Parts(
    length=length,
    # One after another, which compiles in half the time of all at once, to the same bits.
    init=jax.jit(lambda *args: jax.lax.map(init_member, args)),
    chunk=parallel.pmap(step.make_chunk(steps, make_gather(source), members, length)),
    predictor=lambda params, extra, own: Predictor(
      apply,
      {"params": params["model"], **extra},
      apply_head,
      {"params": params["head"]},
      own["temperature"],
      log_head,
    ),
    anneal=anneal,
    layers=model.act_names,
    weight_layers=model.weight_layers,
  )


def member_numbers(config: ConfigDict, weight_layers: int) -> dict[str, float]:
  """A member's numbers, with the learning rate after its rule in T."""
  options = config.optimizer
  factor = optimizer.LEARNING_RATE_RULES[options.learning_rate_rule]
  return {
    "temperature": config.temperature,
    "learning_rate": options.learning_rate * factor(config.temperature, weight_layers),
    "weight_decay": options.weight_decay,
  }


def make_gather(source: Source) -> Callable:
  """Returns (constants, rows, positions) -> batch, on the device."""
  return lambda constants, rows, positions: {
    **source.pick(constants, rows),
    "positions": positions,
  }


def first_member(tree: Any) -> Any:
  """The shapes of one member from those of all."""
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), tree)


def steps_per_call(config: ConfigDict) -> int:
  """Steps per compiled call: as configured, or one for convolutions on CPU and many elsewhere."""
  if config.steps_per_call:
    return min(config.steps_per_call, config.steps)
  if jax.default_backend() == "cpu" and network.convolves(config):
    return 1
  return min(LOOP, config.steps)


def size(built: Program, source: Source, batch_size: int) -> tuple[int, int]:
  """Parameters of one member, and an estimate of the bytes that training takes on one device.

  The estimate counts the state twice (old and new), gradients, the activations of the forward and
  backward pass and the images; what the compiler needs beside is not known before it has run.
  """
  state = jax.eval_shape(built.init)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"])) // built.members
  batch = source.template(batch_size // jax.device_count())
  predictor = built.predictor(*(first_member(state[k]) for k in ("params", "extra", "numbers")))
  activations = jax.eval_shape(predictor.apply, predictor.params, batch)
  held = 2 * nbytes(state) + nbytes(state["params"]) + 2 * built.members * nbytes(activations)
  return parameters, held + nbytes(source.constants())


def nbytes(tree: Any) -> int:
  """Bytes of all arrays, or shapes of arrays, in a tree."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
