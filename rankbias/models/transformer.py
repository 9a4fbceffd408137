"""A decoder-only Transformer whose attention takes any normaliser, one for all layers or each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.layers import LECUN, check_dropout, dropout, resolve

POSITIONS = ("rope", "none")
EMBEDDING = nn.initializers.normal(1.0)


class Transformer(nn.Module):
  """Maps tokens to features, each of which sees its own token and those before it.

      h <- h + W_o attention(norm(h))      h <- h + W_2 gelu(W_1 norm(h))      `depth` times
      features = norm(h)

  norm divides by the root mean square and multiplies by a learned gain. There are no biases.
  Kernels are drawn from N(0, 1 / fan_in), those that write into the residual stream from a 1 / (2
  depth) of this variance, embeddings from N(0, 1).

  Attributes:
    vocabulary: tokens are 0 .. vocabulary - 1.
    heads, kv_heads: of queries, and of keys and values (None for as many): heads / kv_heads
      neighbouring query heads share a key head.
    mlp_ratio: hidden units of the MLP over `width`.
    positions: "rope" turns queries and keys by angles proportional to their positions, so that
      logits depend on distances; "none" leaves the order to the causal mask.
    rope_base: the slowest pair of features turns by one radian in almost as many tokens.
    dropout: of what attention and MLP add to the residual stream, when keys are given.
    normalizer: a function of `rankbias.ops.NORMALIZERS`, its name, {"name": ..., **arguments}, or
      a sequence with one of these for each layer.
    length_scale: each head learns s and b of normalizer((s log n + b) logits), where n is the
      number of tokens that a query sees, from s = 0, b = 1.

  Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rope).
  """

  vocabulary: int = 48
  width: int = 128
  depth: int = 3
  heads: int = 4
  kv_heads: int | None = None
  mlp_ratio: float = 4.0
  positions: str = "rope"
  rope_base: float = 10_000.0
  dropout: float = 0.0
  normalizer: Any = "softmax"
  length_scale: bool = False
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False

  def __post_init__(self):
    counts = (self.vocabulary, self.width, self.depth, self.heads, self.kv_heads or self.heads)
    if min(counts) < 1 or self.mlp_ratio <= 0:
      raise ValueError(
        f"vocabulary, width, depth, heads, kv_heads = {counts} must all be at least 1, and "
        f"mlp_ratio={self.mlp_ratio} above 0."
      )
    if self.width % self.heads or self.heads % (self.kv_heads or self.heads):
      raise ValueError(
        f"width={self.width} must be a multiple of heads={self.heads}, and these of "
        f"kv_heads={self.kv_heads}."
      )
    if self.positions not in POSITIONS:
      raise ValueError(f"positions={self.positions!r} is unknown: use {' or '.join(POSITIONS)}.")
    if self.positions == "rope" and self.width // self.heads % 2:
      raise ValueError(
        f"width={self.width} / heads={self.heads} must be even, since rope turns pairs of features."
      )
    check_dropout(self.dropout)
    normalizers(self.normalizer, self.depth)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers on the longest path: value, output and two of the MLP; head."""
    return 4 * self.depth + 1

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order."""
    kinds = ("attention_logits", "attention_weights", "residual")
    layers = (f"layer{i}/{kind}" for i in range(1, self.depth + 1) for kind in kinds)
    return (*layers, "features")

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, L, width] of tokens [B, L], and the activations by name.

    Logits (as they enter the normaliser, future tokens too) and weights are [B, heads, L, L].
    Keys, one per sequence, switch dropout on.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    norm = partial(nn.RMSNorm, epsilon=1e-6, **types)
    into = nn.initializers.variance_scaling(0.5 / self.depth, "fan_in", "normal")
    dense = partial(nn.Dense, use_bias=False, kernel_init=LECUN, **types)
    h = nn.Embed(self.vocabulary, self.width, embedding_init=EMBEDDING, **types, name="embed")(x)
    acts = {}
    for i, normalizer in enumerate(normalizers(self.normalizer, self.depth), 1):
      name = f"layer{i}"
      mixed, own = SelfAttention(
        *(self.width, self.heads, self.kv_heads or self.heads),
        rope_base=self.rope_base if self.positions == "rope" else None,
        normalizer=normalizer,
        length_scale=self.length_scale,
        **types,
        name=f"{name}_attention",
      )(norm(name=f"{name}_norm1")(h))
      mixed = dense(self.width, kernel_init=into, name=f"{name}_output")(mixed)
      h = h + dropout(mixed, self.dropout, keys, 2 * i)
      hidden = dense(int(self.width * self.mlp_ratio), name=f"{name}_mlp1")(
        norm(name=f"{name}_norm2")(h)
      )
      added = dense(self.width, kernel_init=into, name=f"{name}_mlp2")(nn.gelu(hidden))
      h = h + dropout(added, self.dropout, keys, 2 * i + 1)
      acts |= {f"{name}/{kind}": act for kind, act in own.items()} | {f"{name}/residual": h}
    acts["features"] = norm(name="norm")(h)
    return acts["features"], acts


class SelfAttention(nn.Module):
  """Causal attention of a sequence [B, L, width] to itself, before the output projection."""

  width: int
  heads: int
  kv_heads: int
  rope_base: float | None
  normalizer: Callable
  length_scale: bool
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self, h: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns [B, L, width], and {"attention_logits", "attention_weights": [B, heads, L, L]}."""
    size, acts = self.width // self.heads, {}

    def project(name, heads):
      types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
      flat = nn.Dense(heads * size, False, kernel_init=LECUN, **types, name=name)(h)
      return flat.reshape(*h.shape[:-1], heads, size)

    query, key = project("query", self.heads), project("key", self.kv_heads)
    value = project("value", self.kv_heads)
    if self.rope_base is not None:
      query, key = rope(query, self.rope_base), rope(key, self.rope_base)
    factor = self.sharpness(h.shape[-2]) if self.length_scale else None

    def observed(logits, *, axis, where):
      if factor is not None:
        logits = logits * factor.astype(logits.dtype)
      acts["attention_logits"] = logits
      acts["attention_weights"] = self.normalizer(logits, axis=axis, where=where)
      return acts["attention_weights"]

    mixed = ops.dot_product_attention(query, key, value, is_causal=True, normalizer=observed)
    return mixed.reshape(h.shape), acts

  def sharpness(self, length: int) -> jax.Array:
    """s log n + b of every head and query, [heads, L, 1]; query t sees n = t + 1 tokens."""
    shape = self.heads, 1, 1
    slope = self.param("length_slope", nn.initializers.zeros, shape, self.param_dtype)
    offset = self.param("length_offset", nn.initializers.ones, shape, self.param_dtype)
    count = jnp.arange(1, length + 1, dtype=slope.dtype)[None, :, None]
    return (slope * jnp.log(count) + offset)[None]


def rope(x: jax.Array, base: float) -> jax.Array:
  """Turns feature pairs (k, k + d/2) of [..., L, heads, d] by position * base^(-2k / d).

  The product of a query and a key so turned depends on their distance alone.

  Source: Su et al. 2021, arXiv:2104.09864.
  """
  length, half = x.shape[-3], x.shape[-1] // 2
  wide = jnp.promote_types(x.dtype, jnp.float32)
  speed = base ** (-jnp.arange(half, dtype=wide) / half)
  angle = jnp.outer(jnp.arange(length, dtype=wide), speed)
  angle = angle.reshape((1,) * (x.ndim - 3) + (length, 1, half))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  a, b = jnp.split(x.astype(wide), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def normalizers(chosen: Any, depth: int) -> list[Callable[..., jax.Array]]:
  """The normaliser of every layer; raises for an unknown one, or another number than of layers."""
  each = list(chosen) if isinstance(chosen, list | tuple) else [chosen] * depth
  if len(each) != depth:
    raise ValueError(
      f"normalizer={chosen!r} has {len(each)} entries for depth={depth} layers: give one for all, "
      "or one for each."
    )
  return [resolve(one) for one in each]
