"""Tests of attention with any normaliser: jax.nn, public implementations, masks, failures."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/attention_variants.npz")
APPLE = sorted({key.rsplit("/", 2)[0] for key in GOLDEN if key.startswith("apple_attention/s")})
RNG = np.random.default_rng(0)
B, T, S, N, K, H = 2, 5, 7, 6, 3, 4
Q, KEY, V = (
  RNG.normal(size=shape).astype(np.float32) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, H))
)
BIAS, COTANGENT = (
  RNG.normal(size=shape).astype(np.float32) for shape in ((B, N, T, S), (B, T, N, H))
)
MASK = RNG.random((B, N, T, S)) < 0.7
MASK[..., 0] = True  # every query keeps a key: without one jax.nn takes the mean

# What is given beside queries, keys and values; a bias in the table is differentiated too.
CASES = {
  "plain": {},
  "scale": {"scale": 0.3},
  "bias": {"bias": BIAS},
  "bias per head": {"bias": BIAS[:1, :, :1]},
  "mask": {"mask": MASK},
  "mask of keys alone": {"mask": MASK[:, :1, :1]},
  "mask of two axes": {"mask": MASK[0, 0]},
  "causal": {"is_causal": True},
  "window": {"local_window_size": (3, 1)},
  "one-sided window": {"local_window_size": (2, 0), "is_causal": True},
  "symmetric window": {"local_window_size": 2},
  "key lengths": {"key_value_seq_lengths": np.array([7, 3], np.int32)},
  "query lengths": {"query_seq_lengths": np.array([2, 5], np.int32)},
  "all": {
    "bias": BIAS,
    "mask": MASK,
    "is_causal": True,
    "local_window_size": (4, 2),
    "query_seq_lengths": np.array([5, 3], np.int32),
    "key_value_seq_lengths": np.array([6, 4], np.int32),
  },
}


def results(attend, options, q=Q, k=KEY, v=V, cotangent=COTANGENT):
  """Output and gradients in queries, keys, values and bias."""
  options = dict(options)
  bias = options.pop("bias", None)

  @jax.jit
  def run(q, k, v, bias):
    y, pull = jax.vjp(lambda *x: attend(*x, **options), q, k, v, bias)
    return y, *pull(jnp.asarray(cotangent, y.dtype))

  return [np.asarray(x) for x in run(q, k, v, bias) if x is not None]


def assert_same(ours, theirs, loose):
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=loose, atol=loose)


@pytest.mark.parametrize("case", CASES)
def test_softmax_equals_jax(case):
  ours = results(ops.dot_product_attention, CASES[case])
  assert_same(ours, results(jax.nn.dot_product_attention, CASES[case]), 2e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_softmax_equals_jax_in_low_precision(dtype):
  q, k, v = (jnp.asarray(x, dtype) for x in (Q, KEY, V))
  ours = results(ops.dot_product_attention, CASES["all"], q, k, v)
  assert [x.dtype for x in ours] == [dtype] * 4 + [jnp.float32]
  if dtype == jnp.bfloat16:
    theirs = results(jax.nn.dot_product_attention, CASES["all"], q, k, v)
    assert_same(ours, theirs, 1e-5)
  else:  # which jax.nn cannot compile on a CPU
    wide = (x.astype(jnp.float32) for x in (q, k, v))
    theirs = results(jax.nn.dot_product_attention, CASES["all"], *wide)
    assert_same([x.astype(np.float32) for x in ours], theirs, 4e-3)


@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_softmax_equals_jax_for_shared_keys_and_one_example(key_heads):
  keys, values = (RNG.normal(size=(S, key_heads, H)).astype(np.float32) for _ in range(2))
  length = {"key_value_seq_lengths": np.array([4], np.int32)}
  for options in ({"bias": BIAS[0], "is_causal": True}, {"mask": MASK[:1], **length}):
    arrays = (Q[0], keys, values, COTANGENT[0])
    ours = results(ops.dot_product_attention, options, *arrays)
    assert_same(ours, results(jax.nn.dot_product_attention, options, *arrays), 2e-6)


def test_float64_is_kept_throughout():
  with jax.enable_x64(True):
    q, k, v = (jnp.asarray(x, jnp.float64) for x in (Q, KEY, V))
    out = ops.dot_product_attention(q, k, v, is_causal=True)
    logits = np.einsum("btnh,bsnh->bnts", Q.astype(float), np.repeat(KEY, 2, 2)) / 2
    weights = np.exp(logits) * np.tri(T, S)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bnts,bsnh->btnh", weights, np.repeat(V, 2, 2))
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("normalizer", [ops.softmax, ops.softpick])
def test_more_or_fewer_leading_axes_and_wider_values(normalizer):
  @jax.jit
  def attend(*x):
    return ops.dot_product_attention(
      *x[:5], key_value_seq_lengths=x[5], query_seq_lengths=x[5], normalizer=normalizer
    )

  wide = RNG.normal(size=(B, S, K, 9)).astype(np.float32)
  arrays = (Q, KEY, wide, BIAS, MASK, np.array([7, 3]))
  out = attend(*arrays)
  assert out.shape == (B, T, N, 9)
  same = partial(np.testing.assert_allclose, atol=1e-6)
  same(attend(*(x[None] for x in arrays))[0], out)
  same(attend(*(x[1] for x in arrays)), out[1])
  same(jax.vmap(attend)(*arrays), out)


def test_a_query_without_keys_gives_zeros_where_jax_takes_the_mean():
  mask = MASK.copy()
  mask[0, :, 1] = False
  y, *gradients = results(ops.dot_product_attention, {"mask": mask})
  theirs = jax.nn.dot_product_attention(Q, KEY, V, mask=mask)
  assert (y[0, 1] == 0).all() and (gradients[0][0, 1] == 0).all()
  np.testing.assert_allclose(theirs[0, 1], np.repeat(V[0].mean(0), 2, 0), atol=1e-6)
  rest = np.delete(y.reshape(B * T, -1), 1, 0)
  np.testing.assert_allclose(rest, np.delete(theirs.reshape(B * T, -1), 1, 0), atol=1e-6)
  bias = np.where(mask, 0, -np.inf).astype(np.float32)
  y, *gradients = results(ops.dot_product_attention, {"bias": bias})
  assert (y[0, 1] == 0).all() and all(np.isfinite(g).all() for g in gradients)
  assert (gradients[3][~mask] == 0).all()


def test_no_keys_at_all():
  assert (ops.dot_product_attention(Q, KEY[:, :0], V[:, :0]) == np.zeros_like(Q)).all()


def test_the_normaliser_sees_wide_logits_and_the_whole_mask():
  seen = []

  def uniform(logits, *, axis, where):
    seen.append((logits, where))
    return where / jnp.sum(where, axis, keepdims=True, dtype=logits.dtype)

  q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in (Q, KEY, V))
  out = ops.dot_product_attention(
    q,
    k,
    v,
    mask=MASK,
    is_causal=True,
    scale=2,
    key_value_seq_lengths=np.array([6, 4]),
    normalizer=uniform,
  )
  logits, where = seen[0]
  allowed = MASK & np.tri(T, S, dtype=bool) & (np.arange(S) < np.array([6, 4])[:, None, None, None])
  np.testing.assert_array_equal(where, allowed)
  exact = 2 * np.einsum("btnh,bsnh->bnts", *(np.asarray(x, float) for x in (q, k.repeat(2, 2))))
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=1e-5)  # the products are not rounded to bfloat16
  assert out.dtype == jnp.bfloat16


def test_arguments_of_the_normaliser_may_differ_between_heads():
  temperature = np.linspace(0.5, 2, N, dtype=np.float32)[:, None, None]
  mixed = ops.dot_product_attention(
    Q, KEY, V, normalizer=partial(ops.softmax, temperature=temperature[None])
  )
  for head in range(N):
    one = partial(ops.softmax, temperature=temperature[head, 0, 0])
    alone = ops.dot_product_attention(Q, KEY, V, normalizer=one)[:, :, head]
    np.testing.assert_allclose(mixed[:, :, head], alone, atol=1e-6)


def test_lengths_may_be_traced():
  attend = jax.jit(lambda n: ops.dot_product_attention(Q, KEY, V, key_value_seq_lengths=n))
  np.testing.assert_allclose(
    attend(np.array([7, 2]))[1], ops.dot_product_attention(Q, KEY[:, :2], V[:, :2])[1], atol=1e-6
  )


def golden_run(name, bits):
  """Output and gradients of an attention function of the public code, and ours."""

  def get(key):
    return jnp.asarray(GOLDEN[key], f"float{bits[1:]}")

  if name.startswith("apple"):
    return apple_run(name, bits, get)
  inputs = [get(f"naive_softpick_attn/x_{x}") for x in ("q_BTHD", "k", "v")]
  swap = (lambda x: x.swapaxes(1, 2)) if name.startswith("slow") else lambda x: x
  f = ops.softmax_plus_n if name.startswith("slow") else ops.softpick
  cotangent = "cotangent_BHTD" if name.startswith("slow") else "cotangent"
  attend = partial(ops.dot_product_attention, is_causal=True, normalizer=f)
  ours = results(attend, {}, *inputs, swap(get(f"{name}/{cotangent}")))
  keys = ("y_BHTD" if name.startswith("slow") else "y", "grad_q", "grad_k", "grad_v")
  return ours, [swap(GOLDEN[f"{name}/{bits}/{key}"]) for key in keys]


def apple_run(name, bits, get):
  map_name, bias, log_temperature = name.replace("/", "_").split("_", 2)[2].split("_")
  mix, out, mask = (
    get(f"apple_attention/{x}")
    for x in ("param_qkv.weight", "param_proj.weight", "additive_causal_mask")
  )
  bias, log_temperature = bias.removeprefix("bias"), log_temperature.removeprefix("logtemp")
  bias = -np.log(5) if bias == "-1.609" else float(bias)
  f = ops.softmax if map_name == "softmax" else partial(ops.sigmoid_weights, bias=bias)

  def attend(x):
    q, k, v = jnp.moveaxis((x @ mix.T).reshape(2, 5, 3, 2, 4), 2, 0)
    scale = 0.5 * np.exp(float(log_temperature))
    y = ops.dot_product_attention(q, k, v, mask, scale=scale, normalizer=f)
    return y.reshape(2, 5, 8) @ out.T

  x, cotangent = get("apple_attention/x"), get("apple_attention/cotangent")
  y, gradient = jax.jit(lambda x: (attend(x), jax.vjp(attend, x)[1](cotangent)[0]))(x)
  return (y, gradient), [GOLDEN[f"{name}/{bits}/{key}"] for key in ("y", "grad_x")]


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("name", ["naive_softpick_attn", "slow_attention_n1_causal", *APPLE])
def test_public_implementations(name, bits):
  loose = 1e-5 if bits == "f32" else 1e-6 if name == "naive_softpick_attn" else 1e-10
  with jax.enable_x64(bits == "f64"):
    for ours, theirs in zip(*golden_run(name, bits), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=loose, atol=loose)
