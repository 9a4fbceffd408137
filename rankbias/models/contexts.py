"""Free context vectors: one for every example, learned like weights."""

from typing import Any

import jax
from flax import linen as nn


class Contexts(nn.Module):
  """Looks up h_c, the vector of context c, in a table [count, width] that is trained.

  The most that any network before an output layer can give it: what the layer cannot fit with free
  vectors, it cannot fit at all. Entries start as N(0, 1).

  Attributes:
    count: contexts, as many as the data have.
    width: d, the size of a vector.
    axis_name: unused; models share their options.
  """

  count: int = 200
  width: int = 10
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False
  weight_layers = 2
  act_names = ("contexts",)

  def __post_init__(self):
    for name in ("count", "width"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} makes an empty table: use at least 1.")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the vectors [B, width] of the contexts x [B], and the same by name."""
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    start = nn.initializers.normal(1.0)
    features = nn.Embed(self.count, self.width, embedding_init=start, **types, name="table")(x)
    return features, {"contexts": features}
