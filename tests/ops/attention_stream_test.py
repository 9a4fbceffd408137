"""Tests of attention by blocks: linear memory, blocks that are skipped, blocks of any size."""

import inspect
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.ops.attention_stream import stream_mix, stream_moments

RNG = np.random.default_rng(0)
HEADS, FEATURES = 2, 8
OPTIONS = {
  "plain": {},
  "causal": {"is_causal": True},
  "lengths": {"query_seq_lengths": np.array([9]), "key_value_seq_lengths": np.array([7])},
  "window": {"local_window_size": (100, 100), "mask": np.ones((1, 1, 1, 1), bool)},
}


def arrays(length, heads=HEADS, scale=1.0):
  shape = 1, length, heads, FEATURES
  return [np.float32(scale * RNG.normal(size=shape)) for _ in range(3)]


def program(implementation, options, backward):
  """A function of queries, keys and values: the output, or the gradients."""
  attend = partial(ops.adaptive_temperature_attention, implementation=implementation, **options)

  def gradients(*x):
    y, pull = jax.vjp(attend, *x)
    return pull(y)

  return gradients if backward else attend


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", OPTIONS)
def test_no_array_grows_with_both_lengths(case, backward):
  length = 4096
  largest = max(sizes(jax.make_jaxpr(program("stream", OPTIONS[case], backward))(*arrays(length))))
  assert largest <= max(256 * 512, length * HEADS * FEATURES) < length**2 / 64
  dense = jax.make_jaxpr(program("dense", OPTIONS[case], backward))(*arrays(length))
  assert max(sizes(dense)) >= length**2


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_no_array_of_the_kernel_grows_with_both_lengths(backward):
  length = 4096
  options = {"is_causal": True, "interpret": True}
  jaxpr = jax.make_jaxpr(program("kernel", options, backward))(*arrays(length))
  assert "pallas_call" in str(jaxpr)
  # Features are filled up to 16; a tile holds up to 128 x 64 numbers.
  assert max(sizes(jaxpr)) <= length * HEADS * 16 < length**2 / 64


def sizes(jaxpr):
  """How many numbers every array of a jaxpr holds, inner jaxprs included, of kernels too."""
  for equation in jaxpr.eqns:
    yield from (np.prod(x.aval.shape, initial=1) for x in equation.outvars)
    for inner in jax.tree.leaves(
      tuple(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      if hasattr(inner, "eqns"):
        yield from sizes(inner)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_memory_is_linear(backward):
  def temporary(implementation, length):
    compiled = jax.jit(program(implementation, {"is_causal": True}, backward))
    analysis = compiled.lower(*arrays(length)).compile().memory_analysis()
    return analysis.temp_size_in_bytes

  small, large = (temporary("stream", n) for n in (2048, 16384))
  assert large <= 8 * small
  assert temporary("dense", 2048) > 8 * small


SLOW = [pytest.param(block, marks=pytest.mark.slow) for block in ((1, 4, 5), (1, 11, 1))]


@pytest.mark.parametrize("block", [(2, 3, 13), *SLOW])
def test_blocks_of_any_size(block):
  q, k, v = (RNG.normal(size=(2, n, heads, 4)) for n, heads in ((11, 4), (13, 2), (13, 2)))
  bias, mask = RNG.normal(size=(1, 4, 11, 13)), RNG.random((2, 1, 1, 13)) < 0.7
  beta, m = RNG.uniform(-1, 2, size=(2, 4, 11)), np.full((2, 4, 11), 3.0)

  quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

  @partial(jax.jit, static_argnums=0, compiler_options=quick)
  def results(block, *inputs):
    def run(q, k, v, beta, bias):
      own = {"bias": bias, "mask": mask, "scale": 0.5, "is_causal": True, "block": block}
      moments = stream_moments(q, k, **own)
      mixed = stream_mix(q, k, v, beta, m, **own)
      return jnp.sum(moments.total) + jnp.sum(moments.weighted**2) + jnp.sum(jnp.sin(mixed))

    return jax.value_and_grad(run, argnums=range(5))(*inputs)

  with jax.enable_x64(True):
    ours, theirs = (results(b, q, k, v, beta, bias) for b in (block, (2, 11, 13)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@partial(jax.jit, static_argnames=("skip", "block"))
def mixed(q, k, v, beta, skip=True, block=(1, 16, 16)):
  moments = stream_moments(q, k, scale=1.0, block=block)
  beta = jnp.full(moments.total.shape, beta)
  return stream_mix(q, k, v, beta, moments.maximum, scale=1.0, skip=skip, block=block)


def one_sharp_block(gap):
  """Queries whose logits are 0 in one block of 16 keys of four, and -gap in all others."""
  q, k, v = arrays(64, heads=1)
  q, k = np.zeros_like(q), np.zeros_like(k)
  q[..., 0], k[..., 0] = 1, -gap
  k[:, 16:32, :, 0] = 0
  return q, k, v


def test_blocks_without_weight_are_skipped():
  q, k, v = one_sharp_block(30.0)
  broken = v.copy()
  broken[:, 40] = np.nan  # is seen if and only if its block is read
  assert np.isfinite(mixed(q, k, broken, 1.0)).all()
  assert np.isnan(mixed(q, k, broken, 1.0, skip=False)).all()
  assert np.isnan(mixed(q, k, broken, 0.1)).all()  # the same logits, not so sharp


def test_one_query_keeps_a_block():
  q, k, v = one_sharp_block(30.0)
  q[:, 5] = 0  # sees all keys alike
  v[:, 40] = np.nan
  out = mixed(q, k, v, 1.0)
  assert np.isnan(out[:, :16]).all() and np.isfinite(out[:, 16:]).all()


@pytest.mark.parametrize("gap", [100.0, 30.0, 23.0, 20.2, 19.0])
def test_skipping_changes_nothing(gap):
  q, k, v = one_sharp_block(gap)
  ours, theirs = mixed(q, k, v, 1.0), mixed(q, k, v, 1.0, skip=False)
  # 64 keys of weight exp(-20.1) are half a unit in the last place of a sum of 1.
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=np.finfo(np.float32).eps * np.abs(v).max())
  if gap > 30:
    np.testing.assert_array_equal(ours, theirs)


def test_a_negative_inverse_temperature_prefers_the_smallest_logit():
  q, k, v = arrays(32, heads=1, scale=3.0)
  beta = -2.0
  ours = mixed(q, k, v, beta)
  weights = ops.softmax(beta * np.einsum("bthd,bshd->bhts", q, k))
  expected = np.einsum("bhts,bshd->bthd", weights, v)
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_masked_keys_do_not_matter_even_if_their_logits_are_the_largest():
  q, k, v = arrays(32, heads=1)
  mask = np.arange(32) < 20
  k[:, 20:] *= 1e4
  attend = jax.jit(ops.adaptive_temperature_attention)
  masked = attend(q, k, v, mask=mask)
  np.testing.assert_allclose(masked, attend(q, k[:, :20], v[:, :20]), atol=1e-6)


def test_the_route_over_a_fused_kernel_in_the_documentation():
  page = (pathlib.Path(__file__).parents[2] / "docs/math.md").read_text()
  (block,) = (b for b in page.split("```python\n")[1:] if "def fused_adaptive_attention" in b)
  names = {"jnp": jnp}
  exec(block.split("```")[0], names)

  def attend(q, k, v):
    logits = jnp.einsum("bthd,bshd->bhts", q, k) / FEATURES**0.5
    out = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(logits), v)
    return out, jnp.moveaxis(jax.nn.logsumexp(logits, -1), 1, 2)

  kernels = [attend]
  if "return_residual" in inspect.signature(jax.nn.dot_product_attention).parameters:  # newer jax
    kernels.append(partial(jax.nn.dot_product_attention, return_residual=True))
  q, k, v = arrays(24, scale=2.0)
  ours = jax.jit(ops.adaptive_temperature_attention)(q, k, v)
  fused = jax.jit(names["fused_adaptive_attention"], static_argnums=(3, 4))
  for kernel in kernels:
    np.testing.assert_allclose(fused(q, k, v, ops.entropy_polynomial, kernel), ours, atol=1e-4)
