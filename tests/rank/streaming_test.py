"""Tests of the streamed spectrum: equal to the whole, under transformations, in constant memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankbias import rank

METHODS = ["gram", "qr"]
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(120, 6)) @ RNG.normal(size=(6, 6)) + 5).astype(np.float32)
BATCHES = X.reshape(8, 15, 6)


def reference(x, center=False):
  x = np.asarray(x, np.float64)
  return np.linalg.svd(x - x.mean(0) * center, compute_uv=False)


def stream(batches, method=None, **options):
  d = batches.shape[-1]

  def step(state, x):
    return rank.spectrum_update(state, x), None

  state, _ = jax.lax.scan(step, rank.spectrum_init(d, method=method), batches)
  return rank.spectrum_finish(state, **options)


def close(values, x, center=False):
  np.testing.assert_allclose(values, reference(x, center), rtol=3e-5, atol=2e-6 * reference(x)[0])


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_eager_jit_and_scan(transform, method, center):
  close(transform(lambda b: stream(b, method, center=center))(BATCHES), X, center)
  state = rank.spectrum_init(6, method=method)
  for batch in np.split(X, [1, 2, 50]):  # batches of 1, 1, 48 and 70 rows
    state = transform(rank.spectrum_update)(state, batch)
  close(rank.spectrum_finish(state, center=center), X, center)


def test_accuracy_and_ranks_of_the_streamed_default(graded):
  x, truth = graded(20_000, 512)
  values = jax.jit(lambda b: stream(b, dtype=np.float64))(x.reshape(25, 800, 512))
  assert np.abs(np.asarray(values) - truth).max() <= 1e-9 * truth[0]
  for rtol in (1e-3, 1e-4, 1e-5):
    counted = rank.numerical_rank(np.asarray(values), rtol=rtol)
    assert counted == (truth > rtol * truth[0]).sum()


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_members(method):
  members = jnp.stack([X, 2 * X, X[::-1] + 1])

  def run(x):
    state = rank.spectrum_update(rank.spectrum_init(6, method=method), x)
    return rank.spectrum_finish(rank.spectrum_merge(state, state), center=True)

  twice = jnp.concatenate([members, members], axis=1)
  for values, x in zip(jax.jit(jax.vmap(run))(members), twice, strict=True):
    close(values, x, center=True)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_devices_merge_by_collectives(method, center):
  def per_device(batches):  # two batches a device, of which the last device masks its second one
    state = rank.spectrum_init(6, method=method)
    keep = (jax.lax.axis_index("data") < 3) | (jnp.arange(2) < 1)

    def step(state, part):
      return rank.spectrum_update(state, part[0], where=jnp.full(15, part[1])), None

    state, _ = jax.lax.scan(step, state, (batches, keep))
    return rank.spectrum_all_reduce(state, "data")

  parts = BATCHES.reshape(4, 2, 15, 6)
  state = jax.pmap(per_device, axis_name="data", out_axes=None)(parts)
  close(rank.spectrum_finish(state, center=center), X[:105], center)
  assert int(state.count) == 105


@pytest.mark.parametrize("method", METHODS)
def test_vmapped_members_inside_pmap(method):
  def per_device(x):
    empty = rank.spectrum_init(6, method=method)
    state = jax.vmap(lambda scale: rank.spectrum_update(empty, scale * x))(jnp.array([1.0, 3.0]))
    state = jax.vmap(lambda s: rank.spectrum_all_reduce(s, "data"))(state)
    return jax.vmap(rank.spectrum_finish)(state)

  values = jax.pmap(per_device, axis_name="data", out_axes=None)(X.reshape(4, 30, 6))
  close(values[0], X)
  close(values[1], 3 * X)


@pytest.mark.parametrize("method", METHODS)
def test_merge_is_associative_and_has_an_identity(method):
  empty = rank.spectrum_init(6, method=method)
  a, b, c = (rank.spectrum_update(empty, part) for part in np.split(X, [7, 60]))
  left = rank.spectrum_merge(rank.spectrum_merge(a, b), c)
  right = rank.spectrum_merge(a, rank.spectrum_merge(c, b))
  for state in (left, right, rank.spectrum_merge(left, empty), rank.spectrum_merge(empty, right)):
    assert int(state.count) == 120
    np.testing.assert_allclose(state.mean, X.mean(0), rtol=1e-6)
    for center in (False, True):
      close(rank.spectrum_finish(state, center=center), X, center)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.sampled_from(METHODS))
@settings(max_examples=10, deadline=None)
def test_any_split_gives_the_same(sizes, method):
  rows = X[: sum(sizes)]
  state = rank.spectrum_init(6, method=method)
  for part in np.split(rows, np.cumsum(sizes)[:-1]):
    state = rank.spectrum_update(state, part)
  values = rank.spectrum_finish(state, center=True)
  truth = np.zeros(6)
  if len(rows):
    truth[: min(len(rows), 6)] = reference(rows, center=True)
  np.testing.assert_allclose(values, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_masked_rows_may_hold_anything(method):
  dirty = np.concatenate([X, np.full((30, 6), np.nan, np.float32)])
  order = RNG.permutation(150)
  state = rank.spectrum_init(6, method=method)
  for part in np.split(order, 3):
    state = rank.spectrum_update(state, dirty[part], where=part < 120)
  assert int(state.count) == 120
  close(rank.spectrum_finish(state), X)
  close(rank.spectrum_finish(state, center=True), X, center=True)


@pytest.mark.parametrize("method", METHODS)
def test_far_from_the_origin(method):
  x = (RNG.normal(size=(4, 200, 5)) + 1e3).astype(np.float32)
  truth = reference(x.reshape(-1, 5), center=True)
  loose = {"gram": 1e-6, "qr": 1e-3}[method]
  np.testing.assert_allclose(stream(x, method, center=True), truth, rtol=loose)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_one_row_and_zeros(method):
  empty = rank.spectrum_init(4, method=method)
  np.testing.assert_array_equal(rank.spectrum_finish(empty), 0)
  one = rank.spectrum_update(empty, np.array([[3.0, 0, 4, 0]], np.float32))
  np.testing.assert_allclose(rank.spectrum_finish(one), [5, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(rank.spectrum_finish(one, center=True), 0, atol=1e-6)
  zeros = rank.spectrum_update(empty, np.zeros((9, 4), np.float32))
  np.testing.assert_array_equal(rank.spectrum_finish(zeros), 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_rows(dtype):
  rows = jnp.asarray(X, dtype)
  for method in METHODS:
    state = rank.spectrum_update(rank.spectrum_init(6, method=method), rows)
    close(rank.spectrum_finish(state), rows.astype(jnp.float32))


def test_float64_rows_take_the_factor():
  with jax.enable_x64(True):
    basis = np.linalg.qr(RNG.normal(size=(50, 4)))[0]
    x = basis * np.geomspace(1, 1e-11, 4)
    state = rank.spectrum_init(4, dtype=jnp.float64)
    for part in np.split(x, 5):
      state = rank.spectrum_update(state, jnp.asarray(part))
    np.testing.assert_allclose(rank.spectrum_finish(state), np.geomspace(1, 1e-11, 4), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_rows(method):
  def temporary(batches):
    x = jax.ShapeDtypeStruct((batches, 64, 32), jnp.float32)
    return (
      jax.jit(lambda b: stream(b, method)).lower(x).compile().memory_analysis().temp_size_in_bytes
    )

  # The one copy that grows is that of the argument itself into the loop; none is in float64.
  assert temporary(1000) - temporary(10) <= 990 * 64 * 32 * 4
  state = rank.spectrum_init(32, method=method)
  sizes = jax.tree.map(jnp.shape, rank.spectrum_update(state, np.zeros((500, 32), np.float32)))
  assert sizes == jax.tree.map(jnp.shape, state)


def test_a_batch_is_widened_a_block_at_a_time():
  x = jax.ShapeDtypeStruct((200_000, 64), jnp.float32)
  memory = jax.jit(rank.singular_values).lower(x).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 0.1 * memory.argument_size_in_bytes


def test_failures():
  with pytest.raises(ValueError, match="method = 'svd' cannot be streamed"):
    rank.spectrum_init(3, method="svd")
  a, b = rank.spectrum_init(3, method="gram"), rank.spectrum_init(3, method="qr")
  with pytest.raises(ValueError, match="GramState and FactorState do not merge"):
    rank.spectrum_merge(a, b)
  narrowed = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), a)
  for use in (
    rank.spectrum_finish,
    lambda s: rank.spectrum_update(s, np.zeros((2, 3), np.float32)),
  ):
    with pytest.raises(ValueError, match="is float32 and must be float64.*method='qr'"):
      use(narrowed)
