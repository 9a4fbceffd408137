"""Tests of softmax, log_softmax and entropy: values, masks, temperature, dtypes, gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from rankbias import ops

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 7)).astype(np.float32) * 3
MASK = np.arange(7) < np.array([7, 4, 1, 0, 6])[:, None]
FUNCTIONS = [ops.softmax, ops.log_softmax, ops.entropy]


def test_values_against_scipy():
  z = LOGITS.astype(np.float64)
  p = scipy.special.softmax(z / 2.5, -1)
  np.testing.assert_allclose(ops.softmax(LOGITS, temperature=2.5), p, atol=1e-6)
  logs = scipy.special.log_softmax(z / 2.5, -1)
  np.testing.assert_allclose(ops.log_softmax(LOGITS, temperature=2.5), logs, atol=2e-6)
  spread = scipy.special.entr(p).sum(-1)
  np.testing.assert_allclose(ops.entropy(LOGITS, temperature=2.5), spread, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), (-2, -1), None])
@pytest.mark.parametrize("where", [None, MASK, MASK[0], np.bool_(True)])
def test_drop_in_for_jax(axis, where):
  ours = ops.softmax(LOGITS, axis=axis, where=where)
  empty = False if where is None else ~np.any(np.broadcast_to(where, (5, 7)), axis, keepdims=True)
  theirs = jax.nn.softmax(LOGITS, axis=axis, where=where)
  np.testing.assert_allclose(ours, jnp.where(empty, 0, theirs), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.int32])
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_accepts_what_jax_accepts_and_keeps_the_dtype(dtype, make):
  logits = make(np.array([[1, 2, 3]]), dtype=dtype)
  expected = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
  for f in FUNCTIONS:
    assert f(logits).dtype == jax.nn.softmax(logits).dtype
  np.testing.assert_allclose(ops.softmax(logits).astype(jnp.float32), expected, atol=4e-3)


@pytest.mark.parametrize("shape", [(), (3, 0), (0, 3), (2, 1)])
def test_shapes_without_much_in_them(shape):
  axis = None if shape == () else -1
  assert ops.softmax(np.zeros(shape, np.float32), axis=axis).shape == shape
  assert ops.entropy(np.zeros(shape, np.float32), axis=axis).shape == shape[:-1]


def test_half_precision_is_reduced_in_float32():
  z = jnp.zeros((1, 5000), jnp.bfloat16)  # a bfloat16 sum of ones stops at 256
  np.testing.assert_allclose(ops.softmax(z).astype(jnp.float32), 1 / 5000, rtol=4e-3)
  np.testing.assert_allclose(ops.entropy(z).astype(jnp.float32), np.log(5000), rtol=4e-3)


def test_temperature_scalar_traced_and_per_row():
  rows = np.array([[0.1], [1], [3], [10], [100]], np.float32)
  expected = jax.nn.softmax(LOGITS / rows)
  np.testing.assert_allclose(ops.softmax(LOGITS, temperature=rows), expected, atol=1e-6)
  traced = jax.jit(lambda z, t: ops.softmax(z, temperature=t))(LOGITS, 3.0)
  np.testing.assert_allclose(traced, ops.softmax(LOGITS, temperature=3), atol=1e-7)
  mapped = jax.vmap(lambda t: ops.softmax(LOGITS, temperature=t))(rows[:, 0])
  assert mapped.shape == (5, 5, 7)
  # Along the normalised axis too: T = T_i divides z_i before the maximum is taken.
  across = np.linspace(0.5, 2, 7, dtype=np.float32)
  expected = jax.nn.softmax(LOGITS / across[None])
  np.testing.assert_allclose(ops.softmax(LOGITS, temperature=across), expected, atol=1e-6)


@pytest.mark.parametrize("where", [None, MASK])
def test_minus_infinity_is_a_mask(where):
  hidden = jnp.where(MASK, LOGITS, -jnp.inf)
  for f in FUNCTIONS:
    masked = f(LOGITS, temperature=2.0, where=MASK)
    np.testing.assert_array_equal(f(hidden, temperature=2.0, where=where), masked)


def test_masked_entries_and_empty_rows_are_exact():
  p, logs = ops.softmax(LOGITS, where=MASK), ops.log_softmax(LOGITS, where=MASK)
  assert (p[~MASK] == 0).all() and (logs[~MASK] == -jnp.inf).all()
  assert (p[3] == 0).all() and ops.entropy(LOGITS, where=MASK)[3] == 0
  np.testing.assert_allclose(p[jnp.array([0, 1, 2, 4])].sum(-1), 1, atol=1e-6)
  assert p[2, 0] == 1 and ops.entropy(LOGITS, where=MASK)[2] == 0


def test_what_is_masked_may_hold_anything():
  dirty = np.where(MASK, LOGITS, np.nan)
  for f in FUNCTIONS:
    clean = f(LOGITS, temperature=3.0, where=MASK)
    np.testing.assert_array_equal(f(dirty, temperature=3.0, where=MASK), clean)
  assert jnp.isnan(ops.softmax(np.array([1.0, np.nan]))).all()  # and what is not stays visible


def test_large_and_close_logits():
  z = np.array([[1e30, 1e30, -1e30], [1e-30, 0, -1e-30]], np.float32)
  np.testing.assert_allclose(ops.softmax(z), [[0.5, 0.5, 0], [1 / 3] * 3], atol=1e-6)
  np.testing.assert_allclose(ops.entropy(z), [np.log(2), np.log(3)], rtol=1e-6)


@given(
  st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9),
  st.floats(-100, 100, width=32),
  st.floats(0.125, 64, width=32),
)
@settings(max_examples=40, deadline=None)
def test_properties(row, shift, temperature):
  row = np.pad(np.array(row, np.float32), (0, 9 - len(row)), constant_values=-np.inf)
  p = ops.softmax(row, temperature=temperature)
  assert (p >= 0).all()
  np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
  # The sum and z / T are rounded, by half a unit each, and a weight moves by half of what z does.
  size = (2 * np.abs(row[np.isfinite(row)]).max() + abs(shift)) / temperature
  shifted = ops.softmax(row + np.float32(shift), temperature=temperature)
  np.testing.assert_allclose(shifted, p, rtol=0, atol=np.finfo(np.float32).eps * (16 + size))
  assert 0 <= ops.entropy(row) <= np.log(np.isfinite(row).sum()) + 1e-5


@pytest.mark.parametrize("f", FUNCTIONS)
def test_gradients_numerically_with_masks_ties_and_temperature(f):
  with jax.enable_x64(True):
    z = jnp.asarray(LOGITS, jnp.float64).at[0].set(1.0)
    mask = jnp.asarray(MASK)

    def value(z, temperature):
      out = f(z, temperature=temperature, where=mask)
      return jnp.where(jnp.isfinite(out), out, 0)

    check_grads(value, (z, jnp.asarray(1.7)), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("how", ["where", "-inf", "both"])
def test_masked_entries_get_no_gradient(f, how):
  z = jnp.where(MASK, LOGITS, -jnp.inf if how != "where" else LOGITS)
  where = None if how == "-inf" else MASK
  cotangent = RNG.normal(size=jax.eval_shape(f, z).shape).astype(np.float32)
  _, pull = jax.vjp(lambda z, t: f(z, temperature=t, where=where), z, 2.0)
  dz, dt = pull(jnp.asarray(cotangent))
  assert (dz[~MASK] == 0).all() and jnp.isfinite(dz).all() and jnp.isfinite(dt)
  assert jnp.abs(dz[0]).max() > 0


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.array([[1.0, 0.0]])])
def test_static_temperature_must_be_positive(f, bad):
  with pytest.raises(ValueError, match=r"temperature = .* must be positive.*Pass a number > 0"):
    f(np.zeros((3, 2)), temperature=bad)


def test_traced_temperature_is_not_checked():
  out = jax.jit(lambda t: ops.softmax(jnp.zeros(2), temperature=t))(0.0)
  assert out.shape == (2,)


def test_no_warning_and_no_float64_in_a_32_bit_program():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    for f in FUNCTIONS:
      assert f(LOGITS.astype(np.float64), temperature=np.float64(2)).dtype == jnp.float32
