"""A group of members as one program: model, head and data become a state and compiled functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rankbias.data.augment import augment
from rankbias.data.source import Source
from rankbias.evaluate import Predictor
from rankbias.models import build_head, build_model, scale_kernels
from rankbias.train import optimizer, parallel, step

LOOP = 100  # steps a call where a loop costs nothing


class Program(NamedTuple):
  """What `experiment.run` trains and measures.

  Attributes:
    members: how many networks train side by side; the leading axis of every leaf of the state.
    length: the most steps a compiled call runs.
    init: () -> state.
    chunk: pmapped (state, feed, constants) -> (state, metrics).
    constants: () -> the training images on every device.
    rows: step -> int32 [members, batch], the images it sees.
    predictor: (params, extra, numbers) of one member -> Predictor.
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
  predictor: Callable[[Any, Any, Any], Predictor]
  layers: tuple[str, ...]
  weight_layers: int
  numbers: list[dict[str, float]]


def build(configs: Sequence[ConfigDict], source: Source) -> Program:
  """Builds the program of members whose configs differ in nothing but `config.MEMBER_FIELDS`."""
  config, members = configs[0], len(configs)
  model, head = networks(config, source)
  normalize = make_normalize(source, config.dtype)
  make_optimizer = optimizer.make_optimizer(config.optimizer.to_dict(), config.steps)
  numbers = [member_numbers(c, model.weight_layers) for c in configs]
  batch = config.batch_size

  def init_member(seed, scale, own):
    init_key, train_key = jax.random.split(jax.random.key(seed))
    variables, head_variables = init_variables(model, head, source, init_key, normalize)
    params = {
      "model": scale_kernels(variables.pop("params"), scale),
      "head": scale_kernels(head_variables["params"], scale),
    }
    return step.init_state(params, variables, jax.random.key_data(train_key), own, make_optimizer)

  def init():
    seeds = jnp.asarray([c.seed for c in configs], jnp.uint32)
    scales = jnp.asarray([c.init_scale for c in configs], config.dtype)
    own = {k: jnp.asarray([n[k] for n in numbers], config.dtype) for k in numbers[0]}
    # One after another, which compiles in half the time of all at once, to the same bits.
    every = jax.jit(lambda *args: jax.lax.map(lambda one: init_member(*one), args))
    return every(seeds, scales, own)

  train_step = step.with_fit_time(
    step.make_step(make_loss(model, head, normalize, config), make_optimizer),
    steps_per_epoch=-(-len(source.splits["train"]["y"]) // batch),
  )
  length = steps_per_call(config)
  apply, apply_head = make_apply(model, normalize), make_apply_head(head)
  return Program(
    members=members,
    length=length,
    init=init,
    chunk=parallel.pmap(step.make_chunk(train_step, gather, members, length)),
    constants=lambda: parallel.replicate(source.splits["train"]),
    rows=lambda s: np.stack([source.indices("train", s, size=batch, seed=c.seed) for c in configs]),
    predictor=lambda params, extra, own: Predictor(
      apply,
      {"params": params["model"], **extra},
      apply_head,
      {"params": params["head"]},
      own["temperature"],
    ),
    layers=model.act_names,
    weight_layers=model.weight_layers,
    numbers=numbers,
  )


def networks(config: ConfigDict, source: Source):
  """The model and the head that a config names, as flax modules."""
  types = {"dtype": config.dtype, "param_dtype": config.dtype}
  model_options, head_options = config.model.to_dict(), config.head.to_dict()
  model = build_model(model_options.pop("name"), **model_options, **types, axis_name=parallel.AXIS)
  head = build_head(head_options.pop("name"), source.num_classes, **head_options, **types)
  return model, head


def member_numbers(config: ConfigDict, weight_layers: int) -> dict[str, float]:
  """A member's numbers, with the learning rate after its rule in T."""
  options = config.optimizer
  factor = optimizer.LEARNING_RATE_RULES[options.learning_rate_rule]
  return {
    "temperature": config.temperature,
    "learning_rate": options.learning_rate * factor(config.temperature, weight_layers),
    "weight_decay": options.weight_decay,
  }


def make_normalize(source: Source, dtype: str) -> Callable:
  """uint8 images -> zero mean and unit variance per channel of the training images."""
  mean, std = np.asarray(source.mean, dtype), np.asarray(source.std, dtype)

  def normalize(x):
    return ((x.astype(dtype) / 255) - mean.reshape(1, 1, 1, -1)) / std.reshape(1, 1, 1, -1)

  return normalize


def init_variables(model, head, source: Source, key, normalize) -> tuple[dict, dict]:
  """Draws the initial variables of model and head."""
  model_key, head_key = jax.random.split(key)
  x = normalize(jnp.zeros((1, *source.shape), jnp.uint8))
  (features, _), variables = model.init_with_output(model_key, x, False)
  return dict(variables), head.init(head_key, features)


def make_loss(model, head, normalize: Callable, config: ConfigDict) -> Callable:
  """The training loss of `train.step.make_step`: augmentation, network, tempered cross-entropy."""

  def loss(params, extra, batch, key, numbers):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["positions"])
    x = augment(batch["x"], keys, pad=config.data.crop, flip=config.data.flip)
    (features, _), extra = model.apply(
      {"params": params["model"], **extra}, normalize(x), True, mutable=["batch_stats"]
    )
    variables, labels = {"params": params["head"]}, batch["y"]
    losses = head.apply(
      variables,
      features,
      labels,
      temperature=numbers["temperature"],
      label_smoothing=config.label_smoothing,
      method="loss",
    )
    right = jnp.argmax(head.apply(variables, features), -1) == labels
    return losses.mean(), ({"accuracy": right.mean(dtype=losses.dtype)}, dict(extra))

  return loss


def gather(constants: Mapping[str, Any], rows, positions) -> dict[str, Any]:
  """Picks a batch's images on the device."""
  return {"x": constants["x"][rows], "y": constants["y"][rows], "positions": positions}


def make_apply(model, normalize: Callable) -> Callable:
  """The `apply` of a Predictor: raw images in, evaluation mode unless a key switches dropout on."""

  def apply(params, x, *, key=None, **overrides):
    rngs = None if key is None else {"dropout": key}
    return model.clone(**overrides).apply(params, normalize(x), False, rngs=rngs)

  return apply


def make_apply_head(head) -> Callable:
  """The `head` of a Predictor."""
  return lambda variables, features: head.apply(variables, features)


def images(source: Source, count: int) -> jax.ShapeDtypeStruct:
  """The shape of `count` raw images."""
  return jax.ShapeDtypeStruct((count, *source.shape), jnp.uint8)


def first_member(tree: Any) -> Any:
  """The shapes of one member from those of all."""
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), tree)


def convolves(config: ConfigDict) -> bool:
  """True when the config's model has a convolution."""
  options = config.model.to_dict()
  model = build_model(options.pop("name"), **options)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
  shapes = jax.eval_shape(lambda key, x: model.init(key, x, False), jax.random.key(0), image)
  return any(leaf.ndim == 4 for leaf in jax.tree.leaves(shapes))


def steps_per_call(config: ConfigDict) -> int:
  """Steps per compiled call: as configured, or one for convolutions on CPU and many elsewhere."""
  if config.steps_per_call:
    return min(config.steps_per_call, config.steps)
  if jax.default_backend() == "cpu" and convolves(config):
    return 1
  return min(LOOP, config.steps)


def size(built: Program, source: Source, batch_size: int) -> tuple[int, int]:
  """Parameters of one member, and an estimate of the bytes that training takes on one device.

  The estimate counts the state twice (old and new), gradients, the activations of the forward and
  backward pass and the images; what the compiler needs beside is not known before it has run.
  """
  state = jax.eval_shape(built.init)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"])) // built.members
  batch = images(source, batch_size // jax.device_count())
  predictor = built.predictor(*(first_member(state[k]) for k in ("params", "extra", "numbers")))
  activations = jax.eval_shape(predictor.apply, predictor.params, batch)
  held = 2 * nbytes(state) + nbytes(state["params"]) + 2 * built.members * nbytes(activations)
  return parameters, held + source.splits["train"]["x"].nbytes


def nbytes(tree: Any) -> int:
  """Bytes of all arrays, or shapes of arrays, in a tree."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
