"""Tests of the attention kernels, interpreted: dense attention, adaptive temperature, skipping."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.ops.attention_kernel import kernel_mix, kernel_moments
from rankbias.ops.attention_tiles import Blocks
from rankbias.ops.moments import moment_inverse_temperature, row_moments

SMALL, SCALE = Blocks(16, 32, 4, 2), 0.6
# (B, T, S, N, K, H, D), dtype, causal: small shapes, as a program that is interpreted is slow.
CASES = {
  "causal, groups, edges": ((1, 40, 50, 4, 2, 12, 20), "float32", True),
  "all keys, bfloat16": ((2, 32, 64, 2, 2, 16, 16), "bfloat16", False),
}
SLOW = {
  "more queries than keys": ((2, 70, 33, 2, 1, 16, 16), "float32", True),
  "edges of both, all keys": ((1, 33, 70, 2, 2, 16, 16), "float32", False),
  "whole blocks, causal": ((1, 64, 64, 4, 4, 32, 16), "float32", True),
  "causal, groups, bfloat16": ((1, 48, 64, 4, 1, 16, 16), "bfloat16", True),
  "causal, float16": ((1, 32, 32, 2, 2, 16, 16), "float16", True),
  "one query": ((2, 1, 96, 2, 1, 16, 16), "float32", False),
}
# Of the largest entry of a float64 reference. Products of bfloat16 numbers are exact in float32;
# weights and their derivatives are rounded to 2^-9 of themselves before they meet the arrays.
LOOSE = {"float32": 3e-6, "bfloat16": 2**-7, "float16": 2**-10}


def arrays(shape, dtype, seed=0):
  """Queries, keys and values in their dtype, inverse temperatures in [0.5, 3]."""
  batch, length, keys, heads, key_heads, features, value_features = shape
  rng = np.random.default_rng(seed)
  sizes = (
    (length, heads, features),
    (keys, key_heads, features),
    (keys, key_heads, value_features),
  )
  made = [jnp.asarray(rng.normal(size=(batch, *size)), dtype) for size in sizes]
  return *made, jnp.asarray(rng.uniform(0.5, 3, (batch, heads, length)), jnp.float32)


def dense(query, key, value, beta, is_causal):
  """The mixture and the moments, all weights at once."""
  key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], axis=2) for x in (key, value))
  logits = SCALE * jnp.einsum("btnh,bsnh->bnts", query, key, precision="highest")
  seen = jnp.tri(*logits.shape[2:], dtype=bool) if is_causal else jnp.ones(logits.shape[2:], bool)
  seen = jnp.broadcast_to(seen, logits.shape)
  moments = row_moments(jnp.where(seen, logits, -jnp.inf))
  weights = ops.softmax(beta[..., None] * logits, where=seen)
  out = jnp.einsum("bnts,bsnd->btnd", weights, value, precision="highest")
  return out, *(x[..., 0] for x in moments)


def kernel(query, key, value, beta, is_causal, **options):
  """The same from the kernels."""
  own = {"scale": SCALE, "is_causal": is_causal, "interpret": True, "blocks": SMALL}
  moments = kernel_moments(query, key, **own)
  return kernel_mix(query, key, value, beta, moments.maximum, **own, **options), *moments


def program(attend):
  """Values, and gradients for cotangents of the mixture, S and W, as one compiled program."""

  @jax.jit
  def run(args, cotangents):
    (out, maximum, total, weighted, count), pull = jax.vjp(attend, *args)
    zeros = jnp.zeros_like(maximum)
    return (out, maximum, total, weighted, count), pull(
      (cotangents[0], zeros, *cotangents[1:], zeros)
    )

  return run


def assert_close(ours, theirs, loose, name):
  ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
  assert ours.shape == theirs.shape, name
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=loose * np.abs(theirs).max(), err_msg=name)


@pytest.mark.parametrize(
  "case", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_values_and_gradients(case):
  shape, dtype, is_causal = (CASES | SLOW)[case]
  args = arrays(shape, dtype)
  batch, length, _, heads, _, _, features = shape
  rng = np.random.default_rng(1)
  sizes = (batch, length, heads, features), (batch, heads, length), (batch, heads, length)
  # A cotangent of the mixture arrives in the dtype of the inputs, as the output leaves in it.
  cotangents = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes]
  cotangents[0] = cotangents[0].astype(dtype).astype(jnp.float32)
  ours = program(partial(kernel, is_causal=is_causal))(args, tuple(cotangents))
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (args, tuple(cotangents)))
    theirs = jax.tree.map(np.asarray, program(partial(dense, is_causal=is_causal))(*wide))
  names = "mixture", "maximum", "total", "weighted", "count"
  for name, a, b in zip(names, ours[0], theirs[0], strict=True):
    assert a.dtype == jnp.float32, name
    assert_close(a, b, 3e-6 if name != "mixture" else LOOSE[dtype], name)
  for name, a, b, x in zip(
    ("query", "key", "value", "beta"), ours[1], theirs[1], args, strict=True
  ):
    assert a.dtype == x.dtype, name
    assert_close(a, b, LOOSE[dtype], name)


def adaptive(query, key, value, stop_gradient):
  options = {"scale": SCALE, "is_causal": True, "interpret": True, "blocks": SMALL}
  moments = kernel_moments(query, key, **options)
  beta = moment_inverse_temperature(moments, ops.entropy_polynomial, stop_gradient)
  return kernel_mix(query, key, value, beta, moments.maximum, **options)


@pytest.mark.parametrize("stop_gradient", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_adaptive_temperature(stop_gradient):
  query, key, value, _ = arrays((1, 32, 32, 2, 1, 16, 16), "float32")
  normalizer = partial(ops.adaptive_temperature_softmax, stop_gradient=stop_gradient)
  attend = partial(ops.dot_product_attention, scale=SCALE, is_causal=True, normalizer=normalizer)

  def loss(attend, *x):
    return jnp.sum(jnp.sin(attend(*x)))

  ours, theirs = (
    jax.jit(jax.value_and_grad(partial(loss, f), argnums=(0, 1, 2)))(query, key, value)
    for f in (partial(adaptive, stop_gradient=stop_gradient), attend)
  )
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert_close(a, b, 1e-5, "adaptive")


def test_negligible_blocks_are_skipped():
  """The values of keys far below the maximum are NaN: they must never be multiplied."""
  query, key, value, beta = arrays((1, 16, 96, 1, 1, 16, 16), "float32")
  query = jnp.ones_like(query)
  height = jnp.where(jnp.arange(96) < 32, 0.0, -10.0)[None, :, None, None]  # 16 * 10 * 0.6 nats
  value = jnp.where(height < 0, jnp.nan, value)
  run = jax.jit(kernel, static_argnames=("is_causal", "skip"))
  beta = jnp.ones_like(beta)
  out = run(query, 0.1 * key + height, value, beta, is_causal=False)[0]
  alone = run(query, 0.1 * key[:, :32], value[:, :32], beta, is_causal=False)[0]
  np.testing.assert_array_equal(out, alone)
  # One query without the distance is enough to need the block.
  query = query.at[0, 3].set(0)
  out = run(query, 0.1 * key + height, value, beta, is_causal=False)[0]
  assert np.isnan(out).all()


def test_skipping_changes_less_than_rounding():
  query, key, value, beta = arrays((1, 16, 96, 1, 1, 16, 16), "float32", seed=2)
  # From -32 nats to 0: blocks beside the bound of log(96 * 2^24) = 21.2 nats, before the highest.
  height = jnp.linspace(-32, 0, 96)[None, :, None, None] / (16 * SCALE)
  run = jax.jit(kernel, static_argnames=("is_causal", "skip"))
  args = jnp.ones_like(query), 0.01 * key + height, value, jnp.ones_like(beta)
  out, full = (run(*args, is_causal=False, skip=skip)[0] for skip in (True, False))
  np.testing.assert_allclose(out, full, rtol=0, atol=2.0**-23 * np.abs(value).max())


def test_rows_without_keys_are_zero():
  query, key, value, beta = arrays((2, 4, 0, 2, 1, 16, 16), "float32")
  out, pull = jax.vjp(lambda *x: kernel(*x, is_causal=False), query, key, value, beta)
  for x in (out[0], out[2], out[3], out[4]):
    np.testing.assert_array_equal(x, 0)
  assert out[0].shape == (2, 4, 2, 16) and out[1].shape == (2, 2, 4) and np.isfinite(out[1]).all()
  gradients = pull(tuple(jnp.ones_like(x) for x in out))
  assert all((np.asarray(x) == 0).all() for x in gradients)


@pytest.mark.slow
def test_vmap():
  args = [x[:, None] for x in arrays((2, 16, 32, 2, 1, 16, 16), "float32")]
  attend = partial(kernel, is_causal=True)
  together, apart = jax.jit(jax.vmap(attend))(*args), [attend(*x) for x in zip(*args, strict=True)]
  for a, *b in zip(together, *apart, strict=True):
    np.testing.assert_allclose(a, np.stack(b), rtol=1e-6, atol=1e-6)
