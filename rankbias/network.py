"""The networks that a config names, as functions of raw examples: loss, activations, logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rankbias.data.source import Source
from rankbias.models import MODELS, build_head, build_model, penalty
from rankbias.train import parallel

DROPOUT = 2  # the child of an example's key for dropout; the data draw from the children 0 and 1
HEAD = 2**32 - 1  # the child of a step's key for the head; the others are positions in the batch
WEIGHTS = 2**32 - 2  # the child of a step's key for dropout of weights, one for the whole batch


def build(config: ConfigDict, source: Source):
  """The model and the head that a config names, as flax modules."""
  types = {"dtype": config.dtype, "param_dtype": config.dtype}
  model_options, head_options = config.model.to_dict(), config.head.to_dict()
  model = build_model(model_options.pop("name"), **model_options, **types, axis_name=parallel.AXIS)
  if getattr(model, "vocabulary", source.num_classes) < source.num_classes:
    raise ValueError(
      f"model.vocabulary={model.vocabulary} is too small: {source.name} has {source.num_classes} "
      f"different tokens. Set model.vocabulary={source.num_classes}."
    )
  head = build_head(head_options.pop("name"), source.num_classes, **head_options, **types)
  if getattr(head, "chunked", False) and config.label_smoothing:
    raise ValueError(
      f"label_smoothing={config.label_smoothing} needs all logits at once, which head.chunked=True "
      "avoids. Set label_smoothing=0 or head.chunked=False."
    )
  return model, head


def init_variables(model, head, source: Source, key, dtype: str) -> tuple[dict, dict]:
  """Draws the initial variables of model and head."""
  model_key, head_key = jax.random.split(key)
  shape = source.template(1)
  x = source.inputs(jnp.zeros(shape.shape, shape.dtype), dtype)
  (features, _), variables = model.init_with_output(model_key, x, False)
  return dict(variables), head.init(head_key, features)


def init_carry(model, count: int) -> dict:
  """What the model carries from step to step, at first: for models with `start`, of all sequences.

  Returns {"carry": ...} or {}, with `count` sequences, the whole batch, on every device.
  """
  return {"carry": {"state": model.start(count)}} if hasattr(model, "start") else {}


def own_rows(extra: dict, positions) -> dict:
  """What this device's sequences carry; the other collections as they are."""
  own = {"carry": jax.tree.map(lambda x: x[positions], extra["carry"])} if "carry" in extra else {}
  return extra | own


def all_rows(updated: dict, before: dict, positions) -> dict:
  """Puts the rows of this device into zeros, times the devices: their mean is the whole batch."""
  if "carry" not in before:
    return updated
  devices = jax.lax.psum(1, parallel.AXIS)
  carry = jax.tree.map(
    lambda rows, whole: jnp.zeros_like(whole).at[positions].set(rows * devices),
    updated["carry"],
    before["carry"],
  )
  return updated | {"carry": carry}


def make_loss(model, head, source: Source, config: ConfigDict, variant: int = 0) -> Callable:
  """The training loss of `train.step.make_step`: examples, network, tempered cross-entropy.

  Where labels have weights, loss and accuracy are weighted means over the whole batch, of all
  devices. The config's regularizers are added to what is minimised; the metric "loss" is the
  cross-entropy without them, and their sum the metric "penalty".
  """

  def loss(params, extra, batch, key, numbers):
    keys = fold_in(key, batch["positions"])
    x, labels, weights = source.examples(
      batch, keys, variant, dtype=config.dtype, crop=config.data.crop, flip=config.data.flip
    )
    (features, _), updated = model.apply(
      {"params": params["model"], **own_rows(extra, batch["positions"])},
      x,
      True,
      jax.vmap(jax.random.fold_in, (0, None))(keys, DROPOUT),
      rngs={"weights": jax.random.fold_in(key, WEIGHTS)},
      mutable=["batch_stats", "carry"],
    )
    extra = all_rows(dict(updated), extra, batch["positions"])
    losses, right = head.apply(
      {"params": params["head"], "batch": {"positions": batch["positions"]}},
      features,
      labels,
      numbers["temperature"],
      config.label_smoothing,
      rngs={"dropout": jax.random.fold_in(key, HEAD)},
      method="scored",
    )
    right = right.astype(losses.dtype)
    if weights is not None:
      weights = weights / jax.lax.pmean(weights.mean(), parallel.AXIS)
      losses, right = losses * weights, right * weights
    value, metrics = losses.mean(), {"accuracy": right.mean()}
    if config.regularizers:
      added = penalty(config.regularizers, params)
      metrics |= {"loss": value, "penalty": added}
      value += added
    return value, (metrics, extra)

  return loss


def make_apply(model, inputs: Callable) -> Callable:
  """The `apply` of a Predictor: raw examples in, evaluation mode unless a key asks for dropout."""

  def apply(params, x, *, key=None, **overrides):
    if key is not None and key.ndim == 0:
      key = fold_in(key, jnp.arange(len(x)))
    return model.clone(**overrides).apply(params, inputs(x), False, key)

  return apply


def fold_in(key, positions) -> jax.Array:
  """One key per example, from its position."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


def make_apply_head(head) -> Callable:
  """The `head` of a Predictor."""
  return lambda variables, features: head.apply(variables, features)


def make_log_head(head) -> Callable:
  """The `log_head` of a Predictor."""
  return lambda variables, features, temperature: head.apply(
    variables, features, temperature, method="log_probs"
  )


def convolves(config: ConfigDict) -> bool:
  """True when the config's model has a convolution."""
  make = MODELS[config.model.name]
  return getattr(make, "func", make).convolves
