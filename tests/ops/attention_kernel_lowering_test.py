"""Tests of the attention kernels before they run: lowering for a GPU, block sizes, failures.

Lowering needs no GPU and finds what its compiler has no rule for; compiling and running need one.
"""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from rankbias.ops.attention_kernel import kernel_mix, kernel_moments
from rankbias.ops.attention_tiles import HOPPER, hopper_blocks


def hopper():
  """A context that stands for an H100, where jax asks for a device before it lowers."""
  if jax.__version_info__ < (0, 11):
    return contextlib.nullcontext()
  sharding = jax.sharding
  device = sharding.AbstractDevice(
    device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
  )
  mesh = sharding.AbstractMesh(
    (1,), ("x",), axis_types=(sharding.AxisType.Auto,), abstract_device=device
  )
  return sharding.use_abstract_mesh(mesh)


@pytest.mark.parametrize(
  ("shape", "dtype", "is_causal"),
  [
    ((2, 4095, 4090, 8, 2, 64, 64), "bfloat16", True),
    pytest.param((1, 256, 256, 4, 4, 96, 128), "float16", False, marks=pytest.mark.slow),
    pytest.param((1, 256, 256, 4, 4, 256, 256), "float32", True, marks=pytest.mark.slow),
  ],
)
def test_all_six_kernels_lower_for_a_gpu(shape, dtype, is_causal):
  batch, length, keys, heads, key_heads, features, value_features = shape
  sizes = (
    (batch, length, heads, features),
    (batch, keys, key_heads, features),
    (batch, keys, key_heads, value_features),
  )
  args = [jax.ShapeDtypeStruct(size, dtype) for size in sizes]
  rows = jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)

  def gradients(query, key, value, beta):
    options = {"scale": 0.1, "is_causal": is_causal, "interpret": False}
    moments = kernel_moments(query, key, **options)
    out = kernel_mix(query, key, value, beta, moments.maximum, **options)
    return jnp.sum(out) + jnp.sum(moments.total)

  run = jax.jit(jax.value_and_grad(gradients, argnums=(0, 1, 2, 3)))
  with hopper():
    lowered = run.trace(*args, rows).lower(lowering_platforms=("cuda",))
  text = lowered.as_text()
  for name in ("moments", "mix", "mix_queries", "mix_keys", "moments_queries", "moments_keys"):
    assert f"{name}_kernel" in text
  assert text.count("xla.gpu.triton") == 6


def test_blocks_are_powers_of_two_that_a_tile_can_be():
  for name in HOPPER:
    for features, itemsize in ((64, 2), (128, 2), (256, 2), (64, 4), (256, 4)):
      cut = hopper_blocks(name, features, itemsize)
      for size in (cut.queries, cut.keys):
        assert size >= 16 and size & (size - 1) == 0
      assert cut.warps in (4, 8) and cut.stages >= 2


X = jnp.zeros((1, 4, 2, 16))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"mask": jnp.ones((4, 4), bool)}, 'mask is given.*implementation="stream"'),
    ({"bias": jnp.zeros((4, 4))}, 'bias is given.*implementation="stream"'),
    ({"interpret": None}, 'interpret = None.*interpret=True.*implementation="stream"'),
    ({"query": jnp.zeros((1, 4, 2, 257)), "key": jnp.zeros((1, 4, 2, 257))}, "257 features.*256"),
    ({"query": X.astype(jnp.float8_e4m3fn)}, "query has dtype float8.*bfloat16"),
    ({"key": X[:, :, :0]}, "key of shape"),
  ],
)
def test_what_the_kernel_does_not_take(change, message):
  args = {"query": X, "key": X, "scale": 1.0, "interpret": True} | change
  with pytest.raises(ValueError, match=message):
    kernel_moments(args.pop("query"), args.pop("key"), **args)


def test_a_traced_scale():
  run = jax.jit(lambda scale: kernel_moments(X, X, scale=scale, interpret=True).total)
  with pytest.raises(ValueError, match='scale = .*traced.*implementation="stream"'):
    run(1.0)


def test_values_of_too_many_features():
  rows = jnp.ones((1, 2, 4))
  with pytest.raises(ValueError, match="value of shape .* 300 features"):
    kernel_mix(X, X, jnp.zeros((1, 4, 2, 300)), rows, rows, scale=1.0, interpret=True)
