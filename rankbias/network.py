"""The networks that a config names, as functions of raw images: loss, activations, logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rankbias.data.augment import augment
from rankbias.data.source import Source
from rankbias.models import build_head, build_model
from rankbias.train import parallel

DROPOUT = 2  # the child of an image's key for dropout; augmentation draws from the children 0 and 1


def build(config: ConfigDict, source: Source):
  """The model and the head that a config names, as flax modules."""
  types = {"dtype": config.dtype, "param_dtype": config.dtype}
  model_options, head_options = config.model.to_dict(), config.head.to_dict()
  model = build_model(model_options.pop("name"), **model_options, **types, axis_name=parallel.AXIS)
  head = build_head(head_options.pop("name"), source.num_classes, **head_options, **types)
  return model, head


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
    keys = fold_in(key, batch["positions"])
    x = augment(batch["x"], keys, pad=config.data.crop, flip=config.data.flip)
    (features, _), extra = model.apply(
      {"params": params["model"], **extra},
      normalize(x),
      True,
      jax.vmap(jax.random.fold_in, (0, None))(keys, DROPOUT),
      mutable=["batch_stats"],
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


def make_apply(model, normalize: Callable) -> Callable:
  """The `apply` of a Predictor: raw images in, evaluation mode unless a key switches dropout on."""

  def apply(params, x, *, key=None, **overrides):
    if key is not None and key.ndim == 0:
      key = fold_in(key, jnp.arange(len(x)))
    return model.clone(**overrides).apply(params, normalize(x), False, key)

  return apply


def fold_in(key, positions) -> jax.Array:
  """One key per image, from its position."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)


def make_apply_head(head) -> Callable:
  """The `head` of a Predictor."""
  return lambda variables, features: head.apply(variables, features)


def convolves(config: ConfigDict) -> bool:
  """True when the config's model has a convolution."""
  options = config.model.to_dict()
  model = build_model(options.pop("name"), **options)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
  shapes = jax.eval_shape(lambda key, x: model.init(key, x, False), jax.random.key(0), image)
  return any(leaf.ndim == 4 for leaf in jax.tree.leaves(shapes))
