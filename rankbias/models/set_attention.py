"""One head of attention over a set: the network of the max-retrieval task."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias.models.layers import LECUN, resolve


class SetAttention(nn.Module):
  """Maps a set of items and a query to features by Deep Sets with attention as the aggregator.

      h_i = psi_x(x_i)     h_q = psi_q(q)     e_i = s (Q h_q) . (K h_i)     a = normalizer(e)
      features = gelu(W V sum_i a_i h_i + b)

  psi_x and psi_q are MLPs of `depth` GELU layers (the tanh approximation) and a linear one, the
  predictor is `depth` GELU layers, the last of which is the features, and the head. There is one
  query, so the projections fold: (Q h_q) . (K h_i) = (K^T Q h_q) . h_i and V leaves the sum, and an
  item costs no projection of its own.

  An example is an array [1 + n, 1 + C] as `rankbias.data.sets` makes it: row 0 holds the query in
  its first column, the other rows are items. Kernels are drawn from N(0, 1 / fan_in).

  Attributes:
    depth: hidden layers of each MLP.
    projection_bias: whether Q, K and V have biases; K's is without effect on the weights unless the
      normaliser sees shifts.
    scale_logits: s = 1 / sqrt(width) in place of 1.
    normalizer: a function of `rankbias.ops.NORMALIZERS`, its name, or {"name": ..., **arguments}.
    length_scale: learns s and b of softmax((s log n + b) e) from s = 0, b = 1: the sharpness as a
      function of the size of the set, two scalars of the one head.

  Source: Velickovic et al. 2024, arXiv:2410.01104, appendix A.
  """

  width: int = 128
  depth: int = 1
  projection_bias: bool = False
  scale_logits: bool = False
  normalizer: Any = "softmax"
  length_scale: bool = False
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False

  def __post_init__(self):
    if self.width < 1 or self.depth < 1:
      raise ValueError(f"width={self.width}, depth={self.depth} must both be at least 1.")
    resolve(self.normalizer)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers on the longest path, head included."""
    return (self.depth + 1) + 1 + self.depth + 1

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order."""
    predictor = (f"predictor{i}/gelu" for i in range(1, self.depth + 1))
    return ("attention/logits", "attention/weights", "attention/mix", *predictor)

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, width] and the activations by name; there is no dropout."""
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def dense(name, width=self.width, use_bias=True):
      return nn.Dense(width, use_bias, kernel_init=LECUN, **types, name=name)

    def encode(name, h):
      for i in range(1, self.depth + 1):
        h = nn.gelu(dense(f"{name}{i}")(h))
      return dense(f"{name}{self.depth + 1}")(h)

    items, query = encode("item_mlp", x[..., 1:, :]), encode("query_mlp", x[..., 0, :1])
    query = dense("query", use_bias=self.projection_bias)(query)
    logits = Products(self.projection_bias, **types, name="key")(query, items)
    if self.scale_logits:
      logits = logits * self.width**-0.5
    if self.length_scale:
      slope = self.param("length_slope", nn.initializers.zeros, (), self.param_dtype)
      offset = self.param("length_offset", nn.initializers.ones, (), self.param_dtype)
      count = jnp.asarray(logits.shape[-1], logits.dtype)
      logits = logits * (slope * jnp.log(count) + offset).astype(logits.dtype)
    weights = resolve(self.normalizer)(logits, axis=-1)
    mix = jnp.einsum("...n,...nd->...d", weights, items)
    acts = {"attention/logits": logits, "attention/weights": weights, "attention/mix": mix}
    h = dense("value", use_bias=self.projection_bias)(mix)
    for i in range(1, self.depth + 1):
      h = acts[f"predictor{i}/gelu"] = nn.gelu(dense(f"predictor{i}")(h))
    return h, acts


class Products(nn.Module):
  """The products q . (K h_i + b) of a query with all keys, as (K^T q) . h_i + q . b."""

  use_bias: bool
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, query: jax.Array, items: jax.Array) -> jax.Array:
    """Returns [..., n] from a query [..., d] and items [..., n, d]."""
    shape = items.shape[-1], query.shape[-1]
    kernel = self.param("kernel", LECUN, shape, self.param_dtype).astype(self.dtype)
    products = jnp.einsum("...nd,...d->...n", items, query @ kernel.T)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, shape[1:], self.param_dtype)
      products += (query @ bias.astype(self.dtype))[..., None]
    return products
