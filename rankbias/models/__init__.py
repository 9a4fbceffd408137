"""Models and heads by name: apply -> (features, activations), and heads from features to a loss.

Every model is a flax.linen module with the attributes `weight_layers` (head included), `act_names`
(forward order) and `convolves`, and `apply(variables, x, train) -> (features [B, d], {name: act})`;
features of sequences are [B, L, d].
"""

import dataclasses
import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias.models.contexts import Contexts
from rankbias.models.heads import HEADS, Head, LinearHead, MixtureHead
from rankbias.models.lstm import LSTM
from rankbias.models.mlp import MLP
from rankbias.models.regularizers import REGULARIZERS, check_regularizers, penalty
from rankbias.models.resnet import ResNet
from rankbias.models.set_attention import SetAttention
from rankbias.models.transformer import Transformer
from rankbias.models.vgg import VGG
from rankbias.models.vit import ViT

MODELS = {
  "mlp": MLP,
  "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2)),
  "resnet34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3)),
  "vgg": VGG,
  "vit": ViT,
  "set_attention": SetAttention,
  "transformer": Transformer,
  "lstm": LSTM,
  "contexts": Contexts,
}

__all__ = [
  "HEADS",
  "LSTM",
  "MLP",
  "MODELS",
  "REGULARIZERS",
  "VGG",
  "Contexts",
  "Head",
  "LinearHead",
  "MixtureHead",
  "ResNet",
  "SetAttention",
  "Transformer",
  "ViT",
  "build_head",
  "build_model",
  "check_head",
  "check_regularizers",
  "penalty",
  "scale_kernels",
]


def build_model(name: str, **options: Any) -> nn.Module:
  """Makes the model called `name` with its own options, such as width or norm.

  Raises:
    ValueError: for an unknown name or option, with the known ones and the nearest spelling.

  Example: build_model("mlp", depth=4, width=64)
  """
  return _build("model", MODELS, name, options)


def build_head(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Makes the head called `name` for `num_classes` classes; raises as `build_model` does."""
  return _build("head", HEADS, name, {"num_classes": num_classes, **options})


def check_head(name: str, **options: Any) -> None:
  """Raises as `build_head` does, and for values that a head refuses once it gets features.

  Nothing is computed. What depends on the number of classes is not found, as it is not known here.
  """
  head, features = build_head(name, 1000, **options), jax.ShapeDtypeStruct((1, 16), "float32")
  jax.eval_shape(head.init, jax.random.key(0), features)


def scale_kernels(params: Any, scale: jax.Array | float) -> Any:
  """Multiplies every leaf named "kernel" by `scale`, which may be traced; the rest stays.

  This sweeps the initialisation scale: a homogeneous model of L layers grows by scale^L.
  """

  def one(path, leaf):
    is_kernel = getattr(path[-1], "key", None) == "kernel"
    return leaf * jnp.asarray(scale, leaf.dtype) if is_kernel else leaf

  return jax.tree_util.tree_map_with_path(one, params)


def _build(kind: str, family: dict, name: str, options: dict[str, Any]) -> nn.Module:
  if name not in family:
    raise ValueError(_unknown(kind, name, family))
  make = family[name]
  fields = dataclasses.fields(getattr(make, "func", make))
  known = [field.name for field in fields if field.name not in ("parent", "name")]
  for option, value in options.items():
    if option not in known:
      raise ValueError(_unknown(f"option of {kind} {name!r}", option, known))
    if isinstance(value, list):  # modules are hashed, a list has no hash
      options = {**options, option: tuple(value)}
  return make(**options)


def _unknown(kind: str, name: str, known: Any) -> str:
  near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  return f"{name!r} is no known {kind}.{hint} Known: {', '.join(sorted(known))}."
