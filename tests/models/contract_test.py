"""What every model promises: names, shapes, dtypes, gradients and helpful refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import MODELS, build_model, scale_kernels

TINY = {
  "mlp": {"depth": 3, "width": 8},
  "resnet18": {"width": 4, "stage_sizes": (1, 1)},
  "resnet34": {"width": 4, "stage_sizes": (1, 1, 1)},
  "vgg": {"width": 4, "stage_sizes": (1, 2)},
}
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def test_every_model_has_a_tiny_variant():
  assert set(TINY) == set(MODELS)


@pytest.mark.parametrize("name", sorted(TINY))
class TestContract:
  def test_names_are_ordered_and_features_have_one_row_per_image(self, name):
    model = build_model(name, **TINY[name])
    variables = jax.jit(model.init)(jax.random.key(0), X)
    features, acts = model.apply(variables, X, False)
    assert tuple(acts) == model.act_names
    assert features.ndim == 2
    assert all(act.shape[0] == len(X) for act in acts.values())
    np.testing.assert_array_equal(list(acts.values())[-1].reshape(len(X), -1), features)

  def test_evaluation_changes_nothing_and_treats_images_one_by_one(self, name):
    model = build_model(name, **TINY[name])
    variables = model.init(jax.random.key(0), X)
    together = model.apply(variables, X, False)[0]
    alone = model.apply(variables, X[2:3], False)[0]
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4, atol=1e-5)

  def test_gradients_reach_every_parameter(self, name):
    model = build_model(name, **TINY[name])
    variables = model.init(jax.random.key(1), X)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
      (features, _), _ = model.apply({"params": params, **rest}, X, True, mutable=["batch_stats"])
      return (features**3).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"])):
      assert np.isfinite(leaf).all()
      assert np.abs(leaf).max() > 0

  def test_bfloat16_compute_is_finite_and_near_float32(self, name):
    model = build_model(name, **TINY[name])
    variables = model.init(jax.random.key(0), X)
    exact = model.apply(variables, X, False)[0]
    half = build_model(name, dtype="bfloat16", **TINY[name])
    features, acts = half.apply(variables, X, False)
    assert features.dtype == jnp.bfloat16
    assert all(np.isfinite(np.float32(act)).all() for act in acts.values())
    assert np.abs(np.float32(features) - exact).max() < 0.05 * np.abs(exact).max()

  def test_float64_throughout(self, name):
    with jax.enable_x64(True):
      model = build_model(name, dtype="float64", param_dtype="float64", **TINY[name])
      variables = model.init(jax.random.key(0), X)
      assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float64")}
      out = model.apply(variables, np.float64(X), True, mutable=["batch_stats"])
      assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype("float64")}

  def test_scaled_kernels_are_all_and_only_the_kernels(self, name):
    params = build_model(name, **TINY[name]).init(jax.random.key(0), X)["params"]
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
  with pytest.raises(ValueError, match=r"Known: mlp, resnet18, resnet34, vgg\.$"):
    build_model("transformer")


def test_an_unknown_option_is_refused_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"'stage_size' is no known option.*'stage_sizes'"):
    build_model("resnet18", stage_size=(1, 1))
