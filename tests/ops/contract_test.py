"""The contract of every map: mass, masks, order, precision and derivatives. log_softmax as well."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from rankbias import ops

EPS = np.finfo(np.float32).eps
ALL = np.ones((4, 8), bool)


def hidden(z, where):
  return np.where(where, np.float64(z), -np.inf)


def leaves(*trees):
  return zip(*map(jax.tree.leaves, trees), strict=True)


def test_every_map_is_here(maps):
  assert {*ops.NORMALIZERS, "log_softmax"} == {entry.name for entry in maps.values()}


@pytest.mark.parametrize("scale", ["one", "large", "far", "tiny", "ties", "single"])
def test_values_mass_and_gradients_at_every_scale(entry, arrays, scale):
  """In float32 against float64 at the same logits."""
  z, _, cotangent, _ = arrays
  z = {
    "one": z,
    "large": z * 2000,
    "far": z + np.float32([[1e4], [-1e4], [1e3], [-100]]),
    "tiny": z * np.float32(2e-7),
    "ties": np.float32([[0] * 8, [1, 1, 0, 0, -1, -1, 1, 0], [-3] * 7 + [2], [5] * 8]),
    "single": z,
  }[scale]
  z, where = entry.admissible(z), np.eye(4, 8, dtype=bool) if scale == "single" else ALL
  y, dz, _ = entry.pulled(z, where, cotangent)
  with jax.enable_x64(True):
    point = jnp.float64(z), entry.differentiable
    exact, _, (exact_dz, _), _ = entry.derivatives(point, where, point, jnp.float64(cotangent))
  loose = entry.tolerance(z)
  assert (y >= 0).all()
  np.testing.assert_allclose(y, exact, atol=loose, rtol=0)
  np.testing.assert_allclose(exact.sum(-1), entry.mass(hidden(z, where)), atol=1e-12, rtol=0)
  if scale != "ties":  # at a tie rounding may decide on which side of a kink it lies
    size = np.maximum(np.abs(exact_dz).max(-1, keepdims=True), 1)
    np.testing.assert_array_less(np.abs(dz - exact_dz) / size, 8 * loose)


def test_masked_entries_are_zero_and_get_no_gradient(entry, arrays):
  z, mask, cotangent, _ = arrays
  z = entry.admissible(z)
  clean = entry.pulled(z, mask, cotangent)
  cases = [(np.where(mask, z, junk), mask) for junk in (np.nan, np.inf, -np.inf, 1e30)]
  if entry.has("logits"):
    cases.append((np.where(mask, z, -np.inf), ALL))
  for dirty, where in cases:
    for ours, theirs in leaves(entry.pulled(np.float32(dirty), where, cotangent), clean):
      np.testing.assert_array_equal(ours, theirs)
  y, dz, _ = clean
  assert (y[~mask] == 0).all() and (dz[~mask] == 0).all()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(clean))
  np.testing.assert_allclose(y.sum(-1), entry.mass(hidden(z, mask)), atol=EPS * 16)


def test_not_a_number_is_not_hidden(entry, arrays):
  z, _, cotangent, _ = arrays
  z = entry.admissible(z).copy()
  z[0, 2], z[1, 3] = np.nan, np.inf
  y, *_ = entry.pulled(z, ALL, cotangent)
  assert np.isnan(y[0]).all() if entry.has("competition") else np.isnan(y[0, 2])
  z[1, 3] = entry.largest  # an infinite logit is an error, or the limit of a large one
  limit, *_ = entry.pulled(z, ALL, cotangent)
  assert np.isnan(y[1]).all() or np.array_equal(y[1], limit[1])
  assert np.isfinite(y[2:]).all()


def test_permutation_shift_and_order(entry, arrays):
  z, mask, cotangent, _ = arrays
  z, loose = entry.admissible(z), entry.tolerance(z)
  y, dz, _ = entry.pulled(z, mask, cotangent)
  order = np.random.default_rng(1).permutation(8)
  other, d_other, _ = entry.pulled(z[:, order], mask[:, order], cotangent[:, order])
  np.testing.assert_allclose(other, y[:, order], atol=loose)
  np.testing.assert_allclose(d_other, dz[:, order], atol=8 * loose)
  shifted, *_ = entry.pulled(z + 64, mask, cotangent)
  assert np.allclose(shifted, y, rtol=0, atol=entry.tolerance(z + 64)) == entry.has("shift")
  y, *_ = entry.pulled(z, ALL, cotangent)
  larger = z[:, :, None] >= z[:, None, :]
  kept = y[:, :, None] >= y[:, None, :] * (1 - 4 * EPS)
  assert (kept | ~larger).all() == entry.has("order")


def test_derivatives_in_float64(entry, arrays):
  """Against central differences, whose error is h^2 f''' / 6 + eps / h, about 1e-10 at this h."""
  z, mask, cotangent, tangent = arrays
  h = 6e-6
  with jax.enable_x64(True):
    own = entry.differentiable
    point = jnp.float64(entry.admissible(z)), own
    tangent = jnp.float64(tangent), jax.tree.map(lambda x: jnp.cos(7 * x), own)
    cotangent = jnp.float64(cotangent)

    def at(step):
      moved = jax.tree.map(lambda x, v: x + step * v, point, tangent)
      return entry.derivatives(moved, mask, tangent, cotangent)

    (_, pushed, gradient, second), above, below = at(0), at(h), at(-h)
    assert (pushed[~mask] == 0).all() and (gradient[0][~mask] == 0).all()
    both = [sum(np.sum(a * b) for a, b in leaves(gradient, tangent)), np.sum(cotangent * pushed)]
    np.testing.assert_allclose(*both, rtol=1e-10, atol=1e-12)
    if not entry.has("exact"):
      return
    for ours, a, b in leaves((pushed, second), (above[0], above[2]), (below[0], below[2])):
      numeric = (a - b) / (2 * h)
      np.testing.assert_allclose(ours, numeric, rtol=0, atol=2e-8 * max(1, np.abs(numeric).max()))


LOGITS = st.one_of(
  st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 9999.0, 1e-6, 1e30, -1e30]),
  st.floats(-8, 8, width=16),
  st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
)


# Rows of 8 or of 1, drawn from few numbers of any size, hence with ties; any mask and order.
POOL, PLACES = st.lists(LOGITS, min_size=1, max_size=8), st.binary(min_size=36)
ROWS = {"pool": POOL, "places": PLACES, "order": st.permutations(range(8))}


def rows_and_mask(entry, n, pool, places):
  places = np.frombuffer(places, np.uint8)
  z = entry.admissible(np.float32(pool)[places[: 4 * n].reshape(4, n) % len(pool)])
  z = np.clip(z, -np.float32(entry.largest), np.float32(entry.largest))
  return z, np.unpackbits(places[-4:])[: 4 * n].reshape(4, n) > 0


def holds(entry, cotangent, z, where, order):
  """Asserts what is true of any rows [4, n]: see the names below."""
  n = z.shape[1]
  order, cotangent = np.array([i for i in order if i < n]), cotangent[:, :n]
  y, dz, _ = entry.pulled(z, where, cotangent)
  assert np.isfinite(y).all() and (y >= 0).all() and (y[~where] == 0).all()
  assert np.isfinite(dz).all() and (dz[~where] == 0).all()
  loose = EPS * (n + 8)
  np.testing.assert_allclose(y.sum(-1), entry.mass(hidden(z, where)), atol=loose, rtol=0)
  if entry.has("order"):
    larger = (z[:, :, None] >= z[:, None, :]) & where[:, :, None] & where[:, None, :]
    assert (~larger | (y[:, :, None] >= y[:, None, :] * (1 - 4 * EPS))).all()
  permuted, *_ = entry.pulled(z[:, order], where[:, order], cotangent[:, order])
  loose = entry.tolerance(z) + entry.border
  np.testing.assert_allclose(permuted, y[:, order], atol=loose, rtol=0)
  shifted = z + np.float32(4)
  same = (np.float64(shifted) - 4 == z).all(-1)  # where the sums are exact
  if entry.has("shift") and same.any():
    other, *_ = entry.pulled(shifted, where, cotangent)
    loose = entry.tolerance(shifted[same]) + entry.border
    np.testing.assert_allclose(other[same], y[same], atol=loose, rtol=0)


@given(n=st.sampled_from([8, 8, 1]), **ROWS)
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_search_for_a_counterexample(entry, arrays, n, pool, places, order):
  holds(entry, arrays[2], *rows_and_mask(entry, n, pool, places), order)


@pytest.mark.slow
@given(**ROWS)
@settings(max_examples=200, deadline=None, database=None)
def test_other_counterexamples_at_every_run(member, arrays, pool, places, order):
  holds(member, arrays[2], *rows_and_mask(member, 8, pool, places), order)


def test_log_softmax(arrays):
  z, mask, cotangent, tangent = arrays
  dirty = np.where(mask, z, np.nan)

  def masked(z):
    return ops.log_softmax(z, where=mask)

  logs, pull = jax.vjp(masked, dirty)
  _, pushed = jax.jvp(masked, (dirty,), (tangent,))
  (gradient,) = pull(cotangent)
  for derivative in (gradient, pushed):
    assert (derivative[~mask] == 0).all() and jnp.isfinite(derivative).all()
  assert (logs[~mask] == -np.inf).all() and jnp.isfinite(logs[mask]).all()
  np.testing.assert_array_equal(logs, ops.log_softmax(np.where(mask, z, -np.inf)))
  np.testing.assert_allclose(jnp.exp(logs), ops.softmax(z, where=mask), atol=16 * EPS)
  np.testing.assert_allclose(np.sum(cotangent * pushed), np.sum(gradient * tangent), atol=1e-5)
  far = np.float32([[1e4, -1e4], [0, 1e-6]])
  np.testing.assert_allclose(ops.log_softmax(far), scipy.special.log_softmax(far, -1), rtol=1e-6)
