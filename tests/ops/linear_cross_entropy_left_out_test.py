"""The streamed cross-entropy where something is left out: tokens, classes, labels, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

N, D, V = 13, 4, 23
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, V, N)
KEEP = RNG.random(N) < 0.7
POINT = {"features": RNG.normal(size=(N, D)), "kernel": RNG.normal(size=(D, V))}


def test_tokens_left_out_may_hold_anything(compiled_quickly):
  features = np.float32(POINT["features"])
  features[~KEEP] = np.nan
  labels = np.where(KEEP, LABELS, -100)
  for reduction in (None, "mean"):

    def loss(h, w, labels, where, reduction=reduction):
      options = {"chunk": (4, 6), "where": where, "reduction": reduction}
      loss, aux = ops.linear_cross_entropy(h, w, labels, **options)
      return loss.sum(), (loss, aux)

    run = compiled_quickly(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, (losses, aux)), gradients = run(features, np.float32(POINT["kernel"]), labels, KEEP)
    assert np.isfinite(losses).all() and all(np.isfinite(g).all() for g in gradients)
    assert not aux.logsumexp[~KEEP].any() and not aux.correct[~KEEP].any()
    assert not gradients[0][~KEEP].any() and gradients[0][KEEP].any(-1).all()
    empty = run(features, np.float32(POINT["kernel"]), labels, np.zeros(N, bool))
    assert not any(np.any(x) for x in jax.tree.leaves(empty))


def test_a_bias_of_minus_infinity_leaves_classes_out(compiled_quickly):
  open_ = np.arange(V) % 3 > 0
  features, kernel = (np.float32(POINT[k]) for k in ("features", "kernel"))
  labels = np.flatnonzero(open_)[LABELS % open_.sum()]

  @compiled_quickly
  def run(bias):
    def loss(h, w):
      options = {"bias": bias, "chunk": (5, 6), "logit_map": ops.sigsoftmax_logits}
      return ops.linear_cross_entropy(h, w, labels, **options)[0].sum()

    return jax.value_and_grad(loss, (0, 1))(features, kernel)

  value, (_, d_kernel) = run(np.where(open_, 0, -np.inf).astype("f4"))
  z = ops.sigsoftmax_logits(features @ kernel[:, open_])
  expected = ops.cross_entropy(z, LABELS % open_.sum()).sum()
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  assert not d_kernel[:, ~open_].any() and d_kernel[:, open_].any()
  nothing = run(np.full(V, -np.inf, "f4"))
  assert not any(np.any(x) for x in jax.tree.leaves(nothing))


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_a_masked_label_costs_infinity_and_has_no_gradient(reduction, compiled_quickly):
  bias, shares = np.zeros(V, "f4"), np.arange(1, N + 1, dtype="f4")
  bias[LABELS[0]] = -np.inf

  @compiled_quickly
  def run(h, w):
    def losses(h, w):
      options = {"bias": bias, "chunk": (4, 6), "reduction": reduction}
      return ops.linear_cross_entropy(h, w, LABELS, **options)[0]

    values, pull = jax.vjp(losses, h, w)
    return values, pull(jnp.float32(N) if reduction else shares)

  features, kernel = (np.float32(POINT[k]) for k in ("features", "kernel"))
  losses, (d_features, d_kernel) = run(features, kernel)
  hidden = np.equal(LABELS, LABELS[0])
  np.testing.assert_array_equal(np.isinf(losses), True if reduction else hidden)
  rates = np.where(hidden, 0, 1 if reduction else shares)[:, None]
  slopes = jax.nn.softmax(features @ kernel + bias) - jax.nn.one_hot(LABELS, V)
  np.testing.assert_allclose(d_features, rates * slopes @ kernel.T, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(d_kernel, features.T @ (rates * slopes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_rows_that_fill_the_last_block_have_no_gradient(reduction, compiled_quickly):
  """Scores of 300 without features: exp of them is infinite, and infinity times 0 is NaN."""
  features, kernel = (np.float32(POINT[k]) for k in ("features", "kernel"))

  @compiled_quickly
  def gradients(h, w, b):
    def loss(h, w, b, chunk):
      options = {"bias": b, "chunk": (chunk, 9), "temperature": 0.1, "reduction": reduction}
      return ops.linear_cross_entropy(h, w, LABELS, **options)[0].sum()

    return [jax.grad(loss, (0, 1, 2))(h, w, b, chunk) for chunk in (5, N)]

  several, one = gradients(features, kernel, np.full(V, 30, "f4"))
  for a, b in zip(several, one, strict=True):
    assert np.isfinite(b).all()
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
