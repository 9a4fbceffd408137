"""VGG-11, -13, -16 and -19 for small images: 3x3 convolutions, five poolings, a linear head."""

from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import HE, Norm, check_dropout, check_norm, dropout

# Convolutions per stage; a stage has WIDTHS times the base width and ends in a max pooling.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)


class VGG(nn.Module):
  """Maps images to features by a chain of 3x3 convolutions with pooling between the stages.

      h <- relu(norm(conv3x3(h)))  per convolution,    h <- maxpool2x2(h)  per stage

  This is the usual variant for 32x32 images: where the original has three dense layers, the head is
  the only one, so VGG-16 has 13 + 1 weight layers. Poolings stop at a 1x1 image, so that smaller
  images pass too. Kernels are drawn from N(0, 2 / fan_in) (He), biases are zero.

  Activations are read after every convolution's ReLU, before the pooling; the last one, "pool", is
  what the head gets.

  Attributes:
    layers: 11, 13, 16 or 19, the name of the configuration in the VGG paper.
    width: channels of the first stage.
    norm: "none", "batch" or "layer", between the convolution and the ReLU.
    dropout: the probability with which a feature is dropped, at the end of every stage, when keys
      are given.
    flatten: True hands all positions to the head, False their mean; the same for 32x32 images.
    axis_name: the mapped axis over which "batch" shares its statistics.
    stage_sizes: convolutions per stage in place of those that `layers` names (for tests).

  Source: Simonyan & Zisserman 2014, arXiv:1409.1556.
  """

  layers: int = 16
  width: int = 64
  use_bias: bool = False
  norm: str = "batch"
  dropout: float = 0.0
  flatten: bool = False
  axis_name: str | None = None
  stage_sizes: tuple[int, ...] | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = True

  def __post_init__(self):
    if self.layers not in STAGES:
      raise ValueError(f"layers={self.layers} is no VGG: choose one of {sorted(STAGES)}.")
    if self.stage_sizes is not None and not 1 <= len(self.stage_sizes) <= len(WIDTHS):
      raise ValueError(f"stage_sizes={self.stage_sizes} must have 1 to {len(WIDTHS)} stages.")
    check_norm(self.norm)
    check_dropout(self.dropout)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers, head included."""
    return sum(self.stage_sizes or STAGES[self.layers]) + 1

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order (jit returns a dict in alphabetical order)."""
    return (*(f"conv{i}/relu" for i in range(1, self.weight_layers)), "pool")

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, d] and the activations by name.

    Keys, one per image, switch dropout on.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    acts = {}
    for factor, count in zip(WIDTHS, self.stage_sizes or STAGES[self.layers], strict=False):
      for _ in range(count):
        i = len(acts) + 1
        conv = {"use_bias": self.use_bias, "kernel_init": HE, "name": f"conv{i}"}
        x = nn.Conv(factor * self.width, (3, 3), **conv, **types)(x)
        x = Norm(self.norm, self.axis_name, **types, name=f"conv{i}_norm")(x, train)
        x = acts[f"conv{i}/relu"] = nn.relu(x)
      if min(x.shape[1:3]) > 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
      x = dropout(x, self.dropout, keys, len(acts))
    x = x.reshape(x.shape[0], -1) if self.flatten else x.mean((1, 2))
    acts["pool"] = x
    return x, acts
