"""The head contract: log_probs sums to one, the loss is minus log_probs at the label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import HEADS, build_head, scale_kernels

F = np.random.default_rng(0).normal(size=(6, 12))
Y = np.array([0, 1, 2, 3, 4, 0])


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield {"dtype": "float64", "param_dtype": "float64"}


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
class TestContract:
  def test_probabilities_sum_to_one(self, double, name, temperature):
    head = build_head(name, 5, **double)
    variables = head.init(jax.random.key(0), F)
    log_p = head.apply(variables, F, temperature, method="log_probs")
    assert log_p.shape == (6, 5)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-12)

  def test_loss_is_minus_the_log_probability_of_the_label(self, double, name, temperature):
    head = build_head(name, 5, **double)
    variables = head.init(jax.random.key(0), F)
    log_p = head.apply(variables, F, temperature, method="log_probs")
    loss = head.apply(variables, F, Y, temperature=temperature, method="loss")
    np.testing.assert_allclose(loss, -log_p[np.arange(6), Y], rtol=1e-10)
    targets = np.random.default_rng(1).dirichlet(np.ones(5), size=6)
    soft = head.apply(variables, F, targets, temperature=temperature, method="loss")
    np.testing.assert_allclose(soft, -(targets * log_p).sum(-1), rtol=1e-10)

  def test_gradients_are_finite_and_temperature_may_be_traced(self, double, name, temperature):
    head = build_head(name, 5, **double)
    variables = head.init(jax.random.key(0), F)

    def loss(v, t):
      return head.apply(v, F, Y, temperature=t, method="loss").mean()

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, temperature)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads[1]) > 0


def test_linear_head_is_an_affine_map_with_zero_bias(double):
  head = build_head("linear", 5, **double)
  variables = head.init(jax.random.key(0), F)
  linear = variables["params"]["linear"]
  assert set(linear) == {"kernel", "bias"}
  np.testing.assert_array_equal(linear["bias"], 0.0)
  np.testing.assert_allclose(head.apply(variables, F), F @ linear["kernel"], rtol=1e-12)
  bare = build_head("linear", 5, use_bias=False).init(jax.random.key(0), F)
  assert set(bare["params"]["linear"]) == {"kernel"}


def test_the_kernel_has_half_of_the_variance_of_he():
  features = jnp.zeros((1, 400))
  kernel = build_head("linear", 400).init(jax.random.key(0), features)["params"]["linear"]["kernel"]
  np.testing.assert_allclose(float(kernel.var()) * 400, 1.0, atol=0.02)


def test_temperature_is_the_inverse_scale_of_a_linear_head(double):
  head = build_head("linear", 5, **double)
  variables = head.init(jax.random.key(0), F)
  smaller = {"params": scale_kernels(variables["params"], 1 / 7.0)}
  np.testing.assert_allclose(
    head.apply(variables, F, 7.0, method="log_probs"),
    head.apply(smaller, F, method="log_probs"),
    rtol=1e-12,
  )


def test_label_smoothing_mixes_in_the_uniform_distribution(double):
  head = build_head("linear", 5, **double)
  variables = head.init(jax.random.key(0), F)
  log_p = np.asarray(head.apply(variables, F, method="log_probs"))
  loss = head.apply(variables, F, Y, label_smoothing=0.2, method="loss")
  expected = -(0.8 * log_p[np.arange(6), Y] + 0.2 * log_p.mean(-1))
  np.testing.assert_allclose(loss, expected, rtol=1e-10)


def test_bfloat16_features_give_float32_logits():
  head = build_head("linear", 5)
  features = jnp.asarray(F, jnp.bfloat16)
  assert head.apply(head.init(jax.random.key(0), features), features).dtype == jnp.float32


def test_an_unknown_head_is_refused_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"'liner' is no known head. Did you mean 'linear'\?"):
    build_head("liner", 5)
