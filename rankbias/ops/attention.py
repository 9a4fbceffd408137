"""Attention whose weights come from any normaliser, called as jax.nn.dot_product_attention is."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.attention_mask import attention_mask, fitted
from rankbias.ops.softmax import softmax

Normalizer = Callable[..., Array]


def dot_product_attention(
  query: Float[ArrayLike, "..."],
  key: Float[ArrayLike, "..."],
  value: Float[ArrayLike, "..."],
  bias: Real[ArrayLike, "..."] | None = None,
  mask: Bool[ArrayLike, "..."] | None = None,
  *,
  scale: Real[ArrayLike, ""] | None = None,
  is_causal: bool = False,
  query_seq_lengths: Integer[ArrayLike, "..."] | None = None,
  key_value_seq_lengths: Integer[ArrayLike, "..."] | None = None,
  local_window_size: int | tuple[int, int] | None = None,
  normalizer: Normalizer = softmax,
) -> Float[Array, "..."]:
  """Mixes values with the weights that a normaliser gives the products of queries and keys.

  out_tn = sum_s p_nts v_s,  p_nt = normalizer(scale q_tn . k_s + bias_nts over s),

  s over the keys that the mask, the causal order, the lengths and the window all allow. Logits,
  and so the weights, are float32 or wider; the weights meet the values in the dtype of `value`.
  A query without any key gives zeros (jax.nn gives the mean of all values, masked ones too, unless
  the query lies beyond its length). With `softmax` all else equals jax.nn.

  Args:
    query: [..., T, N, H]; the leading axes are none, one as in jax.nn, or more.
    key, value: [..., S, K, H] and [..., S, K, D], N a multiple of K: N / K neighbouring query
      heads share a key head, which is not copied.
    bias, mask: broadcast to [..., N, T, S]; True keeps, and -inf in the bias is False.
    scale: 1 / sqrt(H) when None.
    is_causal: query t sees keys s <= t, both counted from the first.
    query_seq_lengths, key_value_seq_lengths: integers of the leading axes; what lies beyond is
      masked. What is masked must be finite in `key` and `value` all the same: 0 * NaN is NaN.
    local_window_size: (left, right), or one number for both: t - left <= s <= t + right.
    normalizer: called with (logits [..., N, T, S], axis=-1, where=mask); its own arguments are
      bound by functools.partial, and arrays among them broadcast against the logits.

  Raises:
    ValueError: an argument has another shape or dtype.

  Example: dot_product_attention(q, k, v, is_causal=True, normalizer=adaptive_temperature_softmax).
  Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
  """
  query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
  shape = logits_shape(query, key, value)
  lengths = (query_seq_lengths, key_value_seq_lengths)
  where = attention_mask(shape, mask, is_causal, lengths, local_window_size)
  logits = attention_logits(query, key, scale=scale)
  weights = attention_weights(logits, bias, where, normalizer)
  return mix_values(weights.astype(value.dtype), value).astype(query.dtype)


def logits_shape(query, key, value):
  """Returns [..., N, T, S]; raises where queries, keys and values do not fit each other."""
  for name, x in (("query", query), ("key", key), ("value", value)):
    if x.ndim < 3 or x.ndim != query.ndim:
      raise ValueError(
        f"{name} of shape {x.shape} beside query of shape {query.shape}: all need the same axes, "
        "[..., length, heads, features]."
      )
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise ValueError(f"{name} has dtype {x.dtype}: attention needs a floating dtype. Cast it.")
  *lead, length, heads, features = query.shape
  *key_lead, keys, key_heads, key_features = key.shape
  if key_lead != lead or key_features != features or key_heads == 0 or heads % key_heads:
    raise ValueError(
      f"key of shape {key.shape} does not fit query of shape {query.shape}: the leading axes and "
      "the features must be equal, and the query heads a multiple of the key heads."
    )
  if value.shape[:-1] != key.shape[:-1]:
    raise ValueError(
      f"value of shape {value.shape} does not fit key of shape {key.shape}: all axes but the last "
      "must be equal."
    )
  return (*lead, heads, length, keys)


def attention_logits(query, key, *, scale=None, einsum=None, precision=None):
  """Computes scale q . k as [..., N, T, S] in float32 or wider, without copying shared keys."""
  dtype = jnp.promote_types(jnp.promote_types(query.dtype, key.dtype), jnp.float32)
  if einsum is None:
    if precision is None and query.dtype == key.dtype == jnp.bfloat16:
      # Without it the transposed products would mix float32 with bfloat16.
      precision = jax.lax.DotAlgorithmPreset.BF16_BF16_F32
    einsum = partial(jnp.einsum, precision=precision, preferred_element_type=dtype)
  *lead, length, heads, features = query.shape
  keys, key_heads = key.shape[-3:-1]
  if heads == key_heads:
    logits = einsum("...qhd,...khd->...hqk", query, key)
  else:
    groups = query.reshape(*lead, length, key_heads, heads // key_heads, features)
    logits = einsum("...qhgd,...khd->...hgqk", groups, key).reshape(*lead, heads, length, keys)
  scale = features**-0.5 if scale is None else scale
  return logits.astype(dtype) * jnp.asarray(scale, dtype)


def attention_weights(logits, bias, where, normalizer):
  """Applies bias and normaliser to the logits; checks both against their shape."""
  if bias is not None:
    logits = logits + fitted("bias", bias, logits.shape).astype(logits.dtype)
  if not callable(normalizer):
    raise ValueError(
      f"normalizer = {normalizer!r} is no function: pass one, such as ops.softmax or what "
      "ops.normalizer returns for a name."
    )
  weights = normalizer(logits, axis=-1, where=where)
  if weights.shape != logits.shape:
    raise ValueError(
      f"normalizer = {normalizer} turns logits of shape {logits.shape} into {weights.shape}: it "
      "must keep the shape."
    )
  return weights


def mix_values(weights, value, *, einsum=None, precision=None):
  """Computes the weighted sums [..., T, N, D] of values, without copying shared values."""
  einsum = einsum or partial(jnp.einsum, precision=precision)
  *lead, heads, length, keys = weights.shape
  value_heads, features = value.shape[-2:]
  if heads == value_heads:
    return einsum("...hqk,...khd->...qhd", weights, value)
  groups = weights.reshape(*lead, value_heads, heads // value_heads, length, keys)
  out = einsum("...hgqk,...khd->...qhgd", groups, value)
  return out.reshape(*lead, length, heads, features)
