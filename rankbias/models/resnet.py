"""ResNet-18 and -34 for small images: a 3x3 stem without pooling, then basic residual blocks."""

from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import HE, Norm, check_dropout, check_norm, dropout


class Block(nn.Module):
  """Adds two 3x3 convolutions to its input.

      y = relu(s(x) + norm(conv(relu(norm(conv(x))))))

  The shortcut s is the identity, or norm(conv1x1(x)) where the shape changes. Dropout acts between
  the two convolutions, as in wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146).
  """

  width: int
  stride: int
  norm: str
  dropout: float
  axis_name: str | None
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None, layer: int) -> jax.Array:
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def conv(x, name, size, stride):
      own = {"strides": stride, "use_bias": False, "kernel_init": HE, "name": name}
      x = nn.Conv(self.width, (size, size), padding=size // 2, **own, **types)(x)
      return Norm(self.norm, self.axis_name, **types, name=f"{name}_norm")(x, train)

    y = nn.relu(conv(x, "conv1", 3, self.stride))
    y = conv(dropout(y, self.dropout, keys, layer), "conv2", 3, 1)
    if x.shape != y.shape:
      x = conv(x, "shortcut", 1, self.stride)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Maps images to features by residual blocks; the width doubles and the image halves per stage.

  Reading points: the stem's ReLU, then one per block, after its second convolution, the addition
  and the ReLU ("block3/relu"): that is the residual stream, which everything behind a block sees;
  the inside of a block is seen by its second convolution only. The Tunnel Effect paper
  (arXiv:2305.19753) too reads the second convolution of each block. The last entry, "pool", is the
  mean over positions, which the head gets.

  Kernels are drawn from N(0, 2 / fan_in) (He); norms start with scale 1 and bias 0.

  Attributes:
    stage_sizes: blocks per stage: (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) is ResNet-34.
    width: channels of the stem and of the first stage.
    norm: "batch", "layer" or "none", after every convolution. Without one the residual stream
      starts larger from block to block, about 9 times the stem's at the end of ResNet-18.
    dropout: the probability with which a feature is dropped, inside every block, when keys are
      given.
    axis_name: the mapped axis over which "batch" shares its statistics.

  Source: He et al. 2015, arXiv:1512.03385; the stem for small images as in their section 4.2.
  """

  stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
  width: int = 64
  norm: str = "batch"
  dropout: float = 0.0
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = True

  def __post_init__(self):
    if not self.stage_sizes or min(self.stage_sizes) < 1:
      raise ValueError(f"stage_sizes={self.stage_sizes} must name at least one block per stage.")
    check_norm(self.norm)
    check_dropout(self.dropout)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers on the longest path, head included."""
    return 2 * sum(self.stage_sizes) + 2

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order (jit returns a dict in alphabetical order)."""
    blocks = (f"block{i + 1}/relu" for i in range(sum(self.stage_sizes)))
    return ("stem/relu", *blocks, "pool")

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, width * 2^(stages - 1)] and the activations by name.

    Keys, one per image, switch dropout on.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    x = nn.Conv(self.width, (3, 3), use_bias=False, kernel_init=HE, **types, name="stem")(x)
    x = Norm(self.norm, self.axis_name, **types, name="stem_norm")(x, train)
    x = nn.relu(x)
    acts = {"stem/relu": x}
    for stage, blocks in enumerate(self.stage_sizes):
      for block in range(blocks):
        stride = 2 if stage > 0 and block == 0 else 1
        own = {"norm": self.norm, "dropout": self.dropout, "axis_name": self.axis_name}
        number = len(acts)
        own |= {"name": f"block{number}", **types}
        x = Block(self.width * 2**stage, stride, **own)(x, train, keys, number)
        acts[f"block{number}/relu"] = x
    x = acts["pool"] = x.mean((1, 2))
    return x, acts
