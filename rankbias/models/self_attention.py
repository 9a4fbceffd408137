"""Layers of self-attention and MLP that Transformers share: of texts and of images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rankbias import ops
from rankbias.models.layers import LECUN, resolve


class SelfAttention(nn.Module):
  """Attention of a sequence [B, L, width] to itself, before the output projection.

      weights = normalizer(q . k / (sqrt(d) tau)),  d = width / heads features of a head

  Attributes:
    rope_base: None leaves queries and keys where they are.
    length_scale: multiplies logits by s log n + b; tokens see those before them then.
    causal: whether a token sees itself and those before it alone.
    temperature: tau.
  """

  width: int
  heads: int
  kv_heads: int
  normalizer: Callable
  rope_base: float | None = None
  length_scale: bool = False
  causal: bool = True
  temperature: float = 1.0
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

    scale = None if self.temperature == 1 else 1 / (size**0.5 * self.temperature)
    own = {"scale": scale, "is_causal": self.causal, "normalizer": observed}
    mixed = ops.dot_product_attention(query, key, value, **own)
    return mixed.reshape(h.shape), acts

  def sharpness(self, length: int) -> jax.Array:
    """s log n + b of every head and query, [heads, L, 1]; query t sees n = t + 1 tokens."""
    shape = self.heads, 1, 1
    slope = self.param("length_slope", nn.initializers.zeros, shape, self.param_dtype)
    offset = self.param("length_offset", nn.initializers.ones, shape, self.param_dtype)
    count = jnp.arange(1, length + 1, dtype=slope.dtype)[None, :, None]
    return (slope * jnp.log(count) + offset)[None]


def residual_layer(
  h: jax.Array,
  attention: SelfAttention,
  *,
  name: str,
  hidden: int,
  depth: int,
  norm: Callable[[str], Callable[[jax.Array], jax.Array]],
  drop: Callable[[jax.Array, int], jax.Array],
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """One layer of attention and MLP in the scope of the calling module; norms come first.

      h <- h + W_o attention(norm(h))      h <- h + W_2 gelu(W_1 norm(h))

  Kernels are drawn from N(0, 1 / fan_in), W_o and W_2 from a 1 / (2 depth) of this variance.

  Args:
    name: prefix of the names of its modules.
    hidden: units of the MLP.
    depth: how many such layers the model has.
    norm: name -> normalisation layer; drop: (what is added, 0 or 1) -> what is left of it.

  Returns:
    h, and the activations of the attention.
  """
  types = {"dtype": attention.dtype, "param_dtype": attention.param_dtype}
  into = nn.initializers.variance_scaling(0.5 / depth, "fan_in", "normal")
  dense = partial(nn.Dense, use_bias=False, kernel_init=LECUN, **types)
  mixed, acts = attention(norm(f"{name}_norm1")(h))
  mixed = dense(attention.width, kernel_init=into, name=f"{name}_output")(mixed)
  h = h + drop(mixed, 0)
  inner = dense(hidden, name=f"{name}_mlp1")(norm(f"{name}_norm2")(h))
  added = dense(attention.width, kernel_init=into, name=f"{name}_mlp2")(nn.gelu(inner))
  return h + drop(added, 1), acts


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
