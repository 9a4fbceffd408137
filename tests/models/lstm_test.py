"""The LSTM: its recurrence against two others, its dropouts, and the state that it carries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rankbias.models import build_model
from rankbias.models.lstm import recur

TINY = {"vocabulary": 11, "embedding": 5, "width": 7, "features": 6}
TOKENS = np.random.default_rng(0).integers(0, 11, (3, 9)).astype(np.int32)
KEYS = jax.random.split(jax.random.key(3), 3)


def make(**options):
  model = build_model("lstm", **TINY, **options)
  return model, jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def plain(params, tokens):
  """The recurrence of every sequence, layer and step one after the other, in NumPy."""
  h = np.float64(params["embed"]["embedding"])[tokens]
  for layer in ("layer1", "layer2"):
    own = jax.tree.map(np.float64, params[f"{layer}_input"])
    kernel = np.float64(params[f"{layer}_recurrent"]["kernel"])
    out = np.zeros((*tokens.shape, len(kernel)))
    for b in range(len(tokens)):
      state = cell = np.zeros(len(kernel))
      for t in range(tokens.shape[1]):
        gates = h[b, t] @ own["kernel"] + own["bias"] + state @ kernel
        i, f, g, o = np.split(gates, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = out[b, t] = sigmoid(o) * np.tanh(cell)
    h = out
  return h


def test_the_features_are_those_of_a_plain_loop():
  model, params = make()
  features, acts = jax.jit(model.apply)({"params": params}, TOKENS)
  assert features.shape == (3, 9, 6)
  assert acts["layer1"].shape == (3, 9, 7) and acts["embedding"].shape == (3, 9, 5)
  np.testing.assert_allclose(features, plain(params, TOKENS), rtol=1e-5, atol=1e-6)


def test_one_layer_is_flax_s():
  rng = np.random.default_rng(1)
  inputs, bias = rng.normal(size=(2, 6, 4)), rng.normal(size=12)
  into, kernel = rng.normal(size=(4, 12)), rng.normal(size=(3, 12))
  zeros = jnp.zeros((2, 3))
  gates = jnp.asarray((inputs @ into + bias).swapaxes(0, 1), jnp.float32)
  outputs, state = jax.jit(recur)(gates, jnp.float32(kernel), {"h": zeros, "c": zeros})
  params = {}
  for place, gate in enumerate("ifgo"):
    own = slice(3 * place, 3 * place + 3)
    params[f"i{gate}"] = {"kernel": jnp.float32(into[:, own])}
    params[f"h{gate}"] = {"kernel": jnp.float32(kernel[:, own]), "bias": jnp.float32(bias[own])}
  scan = nn.RNN(nn.OptimizedLSTMCell(3), return_carry=True)
  apply = jax.jit(lambda x: scan.apply({"params": {"cell": params}}, x))
  (cell, hidden), expected = apply(jnp.float32(inputs))
  np.testing.assert_allclose(outputs.swapaxes(0, 1), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(state["h"], hidden, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(state["c"], cell, rtol=1e-5, atol=1e-6)


def test_two_windows_with_the_carried_state_are_one_long_window():
  model, params = make()
  train = jax.jit(
    lambda x, carry: model.apply({"params": params, **carry}, x, True, mutable="carry")
  )
  carry, parts = {"carry": {"state": model.start(3)}}, []
  for window in np.split(TOKENS, 3, axis=1):
    (features, _), carry = train(window, carry)
    parts.append(features)
  whole = jax.jit(model.apply)({"params": params}, TOKENS)[0]
  np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)


def test_evaluation_and_a_model_without_carry_start_from_zero():
  model, params = make()
  ones = {"carry": {"state": jax.tree.map(jnp.ones_like, model.start(3))}}
  apply = jax.jit(model.apply, static_argnums=2)
  fresh = apply({"params": params}, TOKENS, False)[0]
  np.testing.assert_array_equal(apply({"params": params, **ones}, TOKENS, False)[0], fresh)
  np.testing.assert_array_equal(apply({"params": params}, TOKENS, True)[0], fresh)
  assert np.abs(apply({"params": params, **ones}, TOKENS, True)[0] - fresh).max() > 0.01


def test_gradients_stay_inside_the_window():
  model, params = make()

  def after(params):
    carry = {"carry": {"state": model.start(3)}}
    _, carry = model.apply({"params": params, **carry}, TOKENS, True, mutable="carry")
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(carry))

  value, slope = jax.jit(jax.value_and_grad(after))(params)
  assert value != 0
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("name", ["dropout", "hidden_dropout", "input_dropout"])
def test_locked_masks_are_constant_over_time_and_of_each_sequence(name):
  model, params = make(**{name: 0.5})
  apply = jax.jit(lambda keys: model.apply({"params": params}, TOKENS, True, keys)[1])
  acts, again = apply(KEYS), apply(KEYS[::-1])
  layer = {"dropout": "features", "hidden_dropout": "layer1", "input_dropout": "layer1"}[name]
  assert np.abs(acts[layer] - again[layer]).max() > 1e-4  # another key, another mask
  np.testing.assert_array_equal(acts[layer][1], again[layer][1])
  if name != "input_dropout":
    dropped = np.asarray(acts[layer] == 0)
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 9, 1))
    assert 0 < dropped.mean() < 1
    assert len({mask.tobytes() for mask in dropped[:, 0]}) == 3
    untouched = jax.jit(model.apply)({"params": params}, TOKENS)[1][layer]
    kept = np.where(dropped, 0, 2 * untouched)
    np.testing.assert_allclose(acts[layer], kept, rtol=1e-5, atol=1e-7)


def test_dropped_features_are_as_many_as_asked_for_and_keep_the_mean():
  model = build_model("lstm", vocabulary=4, embedding=2, width=500, depth=1, dropout=0.3)
  tokens = np.zeros((64, 1), np.int32)
  params = jax.jit(model.init)(jax.random.key(0), tokens)
  keys = jax.random.split(jax.random.key(1), 64)
  features = jax.jit(lambda: model.apply(params, tokens, True, keys)[0])()
  whole = jax.jit(model.apply)(params, tokens)[0]
  share = 0.3 * 0.7 / features.size
  assert abs((features == 0).mean() - 0.3) < 5 * np.sqrt(share)
  ratio = (features / whole)[:, 0]
  assert abs(ratio.mean() - 1) < 5 * np.sqrt(share) / 0.7


def test_weight_dropout_is_one_mask_for_all_sequences_and_times():
  model, params = make(weight_dropout=0.5)
  alike = np.repeat(TOKENS[:1], 3, 0)
  train = jax.jit(
    lambda key: model.apply({"params": params}, alike, True, rngs={"weights": key})[0]
  )
  features = train(jax.random.key(1))
  np.testing.assert_array_equal(features[1:], features[:1].repeat(2, 0))
  assert np.abs(features - train(jax.random.key(2))).max() > 1e-3
  off = jax.jit(lambda: model.apply({"params": params}, alike, True)[0])()
  np.testing.assert_allclose(off[0], plain(params, alike)[0], rtol=1e-5, atol=1e-6)
  # the recurrence is linear in W to first order, so the first step knows nothing of the mask
  np.testing.assert_array_equal(features[:, 0], off[:, 0])
  assert np.abs(features[:, 1:] - off[:, 1:]).max() > 1e-3


def test_weight_dropout_has_its_rate_and_mean():
  model = build_model("lstm", weight_dropout=0.2, word_dropout=0.4, **TINY)

  def drawn(name, shape):
    def masks(module):
      return module.kept(name, shape, "float32")

    key = {"weights": jax.random.key(0)}
    return jax.jit(lambda: nn.apply(masks, model)({}, rngs=key))()

  for name, rate, shape in (("weight_dropout", 0.2, (100, 400)), ("word_dropout", 0.4, (9000, 1))):
    mask = drawn(name, shape)
    spread = 5 * np.sqrt(rate * (1 - rate) / mask.size)
    assert abs((mask == 0).mean() - rate) < spread
    assert set(np.unique(mask)) == {0, np.float32(1 / (1 - rate))}


def test_a_dropped_word_is_dropped_everywhere():
  model, params = make(word_dropout=0.5)
  key = {"weights": jax.random.key(0)}
  acts = jax.jit(lambda: model.apply({"params": params}, TOKENS, True, rngs=key)[1])()
  table = np.asarray(params["embed"]["embedding"])
  factor = np.asarray(acts["embedding"]) / table[TOKENS]
  np.testing.assert_allclose(factor, np.round(factor), atol=1e-5)
  each = {int(word): set(np.round(factor[word == TOKENS]).ravel()) for word in np.unique(TOKENS)}
  assert all(len(found) == 1 for found in each.values())
  assert {found.pop() for found in each.values()} == {0.0, 2.0}


def test_initial_values():
  model = build_model("lstm", vocabulary=50, embedding=20, width=64, features=16)
  params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]
  for layer, units in (("layer1", 64), ("layer2", 16)):
    bias = np.asarray(params[f"{layer}_input"]["bias"]).reshape(4, units)
    np.testing.assert_array_equal(bias, np.array([[0], [1], [0], [0]]) * np.ones((1, units)))
    for part in ("input", "recurrent"):
      kernel = np.asarray(params[f"{layer}_{part}"]["kernel"])
      assert 0.95 * units**-0.5 < np.abs(kernel).max() <= units**-0.5
      assert abs(kernel.mean()) < 5 * units**-0.5 / np.sqrt(3 * kernel.size)
  assert 0.09 < np.abs(params["embed"]["embedding"]).max() <= 0.1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"width": 0}, r"width=0 must be at least 1"),
    ({"features": 0}, r"features=0 must be at least 1"),
    ({"depth": 1, "features": 3}, r"features=3 with depth=1.*set width=3, or depth=2"),
    ({"weight_dropout": 1.0}, r"weight_dropout=1.0 must lie in \[0, 1\)"),
    ({"dropout": -0.1}, r"dropout=-0.1 must lie in \[0, 1\)"),
  ],
)
def test_bad_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    build_model("lstm", **{**TINY, **options})
