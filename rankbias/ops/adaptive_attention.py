"""Attention at an adaptive temperature: dense, as a stream of blocks, or as a kernel."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from rankbias.ops.adaptive import (
  InverseTemperature,
  adaptive_temperature_softmax,
  entropy_polynomial,
)
from rankbias.ops.attention import dot_product_attention, logits_shape
from rankbias.ops.attention_mask import attention_mask, fitted, mask_parts, window_pair
from rankbias.ops.attention_stream import stream_mix, stream_moments
from rankbias.ops.moments import moment_inverse_temperature
from rankbias.ops.rows import per_row

IMPLEMENTATIONS = ("dense", "stream", "kernel")


def adaptive_temperature_attention(
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
  inverse_temperature: InverseTemperature = entropy_polynomial,
  stop_gradient: bool = False,
  implementation: str = "stream",
  interpret: bool | None = None,
) -> Float[Array, "..."]:
  """Mixes values with attention weights sharpened by the entropy of their row.

  out_t = sum_s p_ts v_s,  p_t = softmax(beta_t z_t),  beta_t = inverse_temperature(H_t, n_t),
  H_t the entropy of softmax(z_t),  z_ts = scale q_t . k_s + bias_ts,  n_t keys that t may see.

  "stream" takes two passes over blocks of queries and keys, one for the moments of every row and
  one for the mixture, and never holds T x S numbers, in the derivative neither; it has reverse mode
  of first order alone. "kernel" is the same in Pallas for a GPU, with no mask but the causal one.
  "dense" holds the weights.

  A logit of NaN or +inf makes the output of its query NaN, and no other output; its derivative
  reaches all keys that the query sees. What is masked must be finite in `key` and `value`.

  Args:
    query, key, value, bias, mask, scale, is_causal, query_seq_lengths, key_value_seq_lengths,
      local_window_size: as in `dot_product_attention`. A query without any key gives zeros.
    inverse_temperature: any function (entropy, count) -> beta of [..., N, T, 1], as in
      `adaptive_temperature_softmax`; its own parameters, such as one number a head [N, 1, 1], have
      derivatives.
    stop_gradient: treats beta as a constant of the derivative, which then costs less.
    implementation: "dense", "stream" or "kernel"; the result is the same up to rounding.
    interpret: True runs the kernel without a GPU, slowly.

  Raises:
    ValueError: an argument has another shape or dtype, the implementation is unknown, or the kernel
      does not take an argument.

  Example: adaptive_temperature_attention(q, k, v, is_causal=True).
  Source: Velickovic et al. 2024, arXiv:2410.01104, section 5.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"implementation = {implementation!r} is unknown: choose from {', '.join(IMPLEMENTATIONS)}."
    )
  query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
  shape = logits_shape(query, key, value)
  chosen = partial(_one_a_row, inverse_temperature)
  if implementation == "dense" or 0 in (*shape, value.shape[-1], query.shape[-1]):
    return dot_product_attention(
      query,
      key,
      value,
      bias,
      mask,
      scale=scale,
      is_causal=is_causal,
      query_seq_lengths=query_seq_lengths,
      key_value_seq_lengths=key_value_seq_lengths,
      local_window_size=local_window_size,
      normalizer=partial(
        adaptive_temperature_softmax, inverse_temperature=chosen, stop_gradient=stop_gradient
      ),
    )
  lengths, window = (query_seq_lengths, key_value_seq_lengths), local_window_size
  if bias is not None:
    bias = _flat(fitted("bias", bias, shape), shape)
  if implementation == "kernel":
    from rankbias.ops.attention_kernel import kernel_mix as mix
    from rankbias.ops.attention_kernel import kernel_moments as moments

    where = attention_mask(shape, mask, False, lengths, window)
    where = None if where is None else _flat(where, shape)
    options = {"is_causal": is_causal, "interpret": interpret}
  else:
    mix, moments = stream_mix, stream_moments
    where = tuple(_flat(part, shape) for part in mask_parts(shape, mask, lengths))
    options = {"is_causal": is_causal, "window": window_pair(window)}
  flat, options["scale"] = _scaled(query, scale)
  flat, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (flat, key, value))
  found = moments(flat, k, bias, where, **options)
  # The callable sees the leading axes that the caller has.
  rows = jax.tree.map(lambda x: x.reshape(*shape[:-1], 1), found)
  beta = moment_inverse_temperature(rows, chosen, stop_gradient).reshape(found.count.shape)
  out = mix(flat, k, v, beta, found.maximum, bias, where, **options)
  return out.reshape(*query.shape[:-1], -1).astype(query.dtype)


def _one_a_row(inverse_temperature, entropy, count):
  """Returns beta in the shape and dtype of the entropy; raises where it varies along the keys."""
  beta = per_row("inverse_temperature", inverse_temperature(entropy, count), entropy, -1)
  return jnp.broadcast_to(beta, entropy.shape).astype(entropy.dtype)


def _scaled(query, scale):
  """Returns a query and a scale that is a number: what is traced multiplies the query."""
  if scale is None:
    return query, query.shape[-1] ** -0.5
  if isinstance(scale, jax.Array):
    wide = query.astype(jnp.promote_types(query.dtype, jnp.float32))
    return wide * scale.astype(wide.dtype), 1.0
  return query, float(scale)


def _flat(x, shape):
  """Joins the leading axes of what broadcasts to `shape`, without a copy where there is but one."""
  lead, rest = shape[:-3], x.shape[-3:]
  if all(n == 1 for n in x.shape[:-3]):
    return x.reshape(1, *rest)
  return jnp.broadcast_to(x, (*lead, *rest)).reshape(-1, *rest)
