"""The fitted inverse temperature: exact optimum, what it does to a head, its curve, refusals."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops
from rankbias.ops import fitted_temperature

GRID = np.geomspace(1, 32, 11)
CURVE = ops.FittedInverseTemperature(jnp.array([0.5, 1.0, 3.0]), jnp.array([1.0, 2.0, 8.0]))


def head(n, rows, seed, slope=300, noise=2.0):
  """A head that ranks its items by priority, with errors: logits, and where the priority is top."""
  rng = np.random.default_rng([seed, n])
  priority = rng.random((rows, n), dtype="f4")
  z = slope * priority + np.float32(noise) * rng.standard_normal((rows, n), dtype="f4")
  return z, priority == priority.max(-1, keepdims=True)


def weight(z, target, curve):
  p = jax.jit(lambda z: ops.adaptive_temperature_softmax(z, inverse_temperature=curve))(z)
  return float((p * target).sum(-1).mean())


def same(a, b):
  np.testing.assert_array_equal(a.values, b.values)
  np.testing.assert_allclose(a.entropies, b.entropies, rtol=1e-6)


def test_the_scores_are_the_weights_of_the_targets():
  """Against float64, with several targets a row, masks and logits that underflow."""
  rng = np.random.default_rng(1)
  z = rng.normal(size=(64, 9)) * np.geomspace(0.1, 300, 64)[:, None]
  target, where = rng.random((64, 9)) < 0.3, rng.random((64, 9)) < 0.8
  masked = np.where(where, z, -np.inf)
  kept = (target & where).any(-1)
  with jax.enable_x64(True):
    p = np.stack([ops.softmax(b * masked) for b in GRID], -1)
    h, weights = fitted_temperature._weight_on_targets(masked[kept], target[kept], GRID)
    np.testing.assert_allclose(h, ops.entropy(masked)[kept], atol=1e-12)
  expected = (p * target[..., None]).sum(1)[kept]
  np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-300)
  fits = (
    ops.fit_inverse_temperature(z, target, where, grid=GRID, bins=1),
    ops.fit_to_scores(h, expected, grid=GRID, bins=1),
  )
  for curve in fits:
    sums = expected.mean(0)
    assert sums[np.argmin(np.abs(GRID - curve.values))] == pytest.approx(sums.max(), abs=1e-6)


def test_an_optimum_between_the_ends_is_found():
  """One decoy g above the target, m rivals d below: the weight peaks at e^(-b d) m d = g e^(b g).

  That is dp/db = 0 for p = 1 / (1 + e^(b g) + m e^(-b d)).
  """
  g, d, m = 0.2, 1.0, 500
  best = np.log(m * d / g) / (g + d)
  z = np.concatenate([[0.0, g], np.full(m, -d)]) + np.zeros((8, 1))
  target = np.arange(m + 2) == np.zeros((8, 1))
  grid = np.geomspace(1, 64, 400)
  curve = ops.fit_inverse_temperature(z.astype("f4"), target, grid=grid, bins=1)
  np.testing.assert_allclose(curve.values, best, rtol=0.012)  # a step of the grid
  assert 5 < best < 7


def test_perfect_ranking_ends_at_the_end_of_the_grid_and_sharp_rows_stay():
  """Without an error more is always better; where nothing is left to gain, beta stays smallest."""
  z, target = head(64, 512, 0, slope=1000, noise=0)
  curve = ops.fit_inverse_temperature(z, target, bins=8)
  assert curve.values[-1] == 64
  certain = np.float32([[100, 0, 0]]).repeat(8, 0)
  same(
    ops.fit_inverse_temperature(certain, certain > 0, bins=1),
    ops.FittedInverseTemperature(jnp.zeros(1), jnp.ones(1)),
  )


def test_rows_whose_target_is_never_the_largest_keep_their_temperature():
  z, target = head(32, 64, 0, noise=0)
  second = z == np.sort(z, -1)[:, -2:-1]
  wrong = ops.fit_inverse_temperature(z + 5 * target, second, grid=GRID, bins=2)
  np.testing.assert_array_equal(wrong.values, 1)


@pytest.mark.parametrize("n", [16, 256, 2048])
def test_more_weight_on_unseen_rows_than_the_polynomial_puts(n):
  fitted = [head(m, 128, 0) for m in (16, 128, 1024)]
  curve = ops.fit_inverse_temperature([z for z, _ in fitted], [t for _, t in fitted])
  z, target = head(n, 256, 1)
  found = weight(z, target, curve)
  ceiling = (np.argmax(z, -1) == np.argmax(target, -1)).mean()
  assert found > weight(z, target, ops.entropy_polynomial) + 0.002
  assert found > ceiling - 0.01
  assert (np.diff(curve.values) >= 0).all() and (curve.values >= 1).all()


def test_neither_blocks_nor_padding_nor_shape_matter(monkeypatch):
  parts = [head(8, 40, 0, 20), head(24, 40, 0, 20)]
  z, target = ([part[i] for part in parts] for i in range(2))
  expected = ops.fit_inverse_temperature(z, target, bins=4)
  padded, targets = np.full((80, 24), np.nan, "f4"), np.zeros((80, 24), bool)
  padded[:40, :8], targets[:40, :8], padded[40:], targets[40:] = z[0], target[0], z[1], target[1]
  where = ~np.isnan(padded)
  same(ops.fit_inverse_temperature(padded, targets, where, bins=4), expected)
  same(ops.fit_inverse_temperature(z, target, [None, where[40:]], bins=4), expected)
  cut = padded.reshape(2, 40, 24), targets.reshape(2, 40, 24), where.reshape(2, 40, 24)
  monkeypatch.setattr(fitted_temperature, "BLOCK", 24 * 7)
  same(ops.fit_inverse_temperature(*cut, bins=4), expected)


def test_rows_without_a_target_and_rows_outside_of_the_edges_are_left_out():
  z, target = head(16, 64, 0, 20)
  expected = ops.fit_inverse_temperature(z, target, bins=4)
  target_of_twice = np.concatenate([target, np.zeros_like(target)])
  same(ops.fit_inverse_temperature(np.tile(z, (2, 1)), target_of_twice, bins=4), expected)
  h = np.sort(ops.entropy(z))  # the last edge belongs to the last bin
  between = ops.fit_inverse_temperature(z, target, bins=h[[10, 30, 49]])
  np.testing.assert_allclose(between.entropies, [h[10:30].mean(), h[30:50].mean()], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int32"])
def test_logits_of_other_dtypes(dtype):
  z, target = head(16, 64, 0, 20)
  z = np.round(z)  # exact in all of them
  expected = ops.fit_inverse_temperature(z, target, bins=4)
  same(ops.fit_inverse_temperature(z.astype(jnp.dtype(dtype)), target, bins=4), expected)


class TestCurve:
  def test_it_is_linear_between_its_points_and_constant_beyond(self):
    h = np.array([[-1.0, 0.5, 0.75, 1.0], [2.0, 3.0, 9.0, np.inf]])
    np.testing.assert_allclose(CURVE(h), [[1, 1, 1.5, 2], [5, 8, 8, 8]])
    np.testing.assert_allclose(jax.jit(CURVE)(h, np.ones((2, 1))), CURVE(h))
    np.testing.assert_allclose(jax.vmap(CURVE)(h), CURVE(h))
    assert [float(x) for x in CURVE.range] == [0.5, 3.0]

  @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
  def test_its_values_have_the_dtype_of_the_entropy(self, dtype):
    assert CURVE(jnp.ones(3, dtype)).dtype == dtype

  def test_its_derivative_is_its_slope(self):
    slopes = jax.vmap(jax.grad(CURVE))(jnp.array([0.2, 0.75, 2.0, 4.0]))
    np.testing.assert_allclose(slopes, [0, 2, 3, 0])
    by_values = jax.grad(lambda curve: curve(jnp.float32(0.75)))(CURVE).values
    np.testing.assert_allclose(by_values, [0.5, 0.5, 0])

  def test_curves_of_several_heads_stack(self):
    other = ops.FittedInverseTemperature(CURVE.entropies, 2 * CURVE.values)
    heads = jax.tree.map(lambda *x: jnp.stack(x), CURVE, other)
    found = jax.jit(jax.vmap(lambda curve, h: curve(h)))(heads, jnp.array([[0.75], [0.75]]))
    np.testing.assert_allclose(found, [[1.5], [3]])
    np.testing.assert_allclose(heads.range[1], [3, 3])
    rows = np.random.default_rng(0).uniform(0, 4, size=(3, 2, 5, 1))
    expected = np.stack([CURVE(rows[:, 0]), other(rows[:, 1])], 1)
    np.testing.assert_allclose(jax.jit(lambda h: heads(h))(rows), expected, rtol=1e-6)
    for wrong in (rows[0, 0, :, 0], rows[:, :1]):
      with pytest.raises(ValueError, match=r"must be \[..., 2, T, 1\] .* one for each head"):
        heads(wrong)

  @pytest.mark.parametrize("implementation", ["dense", "stream"])
  def test_attention_takes_one_curve_or_one_for_each_head(self, implementation):
    q, k, v = np.float32(np.random.default_rng(4).normal(size=(3, 2, 7, 2, 4)))
    other = ops.FittedInverseTemperature(CURVE.entropies, 3 * CURVE.values)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), CURVE, other)
    attend = jax.jit(partial(ops.adaptive_temperature_attention, implementation=implementation))
    logits = np.einsum("bthd,bshd->hbts", q, k) / 2
    for curve, own in ((CURVE, (CURVE, CURVE)), (stacked, (CURVE, other))):
      pairs = zip(logits, own, strict=True)
      weights = [ops.adaptive_temperature_softmax(z, inverse_temperature=c) for z, c in pairs]
      expected = np.einsum("hbts,bshd->bthd", weights, v)
      found = attend(q, k, v, inverse_temperature=curve)
      np.testing.assert_allclose(found, expected, atol=1e-5)

  def test_it_survives_json(self):
    curve = ops.fit_inverse_temperature(*head(16, 64, 0, 20), bins=4)
    again = ops.FittedInverseTemperature.from_dict(json.loads(json.dumps(curve.as_dict())))
    np.testing.assert_array_equal(again.values, curve.values)
    np.testing.assert_array_equal(again.entropies, curve.entropies)

  def test_it_sharpens_rows_and_leaves_the_empty_one_alone(self):
    z = np.float32(np.random.default_rng(2).normal(size=(4, 6)))
    where = np.arange(6) < np.array([[6], [3], [1], [0]])
    sharpened = jax.jit(ops.adaptive_temperature_softmax)
    p = sharpened(z, inverse_temperature=CURVE, where=where)  # a pytree, it may be an argument
    before, after = ops.entropy(z, where=where), -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)), -1)
    assert (after <= before + 1e-6).all() and after[0] < before[0]
    np.testing.assert_array_equal(p[3], 0)

  def test_gradients_pass_through_the_temperature(self):
    z = np.random.default_rng(3).normal(size=6)

    @jax.jit
    def first(z):
      return ops.adaptive_temperature_softmax(z, inverse_temperature=CURVE)[0]

    with jax.enable_x64(True):
      gradient, step = jax.jit(jax.grad(first))(z), 1e-5
      differences = [first(z + step * e) - first(z - step * e) for e in np.eye(6)]
      np.testing.assert_allclose(gradient, np.array(differences) / (2 * step), atol=1e-7)


Z, TARGET = head(8, 32, 0)
BAD = np.where(np.arange(8) == 3, np.nan, Z)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.fit_inverse_temperature(Z, TARGET & False), "is_target holds in no row"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, ~TARGET), "is_target holds in no row"),
    (lambda: ops.fit_inverse_temperature(BAD, TARGET), "logits are NaN or inf"),
    (lambda: ops.fit_inverse_temperature(Z + np.inf, TARGET), "logits are NaN or inf"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET[:, :7]), r"is_target is bool of shape"),
    (
      lambda: ops.fit_inverse_temperature(Z, TARGET, TARGET[:9]),
      r"where of shape \(9, 8\) does not",
    ),
    (lambda: ops.fit_inverse_temperature([Z, Z], [TARGET]), "logits holds 2 arrays, is_target 1"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, grid=[]), r"grid = \[\] must be"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, grid=[0.0, 1.0]), "grid = .* > 0"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, grid=[2.0, 1.0]), "that increase"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, bins=5), "a bin with 6 of 32 rows"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, bins=0), "bins = 0 must be 1 or more"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, bins=[1.0, 1.0]), "two or more edges"),
    (lambda: ops.fit_inverse_temperature(Z, TARGET, bins=[8.0, 9.0]), "a bin with 0 of 32 rows"),
    (lambda: ops.fit_to_scores(np.ones(9), np.ones((9, 3))), r"must be \(9, 49\)"),
    (lambda: ops.fit_to_scores(np.ones(9), np.full((9, 1), np.inf), grid=[1.0]), "must be finite"),
    (lambda: ops.FittedInverseTemperature.from_dict({"values": [1]}), "numbers has"),
    (
      lambda: ops.FittedInverseTemperature.from_dict({"entropies": [1, 0], "values": [1, 1]}),
      "entropies = .* must increase",
    ),
    (
      lambda: ops.FittedInverseTemperature.from_dict({"entropies": [0, 1], "values": [1]}),
      "values = .* finite number for each",
    ),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()
