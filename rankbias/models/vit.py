"""A Vision Transformer for small images: patches as tokens, every one of which sees all others."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rankbias.models.layers import LECUN, Norm, check_dropout, check_norm, dropout
from rankbias.models.self_attention import SelfAttention, normalizers, residual_layer

POSITIONS = ("learned", "sincos", "none")
POOLS = ("mean", "token")


class ViT(nn.Module):
  """Maps images to features by self-attention over their patches.

      h = W_p patch + position
      h <- h + W_o attention(norm(h))      h <- h + W_2 gelu(W_1 norm(h))      `depth` times
      features = mean over tokens of norm(h)

  with attention weights normalizer(q . k / (sqrt(d) tau)), d = width / heads. Patches are cut by
  reshaping and embedded by a dense layer, so there is no convolution, and members of a sweep share
  a program. Kernels are drawn from N(0, 1 / fan_in), those that write into the residual stream from
  a 1 / (2 depth) of this variance; there are no biases but those of the normalisation.

  Activations are the tokens after the embedding, the residual stream after every layer, and the
  features; with `attention_acts` also every layer's logits, as they enter the normaliser, and
  weights, [B, heads, L, L].

  Attributes:
    patch: pixels of a side of a patch, of which image sides are multiples: 4 makes 64 tokens of a
      32x32 image, 2 makes 16 of an 8x8 one.
    mlp_ratio: hidden units of the MLP over `width`.
    positions: "sincos" adds fixed sines and cosines of row and column, "learned" a vector for each
      patch, "none" nothing.
    pool: "mean" over the tokens, or "token", a learned one before them, alone.
    norm: "layer", "batch" or "none", before every attention and MLP and at the end.
    dropout: of what attention and MLP add to the residual stream, when keys are given.
    normalizer: a function of `rankbias.ops.NORMALIZERS`, its name, {"name": ..., **arguments}, or
      a sequence with one of these for each layer.
    attention_temperature: tau, of all layers: below 1 is sharper, above 1 flatter.
    axis_name: the mapped axis over which "batch" shares its statistics.

  Source: Dosovitskiy et al. 2020, arXiv:2010.11929; positions and mean as in Beyer et al. 2022,
  arXiv:2205.01580.
  """

  patch: int = 4
  width: int = 192
  depth: int = 6
  heads: int = 3
  mlp_ratio: float = 4.0
  positions: str = "sincos"
  pool: str = "mean"
  norm: str = "layer"
  dropout: float = 0.0
  normalizer: Any = "softmax"
  attention_temperature: float = 1.0
  attention_acts: bool = False
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False

  def __post_init__(self):
    counts = self.patch, self.width, self.depth, self.heads
    if min(counts) < 1 or self.mlp_ratio <= 0:
      raise ValueError(
        f"patch, width, depth, heads = {counts} must all be at least 1, and "
        f"mlp_ratio={self.mlp_ratio} above 0."
      )
    if self.width % self.heads:
      raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}.")
    for option, known in (("positions", POSITIONS), ("pool", POOLS)):
      if getattr(self, option) not in known:
        raise ValueError(
          f"{option}={getattr(self, option)!r} is unknown: use one of {', '.join(known)}."
        )
    if self.positions == "sincos" and self.width % 4:
      raise ValueError(
        f"width={self.width} must be a multiple of 4 for positions='sincos': sines and cosines of "
        "rows and columns."
      )
    if not (self.attention_temperature > 0 and math.isfinite(self.attention_temperature)):
      raise ValueError(
        f"attention_temperature={self.attention_temperature} must be a finite number > 0: logits "
        "of attention are divided by it."
      )
    check_norm(self.norm)
    check_dropout(self.dropout)
    normalizers(self.normalizer, self.depth)
    super().__post_init__()

  @property
  def weight_layers(self) -> int:
    """The number of weight layers on the longest path: patches; value, output, two of MLP; head."""
    return 4 * self.depth + 2

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order (jit returns a dict in alphabetical order)."""
    own = ("attention_logits", "attention_weights") if self.attention_acts else ()
    kinds = (*own, "residual")
    layers = (f"layer{i}/{kind}" for i in range(1, self.depth + 1) for kind in kinds)
    return ("tokens", *layers, "features")

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, width] and the activations by name, tokens as [B, L, width].

    Keys, one per image, switch dropout on.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def norm(name):
      return partial(Norm(self.norm, self.axis_name, **types, name=name), train=train)

    h = self.tokens(x)
    acts = {"tokens": h}
    for i, normalizer in enumerate(normalizers(self.normalizer, self.depth), 1):
      attention = SelfAttention(
        *(self.width, self.heads, self.heads),
        normalizer=normalizer,
        causal=False,
        temperature=self.attention_temperature,
        **types,
        name=f"layer{i}_attention",
      )
      h, own = residual_layer(
        h,
        attention,
        name=f"layer{i}",
        hidden=int(self.width * self.mlp_ratio),
        depth=self.depth,
        norm=norm,
        drop=lambda x, part, i=i: dropout(x, self.dropout, keys, 2 * i + part),
      )
      if self.attention_acts:
        acts |= {f"layer{i}/{kind}": act for kind, act in own.items()}
      acts[f"layer{i}/residual"] = h
    h = norm("norm")(h)
    acts["features"] = h.mean(1) if self.pool == "mean" else h[:, 0]
    return acts["features"], acts

  def tokens(self, x: jax.Array) -> jax.Array:
    """The embedded patches with their positions, after the token of `pool="token"`."""
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    embed = nn.Dense(self.width, False, kernel_init=LECUN, **types, name="patches")
    h = embed(patches(x, self.patch))
    if self.positions == "learned":
      normal = nn.initializers.normal(0.02)
      h = h + self.param("positions", normal, h.shape[1:], self.param_dtype).astype(h.dtype)[None]
    if self.positions == "sincos":
      rows, columns = x.shape[1] // self.patch, x.shape[2] // self.patch
      h = h + jnp.asarray(sincos(rows, columns, self.width), h.dtype)[None]
    if self.pool == "token":
      token = self.param("token", nn.initializers.normal(0.02), (self.width,), self.param_dtype)
      token = jnp.broadcast_to(token.astype(h.dtype), (len(h), 1, self.width))
      h = jnp.concatenate([token, h], 1)
    return h


def patches(x: jax.Array, size: int) -> jax.Array:
  """Cuts images [B, H, W, C] into patches [B, (H / size) (W / size), size size C], row by row."""
  count, height, width, channels = x.shape
  if height % size or width % size:
    raise ValueError(
      f"patch={size} does not divide images of {height}x{width} pixels: choose a divisor of both."
    )
  x = x.reshape(count, height // size, size, width // size, size, channels)
  return x.swapaxes(2, 3).reshape(count, -1, size * size * channels)


def sincos(rows: int, columns: int, width: int) -> np.ndarray:
  """Sines and cosines of row and column at width / 4 speeds from 1 to 1e-4, [rows columns, width].

  Source: Beyer et al. 2022, arXiv:2205.01580, and its public code.
  """
  row, column = np.mgrid[:rows, :columns].reshape(2, -1, 1)
  speed = 1e-4 ** (np.arange(width // 4) / max(width // 4 - 1, 1))
  angles = [column * speed, row * speed]
  return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], -1)
