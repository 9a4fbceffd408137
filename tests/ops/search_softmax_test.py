"""Tests of the search-softmax losses: published values, the margin they are, masks, failures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "search_softmax.npz")
LOGITS, LABELS = GOLDEN["data/logits"], GOLDEN["data/labels"]
DTYPES = {"f32": (np.float32, 1e-5), "f64": (np.float64, 1e-9)}
RANDOM = {"a0": 0.0, "a-0.5": -0.5, "a-3": -3.0, "a0.5": 0.5, "a1": 1.0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("case", ["a_init", "a_neg", "a_pos", "a_zero"])
def test_published_search_losses(case, kind, dtype):
  float_, tolerance = DTYPES[dtype]
  a = GOLDEN[f"data/{case}"].astype(float_)

  def loss(z):
    if kind == "global":
      return ops.search_softmax_loss(z, LABELS, modulation=a[0]).mean()
    return ops.binned_search_softmax_loss(z, LABELS, modulation=a).mean()

  with jax.enable_x64(dtype == "f64"):
    value, gradient = jax.value_and_grad(loss)(jnp.asarray(LOGITS, float_))
  prefix = f"loss_search/{case}/{kind}/{dtype}"
  np.testing.assert_allclose(value, GOLDEN[f"{prefix}/loss"], tolerance, tolerance)
  expected = GOLDEN[f"{prefix}/grad_logits"]
  if kind == "global":  # that code counts the gradient once for every row with the same label
    expected = expected / (LABELS[:, None] == LABELS).sum(-1, keepdims=True)
  np.testing.assert_allclose(gradient, expected, tolerance, tolerance)


@pytest.mark.parametrize("case", ["a_init", "a_neg", "a_pos", "a_zero"])
def test_published_losses_of_single_examples(case):
  with jax.enable_x64(True):
    a = GOLDEN[f"data/{case}"]
    ours = ops.search_softmax_loss(LOGITS, LABELS, modulation=a[0])
    np.testing.assert_allclose(ours, GOLDEN[f"loss_search_single/{case}/global/f64/loss"], 1e-9)
    gradient = jax.grad(lambda z: ops.search_softmax_loss(z, LABELS, modulation=a[0]).sum())(LOGITS)
    expected = GOLDEN[f"loss_search_single/{case}/global/f64/grad_logits"]
    np.testing.assert_allclose(gradient, expected, 1e-9, 1e-9)
    binned = ops.binned_search_softmax_loss(LOGITS, LABELS, modulation=a)
    modified = GOLDEN[f"loss_search/{case}/local/f64/modified_probs"][np.arange(5), LABELS]
    np.testing.assert_allclose(binned, -np.log(modified), 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", RANDOM)
def test_published_random_losses(case, dtype):
  cotangent = float(GOLDEN["cotangent/logits5x7"])
  float_, tolerance = DTYPES[dtype]
  with jax.enable_x64(dtype == "f64"):
    value, gradient = jax.value_and_grad(
      lambda z: ops.random_softmax_loss(z, LABELS, modulation=RANDOM[case]).mean()
    )(jnp.asarray(GOLDEN["x/logits5x7"], float_))
  prefix = f"loss_random/{case}/logits5x7/{dtype}"
  np.testing.assert_allclose(value, GOLDEN[f"{prefix}/y"], tolerance, tolerance)
  theirs = GOLDEN[f"{prefix}/grad_x"]
  ours = np.asarray(gradient) * cotangent
  np.testing.assert_allclose(ours, theirs, tolerance, tolerance * cotangent)


def test_a_negative_modulation_is_an_additive_margin():
  cosines = np.tanh(LOGITS).astype(np.float32)
  margin = np.log1p(np.exp(32 / 3)) / 32
  np.testing.assert_allclose(margin, 1 / 3, atol=1e-4)
  logits = ops.additive_margin(cosines, LABELS, margin=margin, easy_margin=False)
  expected = ops.cross_entropy(logits, LABELS)
  ours = ops.search_softmax_loss(32 * cosines, LABELS)
  np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_positive_modulation_keeps_a_floor():
  perfect = np.array([[1000.0, 0.0]], np.float32)
  k = 0.5 * np.exp(32 / 3)
  loss = ops.search_softmax_loss(perfect, np.array([0]), modulation=0.5)
  np.testing.assert_allclose(loss, np.log1p(k), rtol=1e-5)
  assert ops.search_softmax_loss(perfect, np.array([0]), modulation=-0.5) == 0


@pytest.mark.parametrize("gap", [-1e4, -200.0, -20.0, 20.0, 200.0, 1e4])
@pytest.mark.parametrize("a", [-1.0, 0.25])
def test_large_logits(gap, a):
  z = np.array([[gap, 0.0]], np.float32)
  loss, gradient = jax.value_and_grad(
    lambda z: ops.search_softmax_loss(z, np.array([0]), modulation=a).sum()
  )(z)
  k = a * np.exp(32 / 3)
  move = np.log1p(abs(k))
  odds = -gap + move if a <= 0 else -gap - move
  expected = np.logaddexp(0, odds) + (move if a > 0 else 0)
  np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(gradient[0, 0], -scipy.special.expit(odds), rtol=1e-4, atol=1e-6)


def losses():
  """Returns the three losses as functions of logits, labels, axis and mask."""
  bins = np.linspace(-0.3, 0.2, 10).astype(np.float32)
  return {
    "search": lambda *a, **k: ops.search_softmax_loss(*a, modulation=0.1, **k),
    "binned": lambda *a, **k: ops.binned_search_softmax_loss(*a, modulation=bins, **k),
    "random": lambda *a, **k: ops.random_softmax_loss(*a, modulation=-2.0, **k),
  }


@pytest.mark.parametrize("name", losses())
def test_masks_axis_labels_and_dtype(name):
  loss = losses()[name]
  z = LOGITS.astype(np.float32)
  where = np.arange(7) < np.array([[7], [6], [0], [7], [3]])
  dirty = np.where(where, z, np.nan)
  labels = np.array([3, 0, 6, 7, 5])  # row 2 is empty, label 7 names no class, label 5 is masked
  values = loss(dirty, labels, where=where)
  np.testing.assert_allclose(values[1], loss(z[1, :6], np.array(0)), rtol=1e-5)
  np.testing.assert_allclose(values[0], loss(z, LABELS)[0], rtol=1e-5)
  assert values[2] == 0 and np.isnan(values[3]) and values[4] == np.inf
  gradient = jax.grad(lambda z: loss(z, labels, where=where)[jnp.array([0, 1, 2, 4])].sum())(dirty)
  named = np.array([0, 1, 2, 4])  # the row whose label names no class has no gradient to speak of
  assert (gradient[named][~where[named]] == 0).all() and jnp.isfinite(gradient[named]).all()
  np.testing.assert_allclose(loss(z.T, LABELS, axis=0), loss(z, LABELS), rtol=1e-6)
  np.testing.assert_allclose(jax.jit(jax.vmap(loss))(z, LABELS), loss(z, LABELS), rtol=1e-5)
  half = loss(z.astype(jnp.bfloat16), LABELS)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), loss(z, LABELS), rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_gradients_numerically():
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS)
    for a in (-0.7, 0.3):  # at 0 the two forms meet in a kink
      check_grads(
        lambda z, a: ops.search_softmax_loss(z, LABELS, modulation=a, scale=6.0),
        (z, jnp.asarray(a)), order=1, atol=1e-4, rtol=1e-4,
      )  # fmt: skip
    check_grads(
      lambda z, a: ops.random_softmax_loss(z, LABELS, modulation=a), (z, jnp.asarray(0.4)), order=2
    )


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.search_softmax_loss(LOGITS, LABELS[:2]), r"labels of shape \(2,\)"),
    (lambda: ops.search_softmax_loss(LOGITS, LOGITS), r"integers of shape \(5,\)"),
    (lambda: ops.random_softmax_loss(LOGITS, LABELS, modulation=1.5), "must be at most 1"),
  ],
)
def test_failures(call, message):
  with pytest.raises(ValueError, match=message):
    call()
