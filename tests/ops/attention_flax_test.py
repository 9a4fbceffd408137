"""Tests of attention inside Flax: equal to Flax's own at softmax, and every map trains."""

from functools import partial

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rankbias import ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 7, 16)).astype(np.float32)
LENGTHS = np.array([7, 4, 1])[:, None]
PADDING = nn.make_attention_mask(np.arange(7) < 7 * np.ones((3, 1)), np.arange(7) < LENGTHS)

# What the maps without defaults of their own need in these tests.
OWN = {
  "topk_softmax": {"k": 3},
  "t_softmax": {"t": 2.0},
  "r_softmax": {"rate": 0.3},
  "multimax": {"ranges": (0.5, 1.5), "slopes": (-1.0, -0.5)},
  "exponential_mechanism": {"epsilon": 2.0},
  "power_mechanism": {"alpha": 2.0},
}


def bound(name):
  """The map of that name with its own arguments; powers are taken of positive numbers."""
  f = partial(ops.NORMALIZERS[name], **OWN.get(name, {}))
  if name != "power_mechanism":
    return f
  return lambda logits, **options: f(jax.nn.softplus(logits), **options)


def flax_results(attention_fn, **options):
  """Output, gradients and sown weights of Flax's module around an attention function."""
  module = nn.MultiHeadDotProductAttention(num_heads=4, attention_fn=attention_fn, **options)
  variables = jax.jit(partial(module.init, deterministic=True))(jax.random.key(0), X)

  def run(variables, x):
    y, sown = module.apply(
      variables,
      x,
      mask=PADDING,
      deterministic=False,
      rngs={"dropout": jax.random.key(1)},
      sow_weights=True,
      mutable=["intermediates"],
    )
    return jnp.sum(jnp.sin(y)), (y, sown["intermediates"]["attention_weights"][0])

  (_, aux), gradients = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))(variables, X)
  return aux, gradients


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_softmax_equals_flax(rate, broadcast):
  options = {"dropout_rate": rate, "broadcast_dropout": broadcast}
  ours = flax_results(ops.flax_attention(), **options)
  theirs = flax_results(nn.dot_product_attention, **options)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6), ours, theirs)


@pytest.mark.parametrize("broadcast", [True, False])
def test_dropout_drops_what_flax_drops(broadcast):
  """With the identity as values the output is the weights."""
  x = RNG.normal(size=(2, 8, 3, 8)).astype(np.float32)
  values = np.broadcast_to(np.eye(8, dtype=np.float32)[:, None], x.shape)
  options = {"dropout_rate": 0.4, "broadcast_dropout": broadcast, "dropout_rng": jax.random.key(5)}
  ours = ops.flax_attention()(x, x, values, **options)
  theirs = nn.dot_product_attention(x, x, values, **options)
  np.testing.assert_array_equal(ours == 0, theirs == 0)
  assert 0.3 < np.mean(ours == 0) < 0.5
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.slow
def test_low_precision_differs_by_its_rounding(wide):
  options = {"dtype": jnp.bfloat16, "force_fp32_for_softmax": wide, "dropout_rate": 0.3}
  ours = flax_results(ops.flax_attention(), **options)
  theirs = flax_results(nn.dot_product_attention, **options)
  exact = flax_results(nn.dot_product_attention, dropout_rate=0.3)
  jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), ours, theirs)
  parts = [[*aux, jax.flatten_util.ravel_pytree(grads)[0]] for aux, grads in (ours, theirs, exact)]
  for a, b, c in zip(*parts, strict=True):
    a, b, c = (np.asarray(x, np.float32) for x in (a, b, c))
    error, limit = np.linalg.norm(a - c), np.linalg.norm(b - c)
    assert error <= 1.1 * limit and error <= 0.02 * np.linalg.norm(c)


def test_nnx_module_with_shared_keys():
  results = []
  for attention_fn in (ops.flax_attention(), nnx.dot_product_attention):
    module = nnx.MultiHeadAttention(
      num_heads=4,
      num_kv_heads=2,
      in_features=16,
      decode=False,
      dropout_rate=0.3,
      attention_fn=attention_fn,
      rngs=nnx.Rngs(0),
    )
    dropped = module(X, deterministic=False, rngs=nnx.Rngs(3), is_causal=True)

    @nnx.capture(nnx.Intermediate)
    def sown(module):
      return module(X, mask=PADDING, deterministic=True, sow_weights=True)

    results.append((dropped, sown(module)))
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6), *results)


def test_autoregressive_decoding_equals_causal_attention():
  attention_fn = ops.flax_attention(ops.adaptive_temperature_softmax)
  options = {"num_heads": 4, "attention_fn": attention_fn}
  module = nn.MultiHeadDotProductAttention(**options, decode=True)
  variables = module.init(jax.random.key(0), X)
  whole = nn.MultiHeadDotProductAttention(**options)
  expected = whole.apply({"params": variables["params"]}, X, mask=nn.make_causal_mask(X[..., 0]))

  def step(cache, token):
    y, changed = module.apply(
      {"params": variables["params"], "cache": cache}, token[:, None], mutable=["cache"]
    )
    return changed["cache"], y[:, 0]

  _, out = jax.lax.scan(step, variables["cache"], jnp.swapaxes(X, 0, 1))
  np.testing.assert_allclose(out.swapaxes(0, 1), expected, atol=1e-5)


def test_a_query_without_keys_gives_zeros():
  mask = np.array([[True, True], [False, False]])[None]
  x = RNG.normal(size=(2, 1, 4)).astype(np.float32)
  assert (ops.flax_attention()(x, x, x, mask=mask)[1] == 0).all()
  np.testing.assert_allclose(nn.dot_product_attention(x, x, x, mask=mask)[1], x.mean(0), atol=1e-6)


def test_bias_scale_and_own_einsums():
  x = RNG.normal(size=(2, 5, 3, 4)).astype(np.float32)
  bias = RNG.normal(size=(5, 5)).astype(np.float32)
  seen = []

  def einsum(formula, *arrays):
    seen.append(formula)
    return jnp.einsum(formula, *arrays)

  out = ops.flax_attention(scale=0.25)(
    x, x, x, bias, qk_attn_weights_einsum=einsum, attn_weights_value_einsum=einsum
  )
  expected = ops.dot_product_attention(x, x, x, bias, scale=0.25)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  assert seen == ["...qhd,...khd->...hqk", "...hqk,...khd->...qhd"]


class Classifier(nn.Module):
  """One layer of attention between embeddings and the mean of the tokens."""

  attention_fn: object

  @nn.compact
  def __call__(self, tokens, deterministic):
    x = nn.Embed(5, 8)(tokens) + nn.Embed(6, 8)(jnp.broadcast_to(jnp.arange(6), tokens.shape))
    mask = nn.make_attention_mask(tokens > 0, tokens > 0)  # 0 is padding
    layer = nn.MultiHeadDotProductAttention(
      num_heads=2, dropout_rate=0.1, attention_fn=self.attention_fn
    )
    return nn.Dense(4)((x + layer(x, mask=mask, deterministic=deterministic)).mean(1))


@pytest.fixture(scope="module")
def task():
  """Sixteen examples whose class is the token after the only 1, and where training starts."""
  rng = np.random.default_rng(1)
  tokens = rng.integers(2, 5, (16, 6))
  place = rng.integers(0, 4, 16)
  tokens[np.arange(16), place] = 1
  tokens[:, 5] *= rng.random(16) < 0.5
  labels = tokens[np.arange(16), place + 1] - 2
  return tokens, labels, Classifier(ops.flax_attention()).init(jax.random.key(0), tokens, True)


@pytest.mark.parametrize("name", list(ops.NORMALIZERS))
@pytest.mark.slow
def test_every_map_trains(name, task):
  tokens, labels, params = task
  model, adam = Classifier(ops.flax_attention(bound(name))), optax.adam(0.03)

  def loss(params, key):
    logits = model.apply(params, tokens, False, rngs={"dropout": key})
    return ops.cross_entropy(logits, labels).mean()

  def step(carry, key):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params, key)
    updates, state = adam.update(grads, state)
    query = grads["params"]["MultiHeadDotProductAttention_0"]["query"]["kernel"]
    finite = jnp.isfinite(jax.flatten_util.ravel_pytree(grads)[0]).all()
    return (optax.apply_updates(params, updates), state), (value, jnp.abs(query).max(), finite)

  keys = jax.random.split(jax.random.key(1), 40)
  train = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[1])
  losses, slopes, finite = jax.device_get(train((params, adam.init(params))))
  assert np.isfinite(losses).all() and np.all(finite) and slopes.max() > 0
  assert losses[-5:].mean() < 0.6 * losses[0]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"dropout_rate": 0.5}, "dropout_rng = None with dropout_rate = 0.5: pass a key"),
    ({"dropout_rate": 1.0, "dropout_rng": jax.random.key(0)}, r"dropout_rate = 1.0 must lie in \["),
    ({"attn_weights_value_einsum": jnp.einsum}, "pass both einsums and no precision, or neither"),
    ({"mask": np.ones((2, 5))}, r"mask of shape \(2, 5\) does not broadcast to \(2, 3, 5, 5\)"),
  ],
)
def test_failures(options, message):
  x = np.zeros((2, 5, 3, 4), np.float32)
  with pytest.raises(ValueError, match=message):
    ops.flax_attention()(x, x, x, **options)
