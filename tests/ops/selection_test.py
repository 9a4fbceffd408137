"""Tests of order statistics without a sort: against NumPy's sort, ties, zeros and infinities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.ops.selection import kth_smallest

VALUES = np.random.default_rng(0).normal(size=(5, 9)) * 10.0 ** np.arange(-6, 3)
VALUES[1] = np.array([0.0, -0.0, 1, 1, -1, -np.inf, np.inf, 2e-38, -2e-38])
VALUES[2] = 1.0


@pytest.mark.parametrize("bits", [32, 64])
def test_every_place_of_a_sort(bits):
  with jax.enable_x64(bits == 64):
    values = jnp.asarray(VALUES, f"float{bits}")
    found = jnp.concatenate([kth_smallest(values, k, -1) for k in range(9)], -1)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, np.sort(np.asarray(values), -1))


@pytest.mark.parametrize("axis", [0, (0, 1), None])
def test_axis_and_an_index_per_row(axis):
  values = jnp.asarray(VALUES, jnp.float32)
  expected = np.quantile(np.asarray(values), 0.5, axis, method="lower", keepdims=True)
  count = {0: 5}.get(axis, 45)
  np.testing.assert_array_equal(kth_smallest(values, (count - 1) // 2, axis), expected)
  each = jnp.arange(5).reshape(5, 1)
  found = kth_smallest(values, each, 1)
  np.testing.assert_array_equal(found[:, 0], np.sort(values, 1)[np.arange(5), np.arange(5)])


def test_constant_of_the_derivative():
  row = jnp.arange(3.0)
  assert (jax.jacobian(lambda z: kth_smallest(z, 1, -1))(row) == 0).all()
  assert (jax.jvp(lambda z: kth_smallest(z, 1, -1), (row,), (row,))[1] == 0).all()
