"""The contract that every normaliser keeps, and the look-up by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

pytestmark = pytest.mark.parametrize("name", list(ops.NORMALIZERS))
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 6)).astype(np.float32) * 2
MASK = np.arange(6) < np.array([6, 3, 1, 0])[:, None]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_shape_dtype_and_sum(name, dtype):
  p = ops.normalizer(name)(jnp.asarray(LOGITS, dtype))
  assert p.shape == LOGITS.shape and p.dtype == dtype
  loose = 1e-6 if dtype == jnp.float32 else 2e-2
  np.testing.assert_allclose(p.astype(jnp.float32).sum(-1), 1, atol=loose)
  assert (p >= 0).all()


def test_float64_is_kept(name):
  with jax.enable_x64(True):
    assert ops.NORMALIZERS[name](jnp.asarray(LOGITS, jnp.float64)).dtype == jnp.float64


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1)])
def test_axis(name, axis):
  p = ops.NORMALIZERS[name](LOGITS, axis=axis)
  np.testing.assert_allclose(p.sum(axis), 1, atol=1e-6)


def test_mask_is_exact_and_empty_rows_are_zero(name):
  f = ops.NORMALIZERS[name]
  p = f(LOGITS, where=MASK)
  assert (p[~MASK] == 0).all()
  np.testing.assert_array_equal(p, f(np.where(MASK, LOGITS, -np.inf)))
  np.testing.assert_allclose(p[1, :3], f(LOGITS[1, :3]), atol=1e-6)


def test_masked_entries_get_no_gradient(name):
  f = ops.NORMALIZERS[name]
  weights = RNG.normal(size=LOGITS.shape).astype(np.float32)
  for z, where in ((LOGITS, MASK), (np.where(MASK, LOGITS, -np.inf), None)):
    gradient = jax.grad(lambda z, where=where: jnp.sum(weights * f(z, where=where)))(z)
    assert (gradient[~MASK] == 0).all() and jnp.isfinite(gradient).all()


def test_jit_vmap_and_eager_agree(name):
  f = ops.NORMALIZERS[name]
  np.testing.assert_allclose(jax.jit(f)(LOGITS), f(LOGITS), atol=1e-7)
  np.testing.assert_allclose(jax.vmap(f)(LOGITS), f(LOGITS), atol=1e-7)


def test_permutation_and_shift(name):
  f = ops.NORMALIZERS[name]
  order = RNG.permutation(6)
  np.testing.assert_allclose(f(LOGITS[:, order]), f(LOGITS)[:, order], atol=1e-6)
  np.testing.assert_allclose(f(LOGITS + 3), f(LOGITS), atol=1e-5)


def test_unknown_name(name):
  with pytest.raises(ValueError, match=f"did you mean '{name}'. Known: softmax"):
    ops.normalizer(name[:-1])
