"""Adaptive-temperature attention as Pallas kernels for a GPU, forward and backward, in O(N)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from rankbias.ops.attention import logits_shape
from rankbias.ops.attention_kernel_backward import (
  mix_backward_keys,
  mix_backward_queries,
  moments_backward_keys,
  moments_backward_queries,
)
from rankbias.ops.attention_kernel_forward import mix_forward, moments_forward
from rankbias.ops.attention_tiles import Blocks, Tiles, hopper_blocks
from rankbias.ops.moments import Moments, empty_moments

FEATURES = 256  # of a head, at most: a tile of more does not fit beside its products
REMEDY = 'Use implementation="stream", which takes it on every machine.'


class Settings(NamedTuple):
  """What is static: hashable, so that it can steer a program."""

  scale: float
  is_causal: bool
  interpret: bool
  blocks: Blocks | None
  skip: bool


def kernel_moments(
  query: Float[Array, "b t n h"],
  key: Float[Array, "b s k h"],
  bias: Real[ArrayLike, "..."] | None = None,
  mask: Bool[ArrayLike, "..."] | None = None,
  *,
  scale: Real[ArrayLike, ""],
  is_causal: bool = False,
  interpret: bool | None = None,
  blocks: Blocks | None = None,
) -> Moments:
  """Computes the moments of the logits scale q . k of every query and head, one pass over the keys.

  Args:
    bias, mask: must be None; the causal order is all that a kernel masks.
    scale: a number, known when the program is traced.
    interpret: None takes the GPU at hand; True runs the same program on any machine, slowly.
    blocks: the cut of all kernels, in place of the table for Hopper GPUs.

  Returns:
    Moments of float32 [B, N, T]. The derivative takes maximum and count as constants.

  Raises:
    ValueError: what the kernel does not take, with what to do about it.
  """
  settings = _settings(query, key, key, bias, mask, scale, is_causal, interpret, blocks)
  (batch, length, heads, _), keys = query.shape, key.shape[1]
  shape = (batch, heads, length)
  if 0 in shape or keys == 0:
    return empty_moments(shape, jnp.dtype(jnp.float32))
  maximum, total, weighted = _moments(*_fitted(query, key), settings)
  count = jnp.minimum(jnp.arange(1, length + 1), keys) if is_causal else jnp.full(length, keys)
  count = jnp.broadcast_to(count.astype(jnp.float32)[None, None], shape)
  return Moments(maximum, total, weighted, count)


def kernel_mix(
  query: Float[Array, "b t n h"],
  key: Float[Array, "b s k h"],
  value: Float[Array, "b s k d"],
  beta: Float[Array, "b n t"],
  maximum: Float[Array, "b n t"],
  bias: Real[ArrayLike, "..."] | None = None,
  mask: Bool[ArrayLike, "..."] | None = None,
  *,
  scale: Real[ArrayLike, ""],
  is_causal: bool = False,
  interpret: bool | None = None,
  blocks: Blocks | None = None,
  skip: bool = True,
) -> Float[Array, "b t n d"]:
  """Mixes values with weights softmax(beta scale q . k), one pass over the keys.

  The maximum of every row is known, so that nothing is scaled again on the way. It is a constant
  of the derivative: the mixture does not depend on it.

  Args:
    beta: the inverse temperature of every row, 0 or more: below 0 the sum can overflow.
    maximum: the largest logit of every row, as `kernel_moments` returns it.
    bias, mask, scale, interpret, blocks: as there.
    skip: leaves out a block of keys of which no row's sum of weights can change by half an ulp.

  Returns:
    The mixture in float32.

  Raises:
    ValueError: as in `kernel_moments`.
  """
  settings = _settings(query, key, value, bias, mask, scale, is_causal, interpret, blocks, skip)
  shape = (*query.shape[:3], value.shape[-1])
  if 0 in shape or key.shape[1] == 0:
    return jnp.zeros(shape, jnp.float32)
  rows = (x.astype(jnp.float32) for x in (beta, jax.lax.stop_gradient(maximum)))
  return _mix(*_fitted(query, key, value), *rows, settings)[..., : shape[-1]]


def _settings(query, key, value, bias, mask, scale, is_causal, interpret, blocks, skip=True):
  """Checks what the kernels take and returns what is static of it."""
  logits_shape(query, key, value)
  if isinstance(scale, jax.core.Tracer):
    raise ValueError(f"scale = {scale} is traced and the kernel needs a number. {REMEDY}")
  for name, x in (("bias", bias), ("mask", mask)):
    if x is not None:
      raise ValueError(f"{name} is given and the kernel masks by is_causal alone. {REMEDY}")
  for name, x in (("query", query), ("key", key), ("value", value)):
    if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
      raise ValueError(
        f"{name} has dtype {x.dtype} and the kernel takes float32, bfloat16 or float16. {REMEDY}"
      )
    if not 1 <= x.shape[-1] <= FEATURES:
      raise ValueError(
        f"{name} of shape {x.shape} has heads of {x.shape[-1]} features and the kernel takes 1 to "
        f"{FEATURES}. {REMEDY}"
      )
  if interpret is None and jax.default_backend() != "gpu":
    raise ValueError(
      f"interpret = None asks for a GPU and the backend is {jax.default_backend()}. Set "
      'interpret=True to run the kernel slowly on it, or use implementation="stream".'
    )
  return Settings(float(scale), bool(is_causal), bool(interpret), blocks, skip)


def _fitted(*arrays):
  """Returns the arrays in one dtype, their features filled up with zeros to a power of two."""
  dtype = jnp.result_type(*arrays)
  sizes = (max(16, pl.next_power_of_2(x.shape[-1])) - x.shape[-1] for x in arrays)
  return tuple(
    jnp.pad(x.astype(dtype), [(0, 0)] * 3 + [(0, size)]) if size else x.astype(dtype)
    for x, size in zip(arrays, sizes, strict=True)
  )


def _tiles(kernel, query, key, value, settings, *, by_keys=False):
  batch, length, heads, _ = query.shape
  _, keys, key_heads, _ = key.shape
  features = max(query.shape[-1], value.shape[-1])
  blocks = settings.blocks or hopper_blocks(kernel, features, query.dtype.itemsize)
  rows, columns = (
    min(size, max(16, pl.next_power_of_2(n)))
    for size, n in ((blocks.queries, length), (blocks.keys, keys))
  )
  return Tiles(
    shape=(batch, length, heads, keys, key_heads),
    blocks=blocks._replace(queries=rows, keys=columns),
    scale=settings.scale,
    is_causal=settings.is_causal,
    by_keys=by_keys,
    interpret=settings.interpret,
  )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@partial(jax.jit, static_argnums=2)
def _moments(query, key, settings):
  return moments_forward(query, key, _tiles("moments", query, key, key, settings))


def _moments_fwd(query, key, settings):
  out = _moments(query, key, settings)
  return out, (query, key, out[0])


@partial(jax.jit, static_argnums=0)
def _moments_bwd(settings, residuals, cotangents):
  query, key, maximum = residuals
  tiles = partial(_tiles, query=query, key=key, value=key, settings=settings)
  rows = (maximum, *cotangents[1:])
  return (
    moments_backward_queries(query, key, rows, tiles("moments queries")),
    moments_backward_keys(query, key, rows, tiles("moments keys", by_keys=True)),
  )


_moments.defvjp(_moments_fwd, _moments_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _mix(query, key, value, beta, maximum, settings):
  return _mix_fwd(query, key, value, beta, maximum, settings)[0]


@partial(jax.jit, static_argnums=5)
def _mix_fwd(query, key, value, beta, maximum, settings):
  tiles = _tiles("mix", query, key, value, settings)
  out, normalizer = mix_forward(query, key, value, beta, maximum, tiles, settings.skip)
  return out, (query, key, value, beta, maximum, out, normalizer)


@partial(jax.jit, static_argnums=0)
def _mix_bwd(settings, residuals, cotangent):
  query, key, value, beta, maximum, out, normalizer = residuals
  mean = jnp.einsum("btnd,btnd->bnt", cotangent, out)
  arrays = (query, key, value, cotangent.astype(value.dtype))
  tiles = partial(_tiles, query=query, key=key, value=value, settings=settings)
  rows = (beta, maximum, normalizer, mean)
  query_grad, beta_grad = mix_backward_queries(*arrays, rows, tiles("mix queries"))
  key_grad, value_grad = mix_backward_keys(*arrays, rows, tiles("mix keys", by_keys=True))
  return query_grad, key_grad, value_grad, beta_grad, jnp.zeros_like(maximum)


_mix.defvjp(_mix_fwd, _mix_bwd)
