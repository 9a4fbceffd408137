"""Dropout of every model: off unless asked for, keyed by image, right in the mean, refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import MLP, MODELS, build_model
from rankbias.models.layers import dropout

TINY = {
  "mlp": {"depth": 3, "width": 8},
  "resnet18": {"width": 4, "stage_sizes": (1, 1)},
  "resnet34": {"width": 4, "stage_sizes": (1,)},
  "vgg": {"width": 4, "stage_sizes": (1, 2)},
  "vit": {"patch": 4, "width": 16, "depth": 2, "heads": 2},
}
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), 4)


@functools.cache
def tiny(name):
  """A model with dropout, its variables, and its compiled evaluation with keys."""
  model = build_model(name, dropout=0.5, **TINY[name])
  variables = jax.jit(model.init)(jax.random.key(0), X)
  return model, variables, jax.jit(lambda v, x, keys: model.apply(v, x, False, keys)[0])


def test_every_model_of_images_is_tried():
  assert set(TINY) == set(MODELS) - {"set_attention", "transformer", "lstm", "contexts"}


@pytest.mark.parametrize("name", sorted(TINY))
class TestEveryModel:
  @pytest.mark.slow
  def test_without_keys_or_at_rate_0_nothing_changes(self, name):
    model, variables, _ = tiny(name)
    plain = build_model(name, **TINY[name])
    drawn = jax.jit(plain.init)(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, drawn, variables)
    expected = jax.jit(plain.apply)(variables, X)[0]
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, X)[0], expected)
    keyed = jax.jit(lambda v, x, k: plain.apply(v, x, False, k))(variables, X, KEYS)[0]
    np.testing.assert_array_equal(keyed, expected)

  @pytest.mark.slow
  def test_draws_follow_the_keys(self, name):
    model, variables, sample = tiny(name)
    first = sample(variables, X, KEYS)
    np.testing.assert_array_equal(sample(variables, X, KEYS), first)
    others = jax.random.split(jax.random.key(2), 4)
    assert np.abs(sample(variables, X, others) - first).max() > 1e-3
    plain = jax.jit(model.apply)(variables, X)[0]
    assert np.abs(plain - first).max() > 1e-3

  def test_what_is_dropped_from_an_image_depends_on_its_own_key(self, name):
    _, variables, sample = tiny(name)
    order = np.array([2, 0, 3, 1])
    together = sample(variables, X, KEYS)
    moved = sample(variables, X[order], KEYS[order])
    np.testing.assert_allclose(moved, together[order], rtol=1e-5, atol=1e-6)

  @pytest.mark.slow
  def test_gradients_reach_the_parameters_in_training(self, name):
    model, variables, _ = tiny(name)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
      (features, _), _ = model.apply(
        {"params": params, **rest}, X, True, KEYS, mutable=["batch_stats"]
      )
      return (features**2).sum()

    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"]))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert sum(np.abs(leaf).max() > 0 for leaf in leaves) > len(leaves) / 2

  @pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
  def test_a_rate_that_is_no_probability_is_refused(self, name, rate):
    with pytest.raises(ValueError, match=rf"dropout={rate} must lie in \[0, 1\)"):
      build_model(name, dropout=rate, **TINY[name])


def test_a_feature_is_kept_with_its_probability_and_scaled_to_keep_the_mean():
  keys = jax.random.split(jax.random.key(3), 4000)
  x = jnp.broadcast_to(jnp.array([1.0, -2.0, 3.0]), (4000, 3))
  out = np.asarray(dropout(x, 0.3, keys, 1))
  kept = out != 0
  np.testing.assert_allclose(kept.mean(0), 0.7, atol=0.03)
  np.testing.assert_allclose(out[kept], (x / 0.7)[kept], rtol=1e-6)
  np.testing.assert_allclose(out.mean(0), x[0], rtol=0.05)
  assert np.abs(np.corrcoef(kept.T) - np.eye(3)).max() < 0.06


def test_layers_and_images_draw_for_themselves():
  keys = jax.random.split(jax.random.key(3), 2)
  x = jnp.ones((2, 1000))
  one, two = dropout(x, 0.5, keys, 1), dropout(x, 0.5, keys, 2)
  for a, b in ((one[0], one[1]), (one[0], two[0])):
    assert 0.4 < np.mean((a > 0) == (b > 0)) < 0.6


def test_a_float64_program_drops_the_same_features():
  x, keys = np.ones((4, 50)), jax.random.split(jax.random.key(5), 4)
  single = dropout(jnp.asarray(x), 0.4, keys, 1)
  with jax.enable_x64(True):
    double = dropout(jnp.asarray(x), 0.4, keys, 1)
    assert double.dtype == "float64"
  np.testing.assert_array_equal(np.asarray(single) > 0, np.asarray(double) > 0)


def test_the_perceptron_drops_after_every_relu_and_reports_what_the_next_layer_sees():
  model = MLP(depth=3, width=400, dropout=0.25)
  variables = model.init(jax.random.key(0), X)
  features, acts = model.apply(variables, X, False, KEYS)
  hidden = acts["layer1/relu"] @ variables["params"]["layer2"]["kernel"]
  kept = features != 0
  np.testing.assert_allclose(features[kept], jax.nn.relu(hidden)[kept] / 0.75, rtol=1e-4)
  np.testing.assert_allclose(np.mean(~kept & (hidden > 0)) / np.mean(hidden > 0), 0.25, atol=0.05)
  np.testing.assert_array_equal(features, acts["layer2/relu"])
