"""The Transformer: what a token sees, what its logits depend on, and which normaliser is used."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.models import build_model
from rankbias.models.self_attention import rope

TOKENS = np.random.default_rng(0).integers(0, 16, size=(3, 9)).astype(np.int32)


@cache
def tiny(**own):
  """A model and its variables; kernels are larger than at the start of training."""
  options = {"vocabulary": 16, "width": 16, "depth": 2, "heads": 4} | own
  model = build_model("transformer", **options)
  variables = jax.jit(model.init)(jax.random.key(1), TOKENS)
  return model, jax.tree.map(lambda leaf: 1.5 * leaf, variables)


def evaluate(model, variables, tokens=TOKENS, keys=None):
  return jax.jit(partial(model.apply, train=False))(variables, tokens, keys=keys)


def test_layers_are_what_the_docstring_says():
  model, variables = tiny(kv_heads=2, length_scale=True)
  p = jax.tree.map(np.float64, variables["params"])
  p["layer1_attention"]["length_slope"] += np.arange(4)[:, None, None] / 4

  def norm(x, name):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"]

  def turned(x):  # complex numbers in place of pairs
    angle = np.arange(9)[:, None] * 10_000.0 ** -(np.arange(2) / 2)
    z = (x[..., :2] + 1j * x[..., 2:]) * np.exp(1j * angle)[:, None]
    return np.concatenate([z.real, z.imag], -1)

  h = p["embed"]["embedding"][TOKENS]
  for i in (1, 2):
    own, x = p[f"layer{i}_attention"], norm(h, f"layer{i}_norm1")
    q, k, v = ((x @ own[name]["kernel"]).reshape(3, 9, -1, 4) for name in ("query", "key", "value"))
    k, v = (np.repeat(array, 2, axis=2) for array in (k, v))
    logits = np.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) / 2
    logits *= own["length_slope"] * np.log(np.arange(1, 10))[:, None] + own["length_offset"]
    weights = np.exp(logits) * np.tri(9)
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(3, 9, 16)
    h = h + mixed @ p[f"layer{i}_output"]["kernel"]
    hidden = norm(h, f"layer{i}_norm2") @ p[f"layer{i}_mlp1"]["kernel"]
    h = h + np.asarray(jax.nn.gelu(hidden)) @ p[f"layer{i}_mlp2"]["kernel"]
  params = jax.tree.map(np.float32, p)
  features, acts = evaluate(model, {"params": params})
  np.testing.assert_allclose(acts["layer2/attention_weights"], weights, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(features, norm(h, "norm"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("positions", ["rope", "none"])
def test_a_later_token_changes_nothing_before_it(positions):
  model, variables = tiny(positions=positions)
  before = evaluate(model, variables)[0]
  after = evaluate(model, variables, np.concatenate([TOKENS[:, :5], 15 - TOKENS[:, 5:]], 1))[0]
  np.testing.assert_array_equal(after[:, :5], before[:, :5])
  assert (np.abs(after - before)[:, 5:].max(-1) > 1e-3).all()


def test_products_of_turned_vectors_depend_on_their_distance():
  q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 8)).astype(np.float32)
  turned = [rope(jnp.tile(x, (32, 1, 1)), 100.0)[:, 0] for x in (q, k)]
  products = np.asarray(turned[0] @ turned[1].T)
  for distance in (-20, 0, 3):
    diagonal = np.diagonal(products, distance)
    np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
  assert np.ptp(products[0]) > 0.5
  np.testing.assert_allclose(np.linalg.norm(turned[0], axis=-1), np.linalg.norm(q), rtol=1e-6)


def test_order_matters_with_rope_and_only_by_the_mask_without():
  tokens = np.array([[1, 2, 3, 4], [2, 1, 3, 4]], np.int32)
  for positions, same in (("rope", False), ("none", True)):
    model, variables = tiny(positions=positions, depth=1)
    last = evaluate(model, variables, tokens)[0][:, -1]
    assert np.allclose(last[0], last[1], atol=1e-5) == same


def test_shared_keys_make_fewer_parameters_and_as_many_rows_of_logits():
  for kv_heads, size in ((None, 16), (4, 16), (2, 8), (1, 4)):
    model = build_model("transformer", vocabulary=16, width=16, heads=4, kv_heads=kv_heads)
    (_, acts), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), TOKENS)
    assert variables["params"]["layer1_attention"]["key"]["kernel"].shape == (16, size)
    assert acts["layer1/attention_logits"].shape == (3, 4, 9, 9)


def test_every_layer_has_its_own_normalizer():
  chosen = ("softmax", {"name": "topk_softmax", "k": 1})
  model, variables = tiny()
  per_layer = build_model(
    "transformer", vocabulary=16, width=16, depth=2, heads=4, normalizer=list(chosen)
  )
  acts = evaluate(per_layer, variables)[1]
  assert (np.asarray(acts["layer2/attention_weights"]).max(-1) == 1).all()
  assert (np.asarray(acts["layer1/attention_weights"])[:, :, 3:].max(-1) < 1).all()
  expected = evaluate(model, variables)[1]
  np.testing.assert_array_equal(acts["layer1/residual"], expected["layer1/residual"])


def test_a_normalizer_at_inference_takes_the_place_of_all():
  model, variables = tiny()
  sharp = evaluate(model.clone(normalizer=ops.adaptive_temperature_softmax), variables)[1]
  logits = sharp["layer2/attention_logits"]
  where = jnp.tri(9, dtype=bool)[None, None]
  expected = ops.adaptive_temperature_softmax(logits, where=where)
  np.testing.assert_allclose(sharp["layer2/attention_weights"], expected, rtol=1e-5, atol=1e-7)
  plain = evaluate(model, variables)[1]["layer2/attention_weights"]
  assert np.abs(plain - sharp["layer2/attention_weights"]).max() > 1e-2


def test_a_learned_scale_begins_as_one_and_sharpens_with_the_length():
  model, variables = tiny(length_scale=True)
  fresh = jax.jit(model.init)(jax.random.key(1), TOKENS)["params"]["layer1_attention"]
  assert fresh["length_slope"].shape == (4, 1, 1)
  assert (fresh["length_slope"] == 0).all() and (fresh["length_offset"] == 1).all()
  before = evaluate(model, variables)[1]["layer1/attention_logits"]
  variables["params"]["layer1_attention"]["length_slope"] += 2.0
  after = evaluate(model, variables)[1]["layer1/attention_logits"]
  offset = variables["params"]["layer1_attention"]["length_offset"][None]
  factor = (2 * jnp.log(jnp.arange(1, 10))[None, None, :, None] + offset) / offset
  np.testing.assert_allclose(after, before * factor, rtol=1e-5)
  variables["params"]["layer1_attention"]["length_slope"] -= 2.0


def test_dropout_follows_the_key_of_each_sequence():
  model, variables = tiny(dropout=0.5)
  keys = jax.random.split(jax.random.key(0), 3)
  plain, dropped = (evaluate(model, variables, keys=k)[0] for k in (None, keys))
  assert np.abs(plain - dropped).max() > 0.1
  swapped = evaluate(model, variables, TOKENS[::-1].copy(), keys=keys[::-1])[0]
  np.testing.assert_allclose(swapped[::-1], dropped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"width": 10}, "width=10 must be a multiple of heads=4"),
    ({"kv_heads": 3}, "and these of kv_heads=3"),
    ({"width": 4}, "width=4 / heads=4 must be even"),
    ({"depth": 0}, "must all be at least 1"),
    ({"positions": "sine"}, "positions='sine' is unknown: use rope or none"),
    ({"normalizer": "sotfmax"}, "did you mean 'softmax'"),
    ({"normalizer": ["softmax"]}, "has 1 entries for depth=2 layers"),
    ({"dropout": 1.0}, "dropout=1.0 must lie in"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    build_model("transformer", **{"width": 16, "depth": 2, "heads": 4} | options)
