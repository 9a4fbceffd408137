"""A decoder-only Transformer whose attention takes any normaliser, one for all layers or each."""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from rankbias.models.layers import check_dropout, dropout
from rankbias.models.self_attention import SelfAttention, normalizers, residual_layer

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
    h = nn.Embed(self.vocabulary, self.width, embedding_init=EMBEDDING, **types, name="embed")(x)
    acts = {}
    for i, normalizer in enumerate(normalizers(self.normalizer, self.depth), 1):
      attention = SelfAttention(
        *(self.width, self.heads, self.kv_heads or self.heads),
        normalizer=normalizer,
        rope_base=self.rope_base if self.positions == "rope" else None,
        length_scale=self.length_scale,
        **types,
        name=f"layer{i}_attention",
      )
      h, own = residual_layer(
        h,
        attention,
        name=f"layer{i}",
        hidden=int(self.width * self.mlp_ratio),
        depth=self.depth,
        norm=lambda name: norm(name=name),
        drop=lambda x, part, i=i: dropout(x, self.dropout, keys, 2 * i + part),
      )
      acts |= {f"layer{i}/{kind}": act for kind, act in own.items()} | {f"layer{i}/residual": h}
    acts["features"] = norm(name="norm")(h)
    return acts["features"], acts
