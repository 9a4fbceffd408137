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
  arrays = tuple(jnp.asarray(x) for x in (query, key, value))
  lengths = query_seq_lengths, key_value_seq_lengths
  where = mask, is_causal, lengths, local_window_size
  beta = partial(_one_a_row, inverse_temperature), stop_gradient
  return _attend(arrays, bias, scale, where, beta, implementation, interpret)


def _attend(arrays, bias, scale, where, beta, implementation, interpret):
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"implementation = {implementation!r} is unknown: choose from {', '.join(IMPLEMENTATIONS)}."
    )
  shape = logits_shape(*arrays)
  empty = 0 in (*shape, *(x.shape[-1] for x in arrays))
  if implementation == "dense" or empty:
    return _dense(arrays, bias, scale, where, beta)
  query, *keys = arrays
  if bias is not None:
    bias = _flat(fitted("bias", bias, shape), shape)
  moments, mix, mask, options = _passes(implementation, shape, where, interpret)
  scaled, options["scale"] = _scaled(query, scale)
  q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (scaled, *keys))
  found = moments(q, k, bias, mask, **options)
  # The callable sees the leading axes that the caller has.
  rows = jax.tree.map(lambda x: x.reshape(*shape[:-1], 1), found)
  chosen = moment_inverse_temperature(rows, *beta).reshape(found.count.shape)
  out = mix(q, k, v, chosen, found.maximum, bias, mask, **options)
  return out.reshape(*query.shape[:-1], -1).astype(query.dtype)


def _dense(arrays, bias, scale, where, beta):
  (mask, is_causal, lengths, window), (inverse_temperature, stop_gradient) = where, beta
  return dot_product_attention(
    *arrays,
    bias,
    mask,
    scale=scale,
    is_causal=is_causal,
    query_seq_lengths=lengths[0],
    key_value_seq_lengths=lengths[1],
    local_window_size=window,
    normalizer=partial(
      adaptive_temperature_softmax,
      inverse_temperature=inverse_temperature,
      stop_gradient=stop_gradient,
    ),
  )


def _passes(implementation, shape, where, interpret):
  """Returns the functions of both passes, their mask and their options."""
  mask, is_causal, lengths, window = where
  if implementation == "stream":
    masks = tuple(_flat(part, shape) for part in mask_parts(shape, mask, lengths))
    options = {"is_causal": is_causal, "window": window_pair(window)}
    return stream_moments, stream_mix, masks, options
  from rankbias.ops.attention_kernel import kernel_mix, kernel_moments

  mask = attention_mask(shape, mask, False, lengths, window)
  mask = None if mask is None else _flat(mask, shape)
  return kernel_moments, kernel_mix, mask, {"is_causal": is_causal, "interpret": interpret}


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
