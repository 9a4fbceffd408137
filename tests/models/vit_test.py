"""The Vision Transformer: patches, positions, attention at a temperature, pooling, refusals."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.models import build_model
from rankbias.models.vit import patches, sincos

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
TINY = {"patch": 4, "width": 16, "depth": 2, "heads": 4}


@cache
def tiny(**own):
  """A model and its variables; kernels are larger than at the start of training."""
  model = build_model("vit", **TINY | own)
  variables = jax.jit(model.init)(jax.random.key(1), IMAGES)
  return model, jax.tree.map(lambda leaf: 1.5 * leaf, variables)


@cache
def compiled(model):
  return jax.jit(partial(model.apply, train=False))


def evaluate(model, variables, images=IMAGES):
  return compiled(model)(variables, images)


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_layers_are_what_the_docstring_says(pool):
  """Against NumPy in float64, at an attention temperature of 2."""
  own = {"pool": pool, "attention_temperature": 2.0, "attention_acts": True}
  model, variables = tiny(**own, positions="learned")
  p = jax.tree.map(np.float64, variables["params"])

  def norm(x, name):
    own = p[name]["norm"]
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * own["scale"] + own["bias"]

  corners = [(0, 0), (0, 4), (4, 0), (4, 4)]
  cut = np.stack([IMAGES[:, r : r + 4, c : c + 4].reshape(3, -1) for r, c in corners], 1)
  h = cut @ p["patches"]["kernel"] + p["positions"]
  if pool == "token":
    h = np.concatenate([np.tile(p["token"], (3, 1, 1)), h], 1)
  length = h.shape[1]
  for i in (1, 2):
    kernels, x = p[f"layer{i}_attention"], norm(h, f"layer{i}_norm1")
    q, k, v = (
      (x @ kernels[name]["kernel"]).reshape(3, length, 4, 4) for name in ("query", "key", "value")
    )
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / (2 * 2.0)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(3, length, 16)
    h = h + mixed @ p[f"layer{i}_output"]["kernel"]
    hidden = norm(h, f"layer{i}_norm2") @ p[f"layer{i}_mlp1"]["kernel"]
    h = h + np.asarray(jax.nn.gelu(hidden)) @ p[f"layer{i}_mlp2"]["kernel"]
  last = norm(h, "norm")
  features, acts = evaluate(model, variables)
  np.testing.assert_allclose(acts["layer2/attention_logits"], logits, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(acts["layer2/attention_weights"], weights, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(acts["layer2/residual"], h, rtol=1e-3, atol=1e-4)
  expected = last.mean(1) if pool == "mean" else last[:, 0]
  np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def test_patches_are_cut_row_by_row_and_hold_every_pixel_once():
  x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  cut = np.asarray(patches(jnp.asarray(x), 2))
  assert cut.shape == (2, 6, 12)
  np.testing.assert_array_equal(cut[1, 4], x[1, 2:4, 2:4].reshape(-1))
  np.testing.assert_array_equal(np.sort(cut.reshape(-1)), np.arange(x.size))


@pytest.mark.parametrize(
  ("shape", "patch", "tokens"), [((8, 8, 1), 2, 16), ((32, 32, 3), 4, 64), ((28, 28, 1), 4, 49)]
)
def test_the_images_at_hand_become_tokens(shape, patch, tokens):
  model = build_model("vit", patch=patch)
  x = jax.ShapeDtypeStruct((2, *shape), "float32")
  (features, acts), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
  assert acts["tokens"].shape == acts["layer6/residual"].shape == (2, tokens, 192)
  assert features.shape == (2, 192)
  own = shape[-1] * patch**2 * 192 + 6 * (12 * 192**2 + 4 * 192) + 2 * 192
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == own
  assert model.weight_layers == 26


def test_sines_and_cosines_tell_every_position_apart():
  table = sincos(4, 5, 16)
  assert table.shape == (20, 16) and np.abs(table).max() <= 1
  np.testing.assert_allclose((table**2).sum(1), 8)  # a sine and a cosine at each of 8 speeds
  row, column = 2, 3
  np.testing.assert_allclose(table[row * 5 + column][[0, 4]], [np.sin(3), np.cos(3)])
  np.testing.assert_allclose(table[row * 5 + column][[8, 12]], [np.sin(2), np.cos(2)])
  gaps = np.linalg.norm(table[:, None] - table, axis=-1) + 9 * np.eye(20)
  assert gaps.min() > 0.5


def test_the_order_of_patches_matters_unless_there_are_no_positions():
  swapped = np.concatenate([IMAGES[:, 4:], IMAGES[:, :4]], 1)
  for positions, same in (("none", True), ("sincos", False), ("learned", False)):
    model, variables = tiny(positions=positions, depth=1)
    a, b = np.split(evaluate(model, variables, np.concatenate([IMAGES, swapped]))[0], 2)
    assert np.allclose(a, b, atol=1e-5) == same


def test_the_attention_temperature_divides_the_logits_and_nothing_else():
  names = {"attention_acts": True, "depth": 1}
  plain, sharp = (tiny(**names, attention_temperature=t) for t in (1.0, 0.25))
  variables = plain[1]
  jax.tree.map(np.testing.assert_array_equal, variables, sharp[1])  # nor the initialisation
  acts, acts_sharp = (evaluate(model, variables)[1] for model, _ in (plain, sharp))
  first = "layer1/attention_logits"
  np.testing.assert_allclose(acts_sharp[first], 4 * acts[first], rtol=1e-5, atol=1e-6)
  expected = ops.softmax(acts[first], temperature=0.25)
  np.testing.assert_allclose(acts_sharp["layer1/attention_weights"], expected, rtol=1e-4, atol=1e-6)
  flat = evaluate(tiny(**names, attention_temperature=1e6)[0], variables)[1]
  np.testing.assert_allclose(flat["layer1/attention_weights"], 0.25, atol=1e-5)
  assert plain[0].clone(attention_temperature=0.25) == sharp[0]  # a predictor may override it
  larger = jax.tree.map(lambda leaf: leaf, variables)
  larger["params"]["layer1_attention"]["query"]["kernel"] *= 4
  features = evaluate(plain[0], larger)[0]  # the same function of other parameters
  np.testing.assert_allclose(features, acts_sharp["features"], rtol=1e-4, atol=1e-5)


def test_every_layer_has_its_own_normalizer():
  chosen = ("softmax", {"name": "topk_softmax", "k": 1})
  model = build_model("vit", **TINY, normalizer=list(chosen), attention_acts=True)
  acts = jax.jit(partial(model.apply, train=False))(tiny()[1], IMAGES)[1]  # a dict has no hash
  assert (np.asarray(acts["layer2/attention_weights"]).max(-1) == 1).all()
  assert (np.asarray(acts["layer1/attention_weights"]) > 0).all()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_every_norm_keeps_names_and_the_scale_of_activations(norm):
  model, _ = tiny(norm=norm)
  variables = jax.jit(model.init)(jax.random.key(1), IMAGES)
  acts = evaluate(model, variables)[1]
  assert ("batch_stats" in variables) == (norm == "batch")
  assert set(acts) == set(model.act_names)
  assert 0.1 < np.std(acts["layer2/residual"]) / np.std(acts["tokens"]) < 10


def test_observing_attention_changes_nothing_but_the_activations():
  model, variables = tiny(depth=1)
  observed = model.clone(attention_acts=True)
  acts, more = evaluate(model, variables)[1], evaluate(observed, variables)[1]
  assert set(more) - set(acts) == {f"layer1/attention_{kind}" for kind in ("logits", "weights")}
  for name, act in acts.items():
    np.testing.assert_array_equal(act, more[name])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"width": 18}, "width=18 must be a multiple of heads=4"),
    ({"width": 18, "heads": 2}, "width=18 must be a multiple of 4 for positions='sincos'"),
    ({"depth": 0}, "must all be at least 1"),
    ({"mlp_ratio": 0.0}, "mlp_ratio=0.0 above 0"),
    ({"positions": "rope"}, "positions='rope' is unknown: use one of learned, sincos, none"),
    ({"pool": "max"}, "pool='max' is unknown: use one of mean, token"),
    ({"norm": "group"}, "norm='group' is unknown"),
    ({"attention_temperature": 0.0}, "attention_temperature=0.0 must be a finite number > 0"),
    ({"attention_temperature": float("inf")}, "attention_temperature=inf must be a finite"),
    ({"normalizer": ["softmax"]}, "has 1 entries for depth=2 layers"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    build_model("vit", **TINY | options)


def test_an_image_that_patches_do_not_tile_is_refused():
  with pytest.raises(ValueError, match="patch=3 does not divide images of 8x8 pixels"):
    jax.eval_shape(build_model("vit", **TINY | {"patch": 3}).init, jax.random.key(0), IMAGES)
