"""Tests of attention at an adaptive temperature: stream against dense, jax.nn, edges, failures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops
from rankbias.ops import attention_stream

RNG = np.random.default_rng(0)
B, T, S, N, K, H, D = 2, 11, 13, 6, 3, 4, 5
BLOCK = (1, 4, 5)  # three blocks along both lengths, none of which it divides
Q, KEY, V, BIAS, COTANGENT = (
  RNG.normal(size=shape)
  for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, D), (B, N, T, S), (B, T, N, D))
)
MASK = RNG.random((B, N, T, S)) < 0.6
MASK[0, :, 3] = False  # a query without keys
SHAPE = np.array([0.6, 0.5, 0.1])  # of the inverse temperature below

CASES = {
  "plain": {},
  "causal": {"is_causal": True},
  "bias": {"bias": BIAS},
  "bias per head": {"bias": BIAS[:1, :, :1]},
  "bias of -inf": {"bias": np.where(MASK, BIAS, -np.inf)},
  "mask of keys alone": {"mask": MASK[:, :1, :1]},
  "window": {"local_window_size": (3, 1)},
  "lengths": {
    "key_value_seq_lengths": np.array([13, 4]),
    "query_seq_lengths": np.array([3, 9]),
  },
  "all": {
    "bias": BIAS[0],
    "mask": MASK,
    "scale": 0.3,
    "is_causal": True,
    "local_window_size": (6, 2),
    "query_seq_lengths": np.array([11, 7]),
    "key_value_seq_lengths": np.array([12, 8]),
  },
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  for function in (attention_stream.stream_moments, attention_stream.stream_mix):
    while hasattr(function, "__wrapped__"):
      function = function.__wrapped__
    monkeypatch.setitem(function.__kwdefaults__, "block", BLOCK)


SINGLE = [x.astype(np.float32) for x in (Q, KEY, V)]
BOTH = ("stream", "dense")

# Half the compile time, which is nearly all that programs on so few numbers cost.
jit = partial(
  jax.jit,
  compiler_options={
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  },
)


def learned(shape, entropy, count):
  """An inverse temperature with three parameters."""
  return shape[0] + shape[1] * entropy + shape[2] * jnp.log(count)


def results(implementation, options, arrays=(Q, KEY, V), shape=SHAPE, cotangent=COTANGENT):
  """Output and gradients in queries, keys, values, parameters and bias."""
  options = dict(options, implementation=implementation)
  bias = options.pop("bias", None)

  @jit
  def run(q, k, v, shape, bias):
    def attend(q, k, v, shape, bias):
      own = {} if shape is None else {"inverse_temperature": partial(learned, shape)}
      return ops.adaptive_temperature_attention(q, k, v, bias, **own, **options)

    y, pull = jax.vjp(attend, q, k, v, shape, bias)
    return y, *pull(jnp.asarray(cotangent, y.dtype))

  found = run(*(jnp.asarray(x) for x in arrays), shape, bias)
  return [np.asarray(x) for x in found if x is not None]


def forward(implementation, arrays, *bias, **options):
  """The output alone, compiled as one program."""
  attend = partial(ops.adaptive_temperature_attention, implementation=implementation, **options)
  return np.array(jit(attend)(*arrays, *bias))


def assert_same(ours, theirs, loose):
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=loose, atol=loose)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_stream_equals_dense(case):
  with jax.enable_x64(True):
    ours, theirs = (results(x, CASES[case]) for x in BOTH)
    assert_same(ours, theirs, 1e-12)
    assert all(np.isfinite(x).all() for x in ours)


@pytest.mark.parametrize("case", ["plain", "all"])
def test_stream_equals_dense_without_the_gradient_through_beta(case):
  with jax.enable_x64(True):
    options = {**CASES[case], "stop_gradient": True}
    ours, theirs = (results(x, options) for x in BOTH)
    assert_same(ours, theirs, 1e-12)
    through = results("stream", CASES[case])
    assert np.abs(through[1] - ours[1]).max() > 0.01 and (ours[4] == 0).all()


@pytest.mark.parametrize("case", ["causal", "all"])
def test_stream_equals_dense_in_float32_at_the_published_temperature(case):
  arrays = [3 * x for x in SINGLE]
  options = dict(CASES[case])
  if "bias" in options:
    options["bias"] = options["bias"].astype(np.float32)
  ours, theirs = (results(x, options, arrays, None) for x in BOTH)
  # Logits of some 30 carry an error of 30 / 2^24, and the entropy's slope in them that of beta.
  assert_same(ours, theirs, 1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
  arrays = [jnp.asarray(x, dtype) for x in (Q, KEY, V)]
  ours = results("stream", {"is_causal": True}, arrays, np.float32(SHAPE))
  assert [x.dtype for x in ours] == [dtype] * 4 + [np.float32]
  wide = [x.astype(jnp.float32) for x in arrays]
  theirs = results("stream", {"is_causal": True}, wide, np.float32(SHAPE))
  unit = float(jnp.finfo(dtype).eps)
  # The cotangent too is rounded: to half a unit, and the results to another half.
  assert_same([x.astype(np.float32) for x in ours], theirs, 3 * unit)
  np.testing.assert_array_equal(ours[0], theirs[0].astype(dtype))


def test_gradients_by_differences():
  with jax.enable_x64(True):
    options = {k: v for k, v in CASES["all"].items() if k != "bias"}

    @jax.jit
    def attend(q, k, v, bias, shape):
      temperature = partial(learned, shape)
      return ops.adaptive_temperature_attention(
        q, k, v, bias, inverse_temperature=temperature, **options
      )

    check_grads(attend, (Q, KEY, V, BIAS, SHAPE), 1, ("rev",), atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("case", ["plain", "causal", "bias", "lengths"])
def test_at_temperature_one_it_is_the_attention_of_jax(case):
  options = {k: np.asarray(v, np.float32) if k == "bias" else v for k, v in CASES[case].items()}
  theirs = jax.nn.dot_product_attention(*SINGLE[:2], SINGLE[2][..., :H], **options)
  for implementation in BOTH:
    ours = forward(implementation, SINGLE, **options, inverse_temperature=lambda h, n: 1)
    np.testing.assert_allclose(ours[..., :H], theirs, atol=2e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, -1.5, 40.0, -40.0, 1e30])
def test_any_inverse_temperature(beta):
  own = {"mask": MASK, "inverse_temperature": lambda entropy, count: beta}
  ours, theirs = (forward(x, SINGLE, **own) for x in BOTH)
  assert np.isfinite(ours).all()
  np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_one_number_a_head_broadcasts_with_the_axes_that_were_given():
  per_head = np.float32(RNG.uniform(0.5, 2, size=(N, 1, 1)))
  own = {"inverse_temperature": lambda entropy, count: per_head}
  expected = forward("dense", SINGLE, **own)
  same = partial(np.testing.assert_allclose, atol=1e-6)
  same(forward("stream", SINGLE, **own), expected)
  same(forward("stream", [x[None] for x in SINGLE], **own)[0], expected)
  same(forward("stream", [x[1] for x in SINGLE], **own), expected[1])
  attend = jax.vmap(partial(ops.adaptive_temperature_attention, **own))
  same(jit(attend)(*SINGLE), expected)


def test_more_leading_axes_with_a_bias_of_some():
  arrays = [np.float32(RNG.normal(size=(3, 2, *x.shape[1:]))) for x in (Q, KEY, V)]
  bias = np.float32(RNG.normal(size=(2, 1, T, S)))
  options = {"mask": MASK[:, :1], "bias": bias, "key_value_seq_lengths": np.array([[13, 4]])}
  ours, theirs = (forward(x, arrays, **options) for x in BOTH)
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_traced_scale_has_a_derivative():
  def total(implementation, scale):
    out = ops.adaptive_temperature_attention(Q, KEY, V, scale=scale, implementation=implementation)
    return jnp.sum(out * COTANGENT)

  with jax.enable_x64(True):
    ours, theirs = (jit(jax.grad(partial(total, x)))(0.5) for x in BOTH)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_poisons_its_query_alone(implementation, bad):
  bias = BIAS.astype(np.float32)
  bias[0, 2, 5, 7] = bad
  out = forward(implementation, SINGLE, bias)
  assert (np.isnan(out).all(-1) == (np.indices(out.shape[:-1]).T == [0, 5, 2]).all(-1).T).all()
  assert np.isfinite(np.delete(out, 5, 1)).all()


def test_no_keys_no_queries():
  """Whatever the implementation: of no numbers there is nothing to stream."""
  attend = ops.adaptive_temperature_attention
  assert (attend(Q, KEY[:, :0], V[:, :0]) == np.zeros((B, T, N, D))).all()
  assert attend(Q[:, :0], KEY, V).shape == (B, 0, N, D)
  assert attend(Q, KEY, V[..., :0]).shape == (B, T, N, 0)


def test_failures_are_those_of_attention():
  attend = ops.adaptive_temperature_attention
  with pytest.raises(ValueError, match=r"key of shape \(1, 13, 3, 4\) does not fit query"):
    attend(Q, KEY[:1], V)
  for implementation in ("stream", "dense"):
    fail = partial(attend, Q, KEY, V, implementation=implementation)
    with pytest.raises(ValueError, match=r"mask of shape \(2, 2, 11, 13\) does not"):
      fail(mask=MASK[:, :2])
    with pytest.raises(ValueError, match=r"bias of shape \(5, 6\) does not"):
      fail(np.ones((5, 6)))
    with pytest.raises(ValueError, match=r"query_seq_lengths of shape \(3,\) does not"):
      fail(query_seq_lengths=np.array([1, 2, 3]))


@pytest.mark.parametrize("implementation", BOTH)
def test_an_inverse_temperature_that_fits_no_row(implementation):
  with pytest.raises(ValueError, match="one number a row"):
    forward(implementation, SINGLE, inverse_temperature=lambda h, n: jnp.ones((1, 1, 1, S)))


def test_unknown_implementation():
  message = "implementation = 'flash' is unknown: choose from dense, stream, kernel."
  with pytest.raises(ValueError, match=message):
    ops.adaptive_temperature_attention(Q, KEY, V, implementation="flash")
