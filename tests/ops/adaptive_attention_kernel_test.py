"""Tests of the attention kernels through the operation, interpreted: dense, edges, failures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

RNG = np.random.default_rng(0)
T, S, N, K, H, D = 20, 24, 4, 2, 12, 20
SIZES = (T, N, H), (S, K, H), (S, K, D)
SHAPE = np.float32([0.6, 0.5, 0.1])  # of the inverse temperature below

# Half the compile time, which is nearly all that programs on so few numbers cost.
jit = partial(
  jax.jit,
  compiler_options={
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  },
)


def arrays(*lead, dtype="float32"):
  return [jnp.asarray(RNG.normal(size=(*lead, *size)), dtype) for size in SIZES]


def learned(shape, entropy, count):
  """An inverse temperature with three parameters."""
  return shape[0] + shape[1] * entropy + shape[2] * jnp.log(count)


def attend(implementation, *inputs, **options):
  options |= {"implementation": implementation, "interpret": True}
  return ops.adaptive_temperature_attention(*inputs, **options)


def results(implementation, inputs, cotangent, **options):
  """Output, and gradients in queries, keys, values, the parameters of beta, and the scale."""

  @jit
  def run(inputs, shape, scale, cotangent):
    def output(inputs, shape, scale):
      beta = partial(learned, shape)
      return attend(implementation, *inputs, scale=scale, inverse_temperature=beta, **options)

    y, pull = jax.vjp(output, inputs, shape, scale)
    return y, pull(cotangent.astype(y.dtype))

  return jax.tree.leaves(run(inputs, SHAPE, 0.4, cotangent))


def assert_close(ours, theirs, loose):
  ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=loose * np.abs(theirs).max())


def test_leading_axes_shared_keys_and_a_traced_scale():
  inputs, cotangent = arrays(2, 1), np.float32(RNG.normal(size=(2, 1, T, N, D)))
  ours, theirs = (results(x, inputs, cotangent, is_causal=True) for x in ("kernel", "dense"))
  assert ours[0].shape == (2, 1, T, N, D)
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype == jnp.float32
    assert_close(a, b, 1e-5)


@pytest.mark.slow
def test_half_precision_with_beta_as_a_constant():
  inputs = arrays(1, dtype="bfloat16")
  cotangent = jnp.asarray(RNG.normal(size=(1, T, N, D)), jnp.bfloat16)
  wide = [x.astype(jnp.float32) for x in inputs]
  ours = results("kernel", inputs, cotangent, stop_gradient=True)
  theirs = results("dense", wide, cotangent.astype(jnp.float32), stop_gradient=True)
  assert [x.dtype for x in ours[:4]] == [jnp.bfloat16] * 4
  for a, b in zip(ours, theirs, strict=True):
    assert_close(a, b, 2**-6)  # weights and results are each rounded to 2^-9 of themselves
  assert (ours[4] == 0).all()  # no parameter of beta has a derivative


@pytest.mark.parametrize("backward", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_large_logits_keep_their_digits_at_a_large_inverse_temperature(backward):
  """Logits of 200 in steps of 1/64, exact in float32, at beta = 64: whole nats between weights."""
  query, key, value = (jnp.round(x) for x in arrays(1))
  query, key = (x.at[..., 0].set(113) for x in (query, key))
  options = {"scale": 2.0**-6, "inverse_temperature": lambda entropy, count: 64.0}

  def both(implementation):
    def output(*inputs):
      return attend(implementation, *inputs, **options)

    if not backward:
      return (output(query, key, value),)
    y, pull = jax.vjp(output, query, key, value)
    return y, *pull(jnp.cos(y))

  logits = jnp.einsum("btnh,bsnh->bnts", query, jnp.repeat(key, 2, 2)) / 64
  assert logits.min() > 190 and logits.max() < 210
  for a, b in zip(*(jit(partial(both, x))() for x in ("kernel", "dense")), strict=True):
    # The sum over keys that is a derivative cancels where all have 113.
    assert_close(a, b, 1e-4 if backward else 1e-5)


@pytest.mark.parametrize("bad", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_a_query_that_is_not_finite_poisons_its_row_alone(bad):
  query, key, value = arrays()
  query = query.at[5, 2, 0].set(bad)
  key = key.at[0, 1, 0].set(1.0)  # one logit of +inf at least
  out = jit(partial(attend, "kernel"))(query, key, value)
  assert np.isnan(out[5, 2]).all()
  rest = np.asarray(out).reshape(-1, D)
  assert np.isfinite(np.delete(rest, 5 * N + 2, 0)).all()
  expected = jit(partial(attend, "dense"))(query.at[5, 2].set(0), key, value)
  np.testing.assert_allclose(out[:5], expected[:5], atol=1e-5)


def test_no_keys():
  query, key, value = arrays(1)
  out = jit(partial(attend, "kernel"))(query, key[:, :0], value[:, :0])
  np.testing.assert_array_equal(out, np.zeros((1, T, N, D)))


Q, KEY, V = arrays(1)
WIDE = jnp.zeros((1, 4, 2, 257))


@pytest.mark.parametrize(
  ("inputs", "options", "message"),
  [
    ((Q, KEY, V), {"mask": np.ones((T, S), bool)}, 'mask is given .*implementation="stream"'),
    ((Q, KEY, V), {"local_window_size": 3}, "mask is given"),
    ((Q, KEY, V), {"key_value_seq_lengths": np.array([5])}, "mask is given"),
    ((Q, KEY, V), {"mask": np.ones((2, 2, T, S), bool)}, r"mask of shape \(2, 2, 20, 24\) does"),
    ((Q, KEY, V), {"bias": np.zeros((T, S), "f4")}, 'bias is given .*implementation="stream"'),
    ((Q, KEY, V), {"bias": np.zeros((5, 6), "f4")}, r"bias of shape \(5, 6\) does not"),
    ((WIDE, WIDE, WIDE), {}, "query of shape .* heads of 257 features .* 1 to 256"),
    ((Q, KEY[..., :3], V), {}, "key of shape .* does not fit query"),
  ],
)
def test_failures(inputs, options, message):
  with pytest.raises(ValueError, match=message):
    attend("kernel", *inputs, **options)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="runs there")
def test_without_a_gpu_the_kernel_must_be_interpreted():
  with pytest.raises(ValueError, match=r"interpret = None asks for a GPU .* interpret=True"):
    ops.adaptive_temperature_attention(Q, KEY, V, implementation="kernel")
