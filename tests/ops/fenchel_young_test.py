"""Tests of the Fenchel-Young losses: golden values, identities, convexity, masks, failures."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/entmax.npz")
RNG = np.random.default_rng(0)
LOGITS = np.float32(RNG.normal(size=(5, 6)) * 2)
LABELS = np.array([0, 5, 2, 3, 3])
MAPS = {
  "softmax": ops.softmax,
  "sparsemax": ops.sparsemax,
  "entmax15": ops.entmax15,
  "entmax 1.25": partial(ops.entmax, alpha=1.25),
}
each_map = pytest.mark.parametrize("normalizer", MAPS.values(), ids=MAPS)


@pytest.mark.parametrize(
  ("name", "normalizer"),
  [
    ("sparsemax_loss", ops.sparsemax),
    ("entmax15_loss", ops.entmax15),
    ("sparsemax_bisect_loss", ops.sparsemax),
    ("entmax_bisect_loss_alpha1.25", partial(ops.entmax, alpha=1.25)),
    ("entmax_bisect_loss_alpha1.5", partial(ops.entmax, alpha=1.5)),
    ("entmax_bisect_loss_alpha3", partial(ops.entmax, alpha=3)),
  ],
)
def test_golden(name, normalizer):
  loss = ops.fenchel_young_loss(normalizer)
  for bits, dtype, loose in (("f32", np.float32, 1e-5), ("f64", np.float64, 1e-8)):
    with jax.enable_x64(bits == "f64"):
      z, labels = jnp.asarray(GOLDEN["x/batch6"].astype(dtype)), jnp.asarray(GOLDEN["loss/target"])
      values, back = jax.vjp(partial(loss, labels=labels), z)
      (gradient,) = back(jnp.asarray(GOLDEN["cotangent/batch6"].astype(dtype)))
    golden = f"loss/{name}/batch6/{bits}"
    np.testing.assert_allclose(values, GOLDEN[f"{golden}/y"], atol=loose, rtol=loose)
    np.testing.assert_allclose(gradient, GOLDEN[f"{golden}/grad_x"], atol=loose, rtol=0)


def test_that_of_softmax_is_cross_entropy():
  soft = ops.softmax(jnp.asarray(RNG.normal(size=(5, 6)), jnp.float32))
  where = np.arange(6) < np.array([6, 6, 3, 4, 6])[:, None]
  loss = ops.fenchel_young_loss(ops.softmax)
  np.testing.assert_allclose(
    loss(LOGITS, LABELS, where=where), ops.cross_entropy(LOGITS, LABELS, where=where), atol=2e-6
  )
  # With soft labels it is the Kullback-Leibler divergence: cross-entropy less their own entropy.
  own = -jnp.sum(soft * jnp.log(soft), -1)
  np.testing.assert_allclose(loss(LOGITS, soft), ops.cross_entropy(LOGITS, soft) - own, atol=2e-6)


@each_map
def test_gradient_is_the_map_minus_the_labels(normalizer):
  loss = ops.fenchel_young_loss(normalizer)
  gradient = jax.grad(lambda z: jnp.sum(loss(z, LABELS)))(LOGITS)
  np.testing.assert_allclose(gradient, normalizer(LOGITS) - np.eye(6)[LABELS], atol=1e-7)
  with jax.enable_x64(True):
    z, direction = jnp.float64(LOGITS), jnp.float64(RNG.normal(size=LOGITS.shape))
    total = jax.jit(lambda z: jnp.sum(loss(z, LABELS)))
    check_grads(total, (z,), order=1)
    if normalizer is ops.softmax:  # the second derivative is that of the map
      second = jax.jvp(jax.grad(total), (z,), (direction,))[1]
      expected = jax.jvp(ops.softmax, (z,), (direction,))[1]
      np.testing.assert_allclose(second, expected, atol=1e-12)


@each_map
def test_it_is_zero_where_the_map_returns_the_labels_and_positive_elsewhere(normalizer):
  loss = ops.fenchel_young_loss(normalizer)
  targets = normalizer(LOGITS)
  np.testing.assert_allclose(loss(LOGITS, targets), 0, atol=1e-6)
  assert (loss(LOGITS, LABELS) > 1e-3).all()
  assert (loss(1e4 * LOGITS, LABELS) >= 0).all()


@pytest.mark.parametrize(("normalizer", "margin"), [(ops.sparsemax, 1), (ops.entmax15, 2)])
def test_margin(normalizer, margin):
  loss = ops.fenchel_young_loss(normalizer)

  def lead(by):
    return jnp.array([[0.0, by, 0.0]])

  assert loss(lead(margin), jnp.array([1]))[0] == 0
  assert loss(lead(margin - 0.1), jnp.array([1]))[0] > 1e-4


@each_map
def test_midpoint_convexity(normalizer):
  loss, other = ops.fenchel_young_loss(normalizer), np.float32(RNG.normal(size=(5, 6)) * 3)
  middle = loss((LOGITS + other) / 2, LABELS)
  assert (middle <= (loss(LOGITS, LABELS) + loss(other, LABELS)) / 2 + 1e-6).all()


@each_map
def test_masks_empty_rows_and_labels_that_are_none(normalizer):
  loss = ops.fenchel_young_loss(normalizer)
  where = np.array([[True] * 6, [True] * 5 + [False], [True, False] * 3, [False] * 6, [True] * 6])
  labels = np.array([0, 5, 2, 3, 6])
  values = loss(np.where(where, LOGITS, np.nan), labels, where=where)
  assert values[1] == np.inf and values[3] == 0 and np.isnan(values[4])
  np.testing.assert_allclose(values[2], loss(LOGITS[2, ::2], np.array(1)), atol=1e-6)
  labels[[1, 4]] = 0, 2
  gradient = jax.grad(lambda z: jnp.sum(loss(z, labels, where=where)))(LOGITS)
  assert jnp.isfinite(gradient).all() and (gradient[~where] == 0).all()


def test_axis_dtype_and_transforms():
  loss = ops.fenchel_young_loss(ops.sparsemax)
  values = loss(LOGITS, LABELS)
  np.testing.assert_allclose(loss(LOGITS.T, LABELS, axis=0), values, atol=1e-6)
  np.testing.assert_allclose(jax.jit(jax.vmap(loss))(LOGITS, LABELS), values, atol=1e-6)
  assert loss(jnp.asarray(LOGITS, jnp.bfloat16), LABELS).dtype == jnp.bfloat16


def test_a_regularizer_of_ones_own():
  """Euclidean projection, written out: the loss of sparsemax up to a constant of Omega."""
  loss = ops.fenchel_young_loss(_projection, _half_square)
  expected = ops.fenchel_young_loss(ops.sparsemax)(LOGITS, LABELS)
  np.testing.assert_allclose(loss(LOGITS, LABELS), expected, atol=2e-6)


def _projection(logits, *, axis=-1, where=None):
  return ops.sparsemax(logits, axis=axis, where=where)


def _half_square(weights, axis):
  return jnp.sum(weights**2, axis) / 2


def test_failures():
  with pytest.raises(ValueError, match="has no known regularizer: pass the Omega"):
    ops.fenchel_young_loss(ops.softpick)
  with pytest.raises(ValueError, match=r"labels of shape \(4,\)"):
    ops.fenchel_young_loss()(LOGITS, LABELS[:4])
