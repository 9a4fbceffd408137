"""Tests of the margins on cosines: published layers, gradients at +-1, labels, failures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "search_softmax.npz")
RNG = np.random.default_rng(0)
COSINES = np.tanh(RNG.normal(size=(6, 5))).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 1])
CASES = {
  "FC_easy1": ("fc", {}),
  "AM_easy1": ("am", {}),
  "AM_easy0": ("am", {"easy_margin": False}),
  "Arc_easy1": ("arc", {}),
  "Arc_easy0": ("arc", {"easy_margin": False}),
  "MV-AM_easy1": ("mv_am", {}),
  "MV-AM_easy0": ("mv_am", {"easy_margin": False}),
  "MV-Arc_easy1": ("mv_arc", {}),
  "MV-Arc_easy0": ("mv_arc", {"easy_margin": False}),
  "SphereFace_easy1": ("sphereface", {"margin": 4, "blend": 1000 * 1.0001**-2}),  # its first step
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_published_layers(case, dtype):
  name, own = CASES[case]
  with jax.enable_x64(dtype == "f64"):
    float_ = jnp.float64 if dtype == "f64" else jnp.float32
    x, weight = (jnp.asarray(GOLDEN[f"margin_fc/{k}"], float_) for k in ("x", "weight"))
    labels = GOLDEN["margin_fc/labels"]

    def layer(x, weight):
      cosines = x @ (weight / jnp.linalg.norm(weight, axis=0, keepdims=True))
      return ops.MARGINS[name](cosines, labels, **own)

    logits, pull = jax.vjp(layer, x, weight)
    gradients = pull(jnp.asarray(GOLDEN["margin_fc/cotangent"], float_))
  prefix = f"margin_fc/{case}/{dtype}"
  for ours, key in zip((logits, *gradients), ("y", "grad_x", "grad_weight"), strict=True):
    expected = GOLDEN[f"{prefix}/{key}"]
    atol = (1e-9 if dtype == "f64" else 1e-5) * max(1, np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, 0, atol)


def test_multiplied_angle_falls_monotonically():
  theta = np.linspace(0, np.pi, 400)
  cosines = np.stack([np.cos(theta), np.zeros(400)], -1)
  for m in (1, 2, 3, 4, 5):
    logits = ops.multiplicative_margin(
      cosines.astype(np.float32), np.zeros(400, int), margin=m, blend=0.0, scale=1.0
    )
    assert (np.diff(logits[:, 0]) < 1e-5).all()
    np.testing.assert_allclose(logits[jnp.array([0, -1]), 0], [1, 1 - 2 * m], atol=1e-5)


@pytest.mark.parametrize("name", ops.MARGINS)
def test_axis_dtype_and_traced_scale(name):
  margin = ops.MARGINS[name]
  logits = margin(COSINES, LABELS)
  np.testing.assert_allclose(margin(COSINES.T, LABELS, axis=0), logits.T, rtol=1e-6)
  traced = jax.jit(lambda s: margin(COSINES, LABELS, scale=s))(64.0)
  np.testing.assert_allclose(traced, 2 * logits, rtol=1e-6)
  half = margin(jnp.asarray(COSINES, jnp.bfloat16), LABELS.astype(np.uint8))
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), logits, atol=0.6)
  mapped = jax.vmap(margin)(COSINES, LABELS)
  np.testing.assert_allclose(mapped, logits, rtol=1e-6)


@pytest.mark.parametrize("name", ops.MARGINS)
def test_a_margin_only_makes_training_harder(name):
  harder = ops.cross_entropy(ops.MARGINS[name](COSINES, LABELS), LABELS)
  plain = ops.cross_entropy(ops.scaled_cosines(COSINES, LABELS), LABELS)
  assert (harder >= plain - 1e-5).all()


@pytest.mark.parametrize("name", ops.MARGINS)
def test_label_out_of_range_is_a_row_of_nan(name):
  logits = ops.MARGINS[name](COSINES[:3], np.array([-1, 0, 5]))
  np.testing.assert_array_equal(
    np.isnan(logits), np.array([[True], [False], [True]]) | [[False] * 5]
  )
  assert np.isnan(ops.cross_entropy(logits, np.array([-1, 0, 5]))[jnp.array([0, 2])]).all()


@pytest.mark.parametrize("easy", [True, False])
@pytest.mark.parametrize("name", ["arc", "mv_arc", "sphereface"])
def test_gradients_at_the_ends_are_finite(name, easy):
  own = {} if name == "sphereface" else {"easy_margin": easy}
  ends = np.array([1, -1, 1 + 1e-6, -1 - 1e-6, 1 - 6e-8, -1 + 6e-8], np.float32)
  cosines = jnp.asarray(np.stack([ends, 0 * ends], -1))

  def loss(c):
    return ops.cross_entropy(ops.MARGINS[name](c, np.zeros(6, int), **own), np.zeros(6, int)).sum()

  value, gradient = jax.value_and_grad(loss)(cosines)
  assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
  # Exactly at an end the root is a constant, and the slope is s cos m.
  if name == "arc":
    slope = jax.grad(lambda c: ops.angular_margin(c, np.zeros(6, int), **own)[0, 0])(cosines)[0, 0]
    np.testing.assert_allclose(slope, 32 * np.cos(0.5), rtol=1e-6)


@pytest.mark.parametrize("name", ops.MARGINS)
def test_gradients_numerically(name):
  with jax.enable_x64(True):
    cosines = jnp.asarray(0.9 * COSINES, jnp.float64)
    check_grads(lambda c: ops.MARGINS[name](c, LABELS, scale=2.0), (cosines,), order=1, atol=1e-4)


def test_second_derivative_of_a_widened_angle():
  cosines = np.array([[0.3, 0.1]], np.float32)
  hessian = jax.hessian(lambda c: ops.angular_margin(c, np.array([0]), scale=1.0)[0, 0])(cosines)
  np.testing.assert_allclose(hessian[0, 0, 0, 0], np.sin(0.5) * (1 - 0.09) ** -1.5, rtol=1e-5)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.additive_margin(COSINES, LABELS.astype(np.float32)), r"integers of shape \(6,\)"),
    (lambda: ops.angular_margin(COSINES, LABELS[:2]), r"labels of shape \(2,\)"),
    (lambda: ops.scaled_cosines(COSINES, LABELS, scale=0.0), "scale = 0.0 must be positive"),
    (lambda: ops.multiplicative_margin(COSINES, LABELS, margin=0), "use angular_margin"),
  ],
)
def test_failures(call, message):
  with pytest.raises(ValueError, match=message):
    call()
