"""What every model promises: names, shapes, dtypes, gradients and helpful refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import MODELS, build_model, scale_kernels

TINY = {
  "mlp": {"depth": 3, "width": 8},
  "resnet18": {"width": 4, "stage_sizes": (1, 1)},
  "resnet34": {"width": 4, "stage_sizes": (1,)},
  "vgg": {"width": 4, "stage_sizes": (1, 2)},
  "vit": {"patch": 4, "width": 16, "depth": 2, "heads": 2},
  "set_attention": {"width": 8},
  "transformer": {"vocabulary": 16, "width": 16, "depth": 2, "heads": 2},
  "lstm": {"vocabulary": 16, "embedding": 6, "width": 8, "features": 5},
  "contexts": {"count": 6, "width": 5},
}
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
SETS = np.random.default_rng(1).uniform(size=(4, 7, 11)).astype(np.float32)
TOKENS = np.random.default_rng(2).permutation(48).reshape(4, 12).astype(np.int32) % 16
INTEGERS = {"transformer": TOKENS, "lstm": TOKENS, "contexts": np.arange(4, dtype=np.int32)}
X = dict.fromkeys(TINY, IMAGES) | {"set_attention": SETS} | INTEGERS


def test_every_model_has_a_tiny_variant():
  assert set(TINY) == set(MODELS)


@functools.cache
def tiny(name):
  """A small model, its variables and its compiled evaluation."""
  model = build_model(name, **TINY[name])
  variables = jax.jit(model.init)(jax.random.key(0), X[name])
  return model, variables, jax.jit(lambda v, x: model.apply(v, x, False))


@pytest.mark.parametrize("name", sorted(TINY))
class TestContract:
  def test_names_are_in_forward_order(self, name):
    model, variables, _ = tiny(name)
    names = []
    jax.eval_shape(lambda: names.extend(model.apply(variables, X[name], False)[1]))
    assert tuple(names) == model.act_names

  def test_features_and_activations_have_one_row_per_image_and_the_last_is_the_features(self, name):
    model, variables, evaluate = tiny(name)
    features, acts = evaluate(variables, X[name])
    assert features.shape[:-1] == (X[name].shape if name in INTEGERS else (len(X[name]),))
    assert all(len(act) == len(X[name]) for act in acts.values())
    np.testing.assert_array_equal(acts[model.act_names[-1]].reshape(features.shape), features)

  def test_evaluation_treats_images_one_by_one(self, name):
    _, variables, evaluate = tiny(name)
    together = evaluate(variables, X[name])[0]
    alone = evaluate(variables, np.stack([X[name][2]] * len(X[name])))[0]
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4, atol=1e-5)

  def test_gradients_reach_every_parameter(self, name):
    model, variables, _ = tiny(name)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
      (features, _), _ = model.apply(
        {"params": params, **rest}, X[name], True, mutable=["batch_stats"]
      )
      return (features**3).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"])):
      assert np.isfinite(leaf).all()
      assert np.abs(leaf).max() > 0

  def test_bfloat16_compute_is_finite_and_near_float32(self, name):
    _, variables, evaluate = tiny(name)
    exact = evaluate(variables, X[name])[0]
    half = build_model(name, **TINY[name], dtype="bfloat16")
    features, acts = jax.jit(half.apply)(variables, X[name])
    assert features.dtype == jnp.bfloat16
    assert all(np.isfinite(np.float32(act)).all() for act in acts.values())
    assert np.abs(np.float32(features) - exact).max() < 0.05 * np.abs(exact).max()

  def test_float64_throughout(self, name):
    x = X[name] if name in INTEGERS else np.float64(X[name])
    with jax.enable_x64(True):
      model = build_model(name, dtype="float64", param_dtype="float64", **TINY[name])
      variables = jax.eval_shape(model.init, jax.random.key(0), x)
      out = jax.eval_shape(
        lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]), variables, x
      )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float64")}
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype("float64")}

  def test_scaled_kernels_are_all_and_only_the_kernels(self, name):
    params = tiny(name)[1]["params"]
    scaled = jax.jit(scale_kernels)(params, 2.0)

    def check(path, before, after):
      factor = 2.0 if path[-1].key == "kernel" else 1.0
      np.testing.assert_array_equal(after, factor * before)

    jax.tree_util.tree_map_with_path(check, params, scaled)

  def test_lists_from_configuration_files_are_accepted(self, name):
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY[name].items()}
    assert build_model(name, **options) == build_model(name, **TINY[name])


def test_an_unknown_model_is_refused_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"'resnet81' is no known model. Did you mean 'resnet18'\?"):
    build_model("resnet81")
  with pytest.raises(
    ValueError,
    match=r"Known: contexts, lstm, mlp, .* set_attention, transformer, vgg, vit\.$",
  ):
    build_model("unet")


def test_an_unknown_option_is_refused_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"'stage_size' is no known option.*'stage_sizes'"):
    build_model("resnet18", stage_size=(1, 1))
