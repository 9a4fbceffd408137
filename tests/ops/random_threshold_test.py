"""Tests of PLSoftMax on long rows: slots for what lies within delta, and all logits otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.ops import random_threshold

FEW = 392  # 14 isqrt(800), the near logits that the slots of a row of 800 hold


def rows_with(*counts, tied=False):
  """Returns rows of 800 logits, of which so many are less than 1 below the largest."""
  rng, rows = np.random.default_rng(1), []
  for count in counts:
    gaps = np.r_[np.zeros(min(count, 1)), rng.uniform(0.001, 0.999, max(count - 1, 0))]
    gaps = np.floor(gaps * 32) / 32 if tied else gaps
    far = np.where(rng.random(800 - count) < 0.5, 1.0, rng.uniform(1, 3, 800 - count))
    rows.append(rng.permutation(np.r_[2 - gaps, 2 - far if count else far - np.inf]))
  return np.float32(rows)


def pulled(jit, f, z, cotangent):
  """Returns f(z, delta = 1), and what the cotangent gives of z and of delta, one a row."""

  @jit
  def pull(z, delta, cotangent):
    weights, back = jax.vjp(f, z, delta)
    return weights, *back(cotangent)

  return pull(z, jnp.ones((len(z), 1), z.dtype), cotangent)


def linear(z, delta):
  return ops.piecewise_linear_softmax(z, delta=delta)


def sorted_whole(z, delta):
  """The same without slots: it sorts all n."""
  top = jax.lax.stop_gradient(jnp.max(z, -1, keepdims=True, initial=jnp.finfo(z.dtype).min))
  return random_threshold._all(z, top, delta)


def chosen_in_float64(z):
  """The definition at delta = 1, with one integral from every logit."""
  gaps = np.minimum(z.max(-1, keepdims=True) - np.float64(z), 1)
  for row in gaps:
    order = np.sort(row)
    widths = np.diff(np.append(order, 1)) / np.arange(1, len(row) + 1)
    yield [widths[np.searchsorted(order, gap) :].sum() for gap in row]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("counts", [(FEW, 1, 0, 200), (FEW + 1, 1, 0, 200)], ids=["few", "wide"])
def test_slots_hold_what_lies_within_delta(compiled_quickly, counts, tied):
  """At the border of their number, and one beyond it in a single row of the batch."""
  z = rows_with(*counts, tied=tied)
  cotangent = np.random.default_rng(2).normal(size=z.shape).astype(np.float32)
  ours, whole = (
    pulled(compiled_quickly, linear, z, cotangent),
    pulled(compiled_quickly, sorted_whole, z, cotangent),
  )
  some = np.array(counts) > 0
  np.testing.assert_allclose(ours[0][some], list(chosen_in_float64(z[some])), atol=3e-7)
  assert (np.asarray(ours[0]) > 0).sum(-1).tolist() == list(counts)
  with jax.enable_x64(True):
    exact = pulled(compiled_quickly, linear, np.float64(z), np.float64(cotangent))
  for a, b, c in zip(ours, whole, exact, strict=True):
    assert np.isfinite(a).all() and (a[~some] == 0).all()
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    np.testing.assert_allclose(a, c, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [100, 600])
def test_small_weights_keep_their_digits_and_order(count):
  """All but the largest logit are within 600 units of delta, so that no rounding is in the gaps."""
  z = np.zeros((1, 800), np.float32)
  z[0, : count + 1] = np.r_[2, 1 + np.arange(count, 0, -1) * 2.0**-23]
  weights = np.asarray(linear(z, 1.0))
  np.testing.assert_allclose(weights, list(chosen_in_float64(z)), rtol=1e-5)
  falls = np.diff(weights[0, : count + 1])
  assert (falls <= weights[0, :count] * 4 * np.finfo(np.float32).eps).all()


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_slots_are_used_as_long_as_they_suffice(monkeypatch, count):
  monkeypatch.setattr(random_threshold, "_all", lambda z, top, delta: z * jnp.nan)
  z = rows_with(5, count)
  one = np.ones((2, 1), np.float32)
  weights = jax.jit(random_threshold.chosen_above)(z, z.max(-1, keepdims=True), one)
  assert np.isnan(weights).all() == (count > FEW)
  assert np.isfinite(weights).all() == (count == FEW)


@pytest.mark.slow
def test_slots_under_vmap_in_scan_and_forward(compiled_quickly):
  """Under vmap every row asks for its own number of slots, and both ways are computed."""
  z = rows_with(3, FEW + 1, FEW, 0, tied=True)
  cotangent = np.random.default_rng(3).normal(size=z.shape).astype(np.float32)
  z[0, z[0] < 0.5] = -np.inf
  expected = pulled(compiled_quickly, linear, z, cotangent)
  tangents = np.cos(z, where=z > -np.inf, out=np.zeros_like(z)), np.ones((4, 1), np.float32)

  def row(z, cotangent):
    weights, back = jax.vjp(linear, z, jnp.ones(1))
    return weights, *back(cotangent)

  @compiled_quickly
  def everywhere(z, cotangent, tangents):
    _, scanned = jax.lax.scan(lambda _, one: (None, row(*one)), None, (z, cotangent))
    mapped = jax.vmap(row, (-1, 0))(z.T, cotangent)
    return scanned, mapped, jax.jvp(linear, (z, jnp.ones((4, 1))), tangents)[1]

  *found, pushed = everywhere(z, cotangent, tangents)
  for ours in found:
    for a, b in zip(ours, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
  both = sum((a * b).sum(-1) for a, b in zip(expected[1:], tangents, strict=True))
  np.testing.assert_allclose((cotangent * pushed).sum(-1), both, rtol=0, atol=2e-5)


def test_slots_do_not_hide_what_is_not_a_number():
  z = rows_with(5, 7)
  z[0, 3] = np.inf
  np.testing.assert_array_equal(np.isnan(linear(z, 1.0)).all(-1), [True, False])
  z[0, 3] = np.nan
  weights = linear(z, 1.0)
  np.testing.assert_array_equal(np.isnan(weights).all(-1), [True, False])
  np.testing.assert_allclose(weights[1], linear(z[1], 1.0), atol=1e-7)
  half = jnp.asarray(z[1:], jnp.bfloat16)
  wide = linear(half.astype(jnp.float32), 1.0)
  np.testing.assert_array_equal(linear(half, 1.0), wide.astype(jnp.bfloat16))
