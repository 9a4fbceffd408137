"""The attention function that Flax's multi-head attention asks for, with any normaliser."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Real

from rankbias.ops.attention import (
  Normalizer,
  attention_logits,
  attention_weights,
  logits_shape,
  mix_values,
)
from rankbias.ops.attention_mask import fitted
from rankbias.ops.softmax import softmax


def flax_attention(
  normalizer: Normalizer = softmax, *, scale: Real[ArrayLike, ""] | None = None
) -> Callable[..., Array]:
  """Makes an `attention_fn` for Flax's MultiHeadDotProductAttention out of a normaliser.

  The result has Flax's calling convention (linen and nnx): bias, mask, dropout with the same
  random numbers, dtype, precision, custom einsums, sown weights. With `softmax` it equals Flax's
  own, except that the weights are computed in float32 or wider whatever the dtype (Flax does so
  where force_fp32_for_softmax is set), and that a query without any key gives zeros (in Flax the
  mean of all values).

  Args:
    normalizer, scale: as in `dot_product_attention`; own arguments of the map are bound by
      functools.partial(topk_softmax, k=16). `power_mechanism` needs values that are not negative,
      such as jax.nn.softplus of the logits.

  Example: nn.MultiHeadDotProductAttention(num_heads=8, attention_fn=flax_attention(sparsemax)).
  Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; Flax, flax.linen.attention.
  """

  # Flax passes by name, and only what it finds among these names.
  def attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    broadcast_dropout=True,
    dropout_rng=None,
    dropout_rate=0.0,
    deterministic=False,
    dtype=None,
    precision=None,
    module=None,
    force_fp32_for_softmax=False,
    qk_attn_weights_einsum=None,
    attn_weights_value_einsum=None,
    is_causal=False,
  ):
    _check_einsums(precision, qk_attn_weights_einsum, attn_weights_value_einsum)
    query, key, value = _promoted(dtype, query, key, value)
    shape = logits_shape(query, key, value)
    logits = attention_logits(
      query, key, scale=scale, einsum=qk_attn_weights_einsum, precision=precision
    )
    weights = attention_weights(logits, bias, _mask(mask, is_causal, shape), normalizer)
    weights = weights if force_fp32_for_softmax else weights.astype(query.dtype)
    if module is not None:
      module.sow("intermediates", "attention_weights", weights)
    if not deterministic and dropout_rate > 0:
      weights = _dropped(weights, dropout_rng, dropout_rate, broadcast_dropout, query.dtype)
    return mix_values(weights, value, einsum=attn_weights_value_einsum, precision=precision)

  return attention


def _promoted(dtype, *arrays):
  """Casts to dtype, or to what the arrays have in common, as Flax does."""
  dtype = jnp.result_type(*arrays) if dtype is None else dtype
  dtype = dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.promote_types(dtype, jnp.float32)
  return [jnp.asarray(x, dtype) for x in arrays]


def _mask(mask, is_causal, shape):
  """Returns where attention is allowed; Flax's own masks are numbers, 0 for False."""
  allowed = None if mask is None else fitted("mask", mask, shape).astype(bool)
  if not is_causal:
    return allowed
  causal = fitted("is_causal", jnp.tri(*shape[-2:], dtype=bool), shape)
  return causal if allowed is None else allowed & causal


def _dropped(weights, rng, rate, broadcast, dtype):
  """Drops weights and scales up the others: over the last two axes alone where `broadcast`."""
  if rng is None:
    raise ValueError(
      f"dropout_rng = None with dropout_rate = {rate}: pass a key, or deterministic=True."
    )
  if not rate < 1:
    raise ValueError(f"dropout_rate = {rate} must lie in [0, 1); 0 switches dropout off.")
  rows = weights.shape[-2:]
  shape = (1,) * (weights.ndim - 2) + rows if broadcast else weights.shape
  keep = jax.random.bernoulli(rng, 1 - rate, shape)
  return weights * (keep.astype(dtype) / jnp.asarray(1 - rate, dtype))


def _check_einsums(precision, logits_einsum, values_einsum):
  both = logits_einsum and values_einsum
  if bool(logits_einsum) != bool(values_einsum) or (both and precision):
    raise ValueError(
      f"qk_attn_weights_einsum = {logits_einsum}, attn_weights_value_einsum = {values_einsum}, "
      f"precision = {precision}: pass both einsums and no precision, or neither einsum."
    )
