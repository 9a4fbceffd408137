"""Tests of the moments of a row: closed forms, merging, extremes, derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.ops.moments import (
  Moments,
  empty_moments,
  merge_moments,
  moment_entropy,
  moment_inverse_temperature,
  row_moments,
)

RNG = np.random.default_rng(0)
Z = RNG.normal(scale=3, size=(6, 40)).astype(np.float32)
Z[1, 5:] = -np.inf
Z[2] = -np.inf
Z[3, ::2] = -np.inf
Z[4] += 1e4
BIG = np.finfo(np.float32).max


def squeezed(z):
  return jax.tree.map(lambda x: x[..., 0], row_moments(jnp.asarray(z)))


def exact(z):
  """The moments in float64."""
  z = np.float64(z)
  m = z.max(-1)
  shifted = np.where(z > -np.inf, z - np.where(m > -np.inf, m, 0)[..., None], -np.inf)
  weights = np.exp(shifted)
  weighted = np.where(weights > 0, shifted, 0) * weights
  return m, weights.sum(-1), weighted.sum(-1), (z > -np.inf).sum(-1)


def test_values():
  lowest = np.where(np.isinf(Z.max(-1)), -BIG, Z.max(-1))
  found, (_, *expected) = squeezed(Z), exact(Z)
  np.testing.assert_array_equal(found.maximum, lowest)
  for ours, theirs in zip(found[1:], expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)


def test_entropy_is_that_of_softmax():
  found = moment_entropy(squeezed(Z))
  np.testing.assert_allclose(found, ops.entropy(Z), atol=1e-6)
  assert found[2] == 0
  for n in (1, 2, 1000):
    np.testing.assert_allclose(moment_entropy(squeezed(np.zeros((1, n)))), np.log(n), atol=1e-6)


def test_entropy_is_never_negative():
  gaps = np.linspace(0, 30, 2000, dtype=np.float32)
  z = np.stack([np.zeros_like(gaps), -gaps, -gaps], -1)
  assert (np.asarray(moment_entropy(squeezed(z))) >= 0).all()


@pytest.mark.parametrize("cuts", [(7, 20), (1, 39), (5, 6)])
def test_parts_merge_to_the_whole_in_any_order(cuts):
  parts = [squeezed(part) for part in np.split(Z, cuts, -1)]
  whole, (a, b, c) = squeezed(Z), parts
  orders = [merge_moments(merge_moments(a, b), c), merge_moments(c, merge_moments(b, a))]
  for merged in orders:
    np.testing.assert_array_equal(merged.maximum, whole.maximum)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.total, whole.total, rtol=2e-6)
    np.testing.assert_allclose(merged.weighted, whole.weighted, rtol=2e-6, atol=1e-6)


def test_the_empty_moments_change_nothing():
  found = squeezed(Z)
  empty = empty_moments(found.maximum.shape, jnp.float32)
  for merged in (merge_moments(found, empty), merge_moments(empty, found)):
    for x, y in zip(merged, found, strict=True):
      np.testing.assert_array_equal(x, y)


def test_extremes_do_not_overflow():
  rows = np.float32([[BIG, -BIG], [-BIG, -BIG], [1e30, 0], [-BIG, -np.inf]])
  for found in (squeezed(rows), merge_moments(squeezed(rows[:, :1]), squeezed(rows[:, 1:]))):
    np.testing.assert_array_equal(found.total, [1, 2, 1, 1])
    np.testing.assert_array_equal(found.weighted, [0, 0, 0, 0])
    np.testing.assert_array_equal(found.count, [2, 2, 2, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_poisons_its_row_alone(bad):
  z = Z.copy()
  z[0, 3] = bad
  for found in (squeezed(z), merge_moments(squeezed(z[:, :9]), squeezed(z[:, 9:]))):
    entropy = np.asarray(moment_entropy(found))
    assert np.isnan(entropy[0]) and np.isfinite(entropy[1:]).all()


def test_the_inverse_temperature_sees_entropy_and_count_with_their_axis():
  seen = []

  def inverse_temperature(*arguments):
    seen.append(arguments)
    return 2 * arguments[0]

  moments = row_moments(jnp.asarray(Z))
  beta = moment_inverse_temperature(moments, inverse_temperature)
  ((entropy, count),) = seen
  np.testing.assert_array_equal(entropy, moment_entropy(moments))
  np.testing.assert_array_equal(count[:, 0], [40, 5, 1, 20, 40, 40])
  np.testing.assert_array_equal(beta, 2 * entropy)


def test_derivative_of_the_entropy():
  with jax.enable_x64(True):
    z = jnp.asarray(Z, jnp.float64)
    gradient = jax.jit(jax.grad(lambda z: moment_entropy(row_moments(z)).sum()))(z)
    p, h = ops.softmax(z), ops.entropy(z)[:, None]
    expected = -p * (jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), 0) + h)
    np.testing.assert_allclose(gradient, expected, atol=1e-14)
    assert (gradient[2] == 0).all()


def test_the_documented_derivative_is_that_of_jax():
  z, d_total, d_weighted = (jnp.asarray(RNG.normal(size=(3, n)), jnp.float32) for n in (8, 1, 1))

  def moments(z):
    found = row_moments(z)
    return found.total, found.weighted

  (gradient,) = jax.vjp(moments, z)[1]((d_total, d_weighted))
  shifted = z - z.max(-1, keepdims=True)
  expected = jnp.exp(shifted) * (d_total + (1 + shifted) * d_weighted)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_stopped_gradient():
  def peak(z, stop):
    return moment_inverse_temperature(row_moments(z), ops.entropy_polynomial, stop).sum()

  z = jnp.asarray(Z[:1])
  assert (jax.grad(peak)(z, True) == 0).all() and (jax.grad(peak)(z, False) != 0).any()
  assert Moments._fields == ("maximum", "total", "weighted", "count")
