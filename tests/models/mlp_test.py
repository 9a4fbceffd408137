"""The perceptron: exact homogeneity, names, counts and refused options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import MLP, build_model, scale_kernels

X = np.random.default_rng(0).normal(size=(6, 4, 4, 2))


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield {"dtype": jnp.float64, "param_dtype": jnp.float64}


def count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_depth_counts_weight_layers_including_the_head():
  model = build_model("mlp", depth=4, width=8)
  params = model.init(jax.random.key(0), X)["params"]
  assert list(params) == ["layer1", "layer2", "layer3"]
  assert model.weight_layers == 4
  assert count(params) == 32 * 8 + 2 * 8 * 8
  biased = build_model("mlp", depth=4, width=8, use_bias=True)
  assert count(biased.init(jax.random.key(0), X)["params"]) == 32 * 8 + 2 * 8 * 8 + 3 * 8


def test_activations_are_in_forward_order_and_the_last_is_the_features():
  model = MLP(depth=12, width=8)
  features, acts = model.apply(model.init(jax.random.key(0), X), X, False)
  assert tuple(acts) == model.act_names
  assert model.act_names[:2] == ("layer1/relu", "layer2/relu")
  assert model.act_names[9:] == ("layer10/relu", "layer11/relu")
  np.testing.assert_array_equal(acts["layer11/relu"], features)


def test_activations_are_the_relu_of_the_matrix_product(double):
  model = MLP(depth=3, width=5, **double)
  variables = model.init(jax.random.key(1), X)
  kernels = [np.asarray(variables["params"][f"layer{i}"]["kernel"]) for i in (1, 2)]
  first = np.maximum(X.reshape(6, -1) @ kernels[0], 0)
  features, acts = model.apply(variables, X)
  np.testing.assert_allclose(acts["layer1/relu"], first, rtol=1e-12)
  np.testing.assert_allclose(features, np.maximum(first @ kernels[1], 0), rtol=1e-12)


def test_kernels_have_the_variance_of_he():
  kernel = MLP(width=300, depth=3).init(jax.random.key(0), X)["params"]["layer2"]["kernel"]
  np.testing.assert_allclose(float(kernel.var()) * 300 / 2, 1.0, atol=0.02)
  assert float(jnp.abs(kernel).max() / kernel.std()) > 3.5  # a truncated normal ends at 2.3


def test_without_biases_the_network_is_homogeneous_in_input_and_weights(double):
  model = MLP(depth=5, width=16, **double)
  variables = model.init(jax.random.key(2), X)
  features, _ = model.apply(variables, X)
  np.testing.assert_allclose(model.apply(variables, 3.0 * X)[0], 3.0 * features, rtol=1e-12)
  scaled = {"params": scale_kernels(variables["params"], 1.7)}
  np.testing.assert_allclose(model.apply(scaled, X)[0], 1.7**4 * features, rtol=1e-12)


def test_with_biases_it_is_not_homogeneous(double):
  model = MLP(depth=5, width=16, use_bias=True, **double)
  variables = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(2), X))
  features, _ = model.apply(variables, X)
  assert np.abs(model.apply(variables, 3.0 * X)[0] - 3.0 * features).max() > 1e-3


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_normalised_layers_do_not_see_the_scale_of_their_kernels(double, norm):
  model = MLP(depth=3, width=16, norm=norm, **double)
  variables = model.init(jax.random.key(2), X)
  scaled = {**variables, "params": scale_kernels(variables["params"], 10.0)}
  (before, _), _ = model.apply(variables, X, True, mutable=["batch_stats"])
  (after, _), _ = model.apply(scaled, X, True, mutable=["batch_stats"])
  np.testing.assert_allclose(after, before, atol=1e-3)


def test_members_with_different_seeds_run_under_vmap():
  model = MLP(depth=3, width=8)
  keys = jax.random.split(jax.random.key(0), 3)
  variables = jax.vmap(lambda key: model.init(key, X))(keys)
  features, acts = jax.vmap(lambda v: model.apply(v, X))(variables)
  assert features.shape == (3, 6, 8)
  one = model.apply(model.init(keys[1], X), X)[0]
  np.testing.assert_allclose(acts["layer2/relu"][1], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"depth": 1}, "depth=1 has no hidden layer: use depth >= 2"),
    ({"width": 0}, "width=0"),
    ({"norm": "bach"}, "norm='bach' is unknown: choose one of none, batch, layer"),
    ({"wdith": 3}, "'wdith' is no known option of model 'mlp'. Did you mean 'width'"),
  ],
)
def test_refused_options_name_the_remedy(options, message):
  with pytest.raises(ValueError, match=message):
    build_model("mlp", **options)
