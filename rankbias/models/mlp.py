"""A multilayer perceptron of ReLU layers, by default without biases and so exactly homogeneous."""

from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import HE, Norm, check_dropout, check_norm, dropout


class MLP(nn.Module):
  """Maps images to features by `depth - 1` ReLU layers of equal width.

      h_0 = flatten(x)        h_l = relu(norm(W_l h_{l-1} + b_l)),  l = 1 .. depth - 1

  Without biases and normalisation f(a x) = a f(x) for a > 0, and scaling every kernel by a scales
  f by a^(depth - 1), or the logits of a bias-free linear head by a^depth: a temperature T then is
  the same as an initialisation scaled by T^(-1/depth), if the learning rate follows.

  Kernels are drawn from N(0, 2 / fan_in) (He), biases are zero.

  Attributes:
    depth: the number of weight layers including the head, which is not part of this module.
    norm: "none", "batch" or "layer", between the linear map and the ReLU.
    dropout: the probability with which a feature is dropped, after every ReLU, when keys are given.
    axis_name: the mapped axis over which "batch" shares its statistics.
  """

  depth: int = 8
  width: int = 256
  use_bias: bool = False
  norm: str = "none"
  dropout: float = 0.0
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False

  def __post_init__(self):
    if self.depth < 2:
      raise ValueError(f"depth={self.depth} has no hidden layer: use depth >= 2 (head included).")
    if self.width < 1:
      raise ValueError(f"width={self.width} is no layer: use width >= 1.")
    check_norm(self.norm)
    check_dropout(self.dropout)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers, head included."""
    return self.depth

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order (jit returns a dict in alphabetical order)."""
    return tuple(f"layer{i}/relu" for i in range(1, self.depth))

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, width] and every layer's activations by name.

    Keys, one per image, switch dropout on.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    x = x.reshape(x.shape[0], -1)
    acts = {}
    for i, name in enumerate(self.act_names, 1):
      x = nn.Dense(self.width, self.use_bias, kernel_init=HE, **types, name=f"layer{i}")(x)
      x = Norm(self.norm, self.axis_name, **types, name=f"layer{i}_norm")(x, train)
      x = acts[name] = dropout(nn.relu(x), self.dropout, keys, i)
    return x, acts
