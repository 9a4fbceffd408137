"""Tests of cross_entropy: both kinds of labels, smoothing, masks, gradients, failures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jax.test_util import check_grads

from rankbias import ops

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)).astype(np.float32) * 4
LABELS = np.array([0, 1, 2, 3, 4, 1], np.int32)
MASK = np.array([[True] * 5, [True] * 4 + [False], [True] * 3 + [False] * 2] * 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 30.0])
def test_values(temperature, smoothing):
  one_hot = np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5
  logs = scipy.special.log_softmax(LOGITS.astype(np.float64) / temperature, -1)
  expected = -(one_hot * logs).sum(-1)
  options = {"temperature": temperature, "label_smoothing": smoothing}
  for labels in (LABELS, LABELS.astype(np.uint8), np.eye(5, dtype=np.float32)[LABELS]):
    np.testing.assert_allclose(ops.cross_entropy(LOGITS, labels, **options), expected, 1e-5, 1e-5)


def test_against_optax():
  soft = jax.nn.softmax(RNG.normal(size=(6, 5)).astype(np.float32))
  ours, theirs = ops.cross_entropy(LOGITS, soft), optax.softmax_cross_entropy(LOGITS, soft)
  np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  ours = ops.cross_entropy(LOGITS, LABELS)
  theirs = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_axis():
  ours = ops.cross_entropy(LOGITS.T, LABELS, axis=0, label_smoothing=0.2)
  np.testing.assert_allclose(
    ours, ops.cross_entropy(LOGITS, LABELS, label_smoothing=0.2), rtol=1e-6
  )
  cube = RNG.normal(size=(2, 5, 3)).astype(np.float32)
  labels = RNG.integers(0, 5, size=(2, 3))
  expected = ops.cross_entropy(np.moveaxis(cube, 1, -1), labels)
  np.testing.assert_allclose(ops.cross_entropy(cube, labels, axis=1), expected, rtol=1e-6)


def test_more_classes_than_a_small_integer_counts():
  logits = RNG.normal(size=(2, 300)).astype(np.float32)
  ours = ops.cross_entropy(logits, np.array([5, 200], np.uint8))
  np.testing.assert_allclose(ours, ops.cross_entropy(logits, np.array([5, 200])))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype(dtype):
  loss = ops.cross_entropy(jnp.asarray(LOGITS, dtype), LABELS)
  assert loss.dtype == dtype
  reference = ops.cross_entropy(jnp.asarray(LOGITS, dtype).astype(jnp.float32), LABELS)
  np.testing.assert_allclose(loss.astype(jnp.float32), reference, rtol=5e-3)


def test_masked_classes():
  labels = np.array([0, 1, 2, 3, 2, 0], np.int32)
  loss = ops.cross_entropy(LOGITS, labels, where=MASK, label_smoothing=0.3)
  for i in range(6):
    kept = MASK[i].sum()
    expected = ops.cross_entropy(LOGITS[i, :kept], labels[i], label_smoothing=0.3)
    np.testing.assert_allclose(loss[i], expected, rtol=1e-5)


def test_label_without_mass_empty_row_and_label_out_of_range():
  where = np.array([[True, False], [False, False], [True, True], [True, True]])
  loss = ops.cross_entropy(np.zeros((4, 2), np.float32), np.array([1, 0, 2, -1]), where=where)
  assert loss[0] == np.inf and loss[1] == 0 and np.isnan(loss[2]) and np.isnan(loss[3])


def test_gradients_numerically():
  with jax.enable_x64(True):
    z, q = jnp.asarray(LOGITS, jnp.float64), jax.nn.softmax(jnp.asarray(RNG.normal(size=(6, 5))))

    def loss(z, q, t):
      return ops.cross_entropy(
        z, q * MASK, temperature=t, label_smoothing=0.1, where=jnp.asarray(MASK)
      )

    check_grads(loss, (z, q, jnp.asarray(3.0)), order=1, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_gradient_is_probability_minus_label_over_temperature():
  gradient = jax.grad(lambda z: ops.cross_entropy(z, LABELS, temperature=4.0).sum())(LOGITS)
  expected = (ops.softmax(LOGITS, temperature=4.0) - np.eye(5)[LABELS].astype(np.float32)) / 4
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.eye(5, dtype=np.float32)[[0, 1]]])
def test_masked_classes_and_empty_rows_get_no_gradient(labels):
  where = jnp.asarray([[True, True, False, False, True], [False] * 5])
  loss = partial(ops.cross_entropy, labels=labels, where=where, temperature=2.0)
  for z in (LOGITS[:2], np.where(where, LOGITS[:2], -np.inf)):
    gradient = jax.grad(lambda z: loss(z).sum())(z)
    assert (gradient[~where] == 0).all() and jnp.isfinite(gradient).all()
    assert jnp.abs(gradient[0]).max() > 0


@pytest.mark.parametrize(
  ("labels", "options", "message"),
  [
    (np.zeros((6, 5), int), {}, r"integer labels need shape \(6,\)"),
    (np.zeros(6, np.float32), {}, r"distributions need shape \(6, 5\)"),
    (LABELS[:3], {}, r"labels of shape \(3,\)"),
    (LABELS, {"temperature": 0.0}, "temperature = 0.0 must be positive"),
    (LABELS, {"label_smoothing": 1.0}, r"label_smoothing = 1.0 must lie in \[0, 1\)"),
    (LABELS, {"label_smoothing": -0.1}, "0 switches it off"),
  ],
)
def test_failures(labels, options, message):
  with pytest.raises(ValueError, match=message):
    ops.cross_entropy(LOGITS, labels, **options)


def test_traced_label_smoothing():
  loss = partial(ops.cross_entropy, LOGITS, LABELS)
  traced = jax.jit(lambda s: loss(label_smoothing=s))(0.1)
  np.testing.assert_allclose(traced, loss(label_smoothing=0.1), rtol=1e-5)
