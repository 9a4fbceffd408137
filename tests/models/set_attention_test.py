"""The network of max retrieval against its unfolded equations, in NumPy and float64."""

from functools import partial

import jax
import numpy as np
import pytest

from rankbias.models import build_model

RNG = np.random.default_rng(0)
WIDTH, ITEMS = 8, 7
SETS = np.float32(RNG.uniform(size=(3, 1 + ITEMS, 5)))
ALL = {"depth": 2, "projection_bias": True, "scale_logits": True, "length_scale": True}


def gelu(x):
  return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def drawn(path, leaf):
  """Kernels that keep the scale; biases and the rest away from their initial values."""
  fan = leaf.shape[0] if leaf.ndim == 2 else 4
  return np.float32(RNG.normal(size=leaf.shape) / np.sqrt(fan))


def unfolded(p, x, *, depth, projection_bias, scale_logits, length_scale):
  """h = psi(x); q = Q h_q, k_i = K h_i, v_i = V h_i; softmax(s q . k_i) over i; sum a_i v_i."""
  p = jax.tree.map(np.float64, p)

  def dense(name, h):
    return h @ p[name]["kernel"] + p[name].get("bias", 0)

  def encode(name, h):
    for i in range(1, depth + 1):
      h = gelu(dense(f"{name}{i}", h))
    return dense(f"{name}{depth + 1}", h)

  items, query = encode("item_mlp", x[:, 1:]), encode("query_mlp", x[:, 0, :1])
  assert projection_bias == all("bias" in p[name] for name in ("query", "key", "value"))
  query = dense("query", query)
  keys = items @ p["key"]["kernel"] + p["key"].get("bias", 0)
  logits = np.einsum("bd,bnd->bn", query, keys)
  if scale_logits:
    logits /= np.sqrt(WIDTH)
  if length_scale:
    logits *= p["length_slope"] * np.log(ITEMS) + p["length_offset"]
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  h = np.einsum("bn,bnd->bd", weights, dense("value", items))
  for i in range(1, depth + 1):
    h = gelu(dense(f"predictor{i}", h))
  return h, logits, weights


@pytest.mark.parametrize("chosen", [(), *((name,) for name in ALL), tuple(ALL)], ids="+".join)
def test_the_folded_network_is_the_unfolded_one(chosen):
  off = {"depth": 1, "projection_bias": False, "scale_logits": False, "length_scale": False}
  options = off | {name: ALL[name] for name in chosen}
  model = build_model("set_attention", width=WIDTH, **options)
  shapes = jax.eval_shape(model.init, jax.random.key(0), SETS)
  variables = jax.tree_util.tree_map_with_path(drawn, shapes)
  features, acts = jax.jit(partial(model.apply, train=False))(variables, SETS)
  expected, logits, weights = unfolded(variables["params"], np.float64(SETS), **options)
  np.testing.assert_allclose(acts["attention/logits"], logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(acts["attention/weights"], weights, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
  assert np.ptp(weights, -1).min() > 1e-3 and np.abs(expected).max() > 0.05


def test_the_bias_of_the_keys_changes_no_weight():
  model = build_model("set_attention", width=WIDTH, projection_bias=True)
  shapes = jax.eval_shape(model.init, jax.random.key(0), SETS)
  variables = jax.tree_util.tree_map_with_path(drawn, shapes)
  apply = jax.jit(partial(model.apply, train=False))
  before = apply(variables, SETS)[1]
  variables["params"]["key"]["bias"] += np.float32(3)
  after = apply(variables, SETS)[1]
  np.testing.assert_allclose(after["attention/weights"], before["attention/weights"], atol=1e-5)
  assert np.abs(after["attention/logits"] - before["attention/logits"]).max() > 1e-2
