"""Sharpness of heads: recomputed in NumPy, grouped by their keys, masked, traced."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from rankbias.evaluate import row_sharpness, sharpness, sharpness_against_count

BATCH, HEADS, LENGTH = 2, 3, 12
RNG = np.random.default_rng(0)
Z = np.float32(RNG.normal(size=(BATCH, HEADS, LENGTH, LENGTH)) * [[[1]], [[3]], [[10]]])
CAUSAL = np.tri(LENGTH, dtype=bool)
NAMES = ("keys", "spread", "entropy", "effective_keys", "max_weight")
BOUNDS = {"weight_lower", "weight_upper", "entropy_lower"}


def recomputed(z, where):
  """The measures of one row in float64, 0 where it is empty."""
  kept = np.float64(z[where])
  if not kept.size:
    return dict.fromkeys(NAMES, 0.0)
  p, h = softmax(kept), entropy(softmax(kept))
  numbers = kept.size, np.ptp(kept), h, np.exp(h), p.max()
  return dict(
    zip(("keys", "spread", "entropy", "effective_keys", "max_weight"), numbers, strict=True)
  )


def table(z, where):
  """{name: [..., queries]} of `recomputed`."""
  where = np.broadcast_to(where, z.shape)
  rows = [
    recomputed(a, b) for a, b in zip(z.reshape(-1, LENGTH), where.reshape(-1, LENGTH), strict=True)
  ]
  return {name: np.reshape([row[name] for row in rows], z.shape[:-1]) for name in NAMES}


PADDED = CAUSAL & (np.arange(LENGTH) >= 3)  # the first three queries have no key


@pytest.mark.parametrize("where", [np.ones((LENGTH, LENGTH), bool), CAUSAL, PADDED])
def test_rows_against_numpy(where):
  found = row_sharpness(Z, where)
  assert set(found) == {*NAMES, *BOUNDS}
  for name, expected in table(Z, where).items():
    np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6)
  n, delta = found["keys"], found["spread"]
  some = np.asarray(n) > 0
  upper = np.where(some, 1 / (1 + (n - 1) * np.exp(-delta)), 0)
  np.testing.assert_allclose(found["weight_upper"], upper, rtol=1e-5)
  room = 1 + 1e-5
  assert (found["max_weight"] <= found["weight_upper"] * room).all()
  assert (found["weight_lower"] * n <= room).all()
  assert (found["entropy_lower"] <= found["entropy"] + 1e-5).all()
  assert (np.asarray(found["effective_keys"]) <= np.asarray(n) * room).all()


def test_a_mask_of_minus_infinity_is_the_same():
  expected, found = row_sharpness(Z, PADDED), row_sharpness(np.where(PADDED, Z, -np.inf))
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6)


@pytest.mark.parametrize("where", [CAUSAL, PADDED])
def test_summary_over_the_queries_that_attend(where):
  found = sharpness(Z, where)
  kept = where.any(-1)
  for name, values in table(Z, where).items():
    for how, f in {"mean": np.mean, "min": np.min, "max": np.max}.items():
      assert found[name][how].shape == (BATCH, HEADS)
      np.testing.assert_allclose(found[name][how], f(values[..., kept], -1), rtol=2e-5, atol=1e-6)


def test_a_head_without_any_key_is_zero():
  found = sharpness(Z, np.zeros((LENGTH, LENGTH), bool))
  assert all((value == 0).all() for values in found.values() for value in values.values())


def test_curves_of_causal_heads_average_over_the_batch():
  found = sharpness_against_count(Z, CAUSAL)
  np.testing.assert_array_equal(found["keys"], np.arange(1, LENGTH + 1))
  np.testing.assert_array_equal(found["rows"], BATCH)
  for name in NAMES[1:]:
    expected = table(Z, CAUSAL)[name].mean(0)
    np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6)
  np.testing.assert_array_equal(found["entropy"][:, 0], 0)  # of one key


def test_queries_are_grouped_by_their_keys_whatever_the_mask():
  lengths = np.array([5, 12])
  where = (np.arange(LENGTH) < lengths[:, None])[:, None, None]
  found = sharpness_against_count(Z, where)
  rows = np.zeros(LENGTH, int)
  rows[lengths - 1] = LENGTH
  np.testing.assert_array_equal(found["rows"], np.tile(rows, (HEADS, 1)))
  expected = table(Z, where)["spread"].mean(-1)  # [batch, heads], each batch entry one length
  np.testing.assert_allclose(found["spread"][:, lengths - 1], expected.T, rtol=1e-5)
  np.testing.assert_array_equal(found["spread"][:, :4], 0)


@pytest.mark.parametrize("measure", [row_sharpness, sharpness, sharpness_against_count])
def test_traced_and_mapped_over_layers(measure):
  eager = measure(Z, CAUSAL)
  traced = jax.jit(measure)(Z, CAUSAL)
  layers = jax.vmap(measure, (0, None))(np.stack([Z, Z]), CAUSAL)
  for a, b, c in zip(*(jax.tree.leaves(x) for x in (eager, traced, layers)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a, c[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_seen_where_it_is_attended_to(bad):
  z = Z.copy()
  z[1, 2, 7, 4] = bad  # query 7 sees key 4
  z[0, 1, 7, 9] = bad  # and not key 9
  expected, found = row_sharpness(Z, CAUSAL), row_sharpness(z, CAUSAL)
  for name, values in found.items():
    values, others = (np.asarray(v).reshape(-1) for v in (values, expected[name]))
    row = np.ravel_multi_index((1, 2, 7), found["keys"].shape)
    if name != "keys":
      assert np.isnan(values[row]), name
      values, others = np.delete(values, row), np.delete(others, row)
    np.testing.assert_allclose(values, others, rtol=1e-6, err_msg=name)
  means = sharpness(z, CAUSAL)["entropy"]["mean"]
  np.testing.assert_array_equal(np.isnan(means), [[False] * 3, [False, False, True]])
  curves = sharpness_against_count(z, CAUSAL)["spread"]  # [heads, keys]
  assert np.isnan(curves[2, 7]) and np.isnan(curves).sum() == 1


def test_half_precision_logits_are_measured_in_float32():
  found = row_sharpness(Z.astype(np.float16), CAUSAL)
  assert all(value.dtype == np.float32 for value in found.values())
  expected = row_sharpness(Z.astype(np.float16).astype(np.float32), CAUSAL)
  np.testing.assert_allclose(found["entropy"], expected["entropy"], rtol=1e-6)


@pytest.mark.parametrize("measure", [sharpness, sharpness_against_count])
def test_logits_without_heads_are_refused(measure):
  with pytest.raises(ValueError, match=r"shape \(3, 4\) must be \[..., heads, queries, keys\]"):
    measure(np.zeros((3, 4)))
