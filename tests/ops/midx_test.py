"""Tests of the inverted multi-index: published values, draws against probabilities, odd indices."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "midx.npz")
CASES = ["uniform_inner", "uniform_cosine", "uniform_euclidean"]
CASES += ["pop_inner_mode1", "pop_inner_mode2"]
RNG = np.random.default_rng(0)


def golden(case):
  """Returns the index of a published case and its queries; call under x64."""
  items, query = GOLDEN["data/items"], GOLDEN["data/query"]
  counts = GOLDEN["data/pop_count"][:-1]  # the published sampler drops the last one
  weights = {
    "uniform_euclidean": -(items**2).sum(-1) / 2,
    "pop_inner_mode1": np.log(np.log(counts + 1) + 1e-6),
    "pop_inner_mode2": 0.75 * np.log(counts),
  }.get(case)
  if case == "uniform_cosine":
    query = query / np.linalg.norm(query, axis=-1, keepdims=True)
  codebooks = GOLDEN[f"{case}/codebook0"], GOLDEN[f"{case}/codebook1"]
  codes = np.stack([GOLDEN[f"{case}/code0"], GOLDEN[f"{case}/code1"]], -1)
  return ops.midx_from_codes(codebooks, codes, log_weights=weights), query


def all_items(index, query):
  """Returns log q of every item for every query."""
  count = index.codes.shape[0]
  ids = np.broadcast_to(np.arange(count), (*query.shape[:-1], count))
  return np.asarray(ops.midx_log_probability(index, query, ids))


def distance_bound(num_items, num_draws, risk=1e-9):
  """Bounds the total variation between draws and their distribution, but for `risk`.

  Its mean is at most sqrt(items / draws) / 2 (Cauchy-Schwarz), and one draw moves it by at most
  1 / draws (McDiarmid's inequality).
  """
  return np.sqrt(num_items / num_draws) / 2 + np.sqrt(np.log(1 / risk) / (2 * num_draws))


def frequencies(ids, num_items):
  """Returns how often every item was drawn for every query, as a fraction."""
  return np.stack([np.bincount(i, minlength=num_items) / len(i) for i in np.asarray(ids)])


@pytest.mark.parametrize("case", CASES)
def test_published_probabilities_and_cells(case):
  with jax.enable_x64(True):
    index, query = golden(case)
    logs = all_items(index, query)
    np.testing.assert_allclose(np.exp(logs), GOLDEN[f"{case}/item_probability_chain"], 0, 1e-10)
    weights = GOLDEN[f"{case}/log_item_weight_all"]
    expected = weights - scipy.special.logsumexp(weights, -1, keepdims=True)
    np.testing.assert_allclose(logs, expected, 0, 1e-10)
    np.testing.assert_allclose(np.exp(index.log_mass), GOLDEN[f"{case}/wkk"], 1e-10)
    first = GOLDEN[f"{case}/first_stage_weights"]
    chosen = GOLDEN[f"{case}/code0"][:, None] == np.arange(4)
    stage = np.exp(logs) @ chosen
    np.testing.assert_allclose(stage, first / first.sum(-1, keepdims=True), 0, 1e-10)
  starts, order = np.asarray(index.starts), np.asarray(index.order)
  np.testing.assert_array_equal(starts, GOLDEN[f"{case}/indptr"])
  for low, high in itertools.pairwise(starts):
    assert set(order[low:high]) == set(GOLDEN[f"{case}/indices"][low:high])


@pytest.mark.parametrize("case", ["uniform_inner", "pop_inner_mode2"])
def test_draws_follow_the_probabilities(case):
  index, query = golden(case)
  ids, logs = ops.midx_sample(index, query, jax.random.key(0), 20_000)
  expected = np.exp(all_items(index, query))
  distance = np.abs(frequencies(ids, 40) - expected).sum(-1) / 2
  assert (distance < distance_bound(40, 20_000)).all()
  # The bound would notice another distribution: the next query's.
  assert (np.abs(np.roll(expected, 1, 0) - expected).sum(-1) / 2 > distance_bound(40, 20_000)).all()
  drawn = np.take_along_axis(np.log(expected), np.asarray(ids), -1)
  np.testing.assert_allclose(logs, drawn, atol=1e-5)


def test_draws_within_a_cell_follow_the_weights():
  weights = np.array([0, 0.7, -np.inf, 1.4, 2.1, -0.7])
  codebook = np.zeros((1, 1), np.float32)
  index = ops.midx_from_codes((codebook, codebook), np.zeros((6, 2), int), log_weights=weights)
  ids, logs = ops.midx_sample(index, np.zeros((1, 2), np.float32), jax.random.key(1), 30_000)
  kept = np.array([0, 1, 3, 4, 5])
  expected = np.exp(weights) / np.exp(weights).sum()
  counts = np.bincount(np.asarray(ids)[0], minlength=6)
  assert counts[2] == 0
  assert scipy.stats.chisquare(counts[kept], 30_000 * expected[kept]).pvalue > 1e-6
  np.testing.assert_allclose(np.exp(logs[0]), expected[np.asarray(ids)[0]], rtol=1e-5)
  assert all_items(index, np.zeros((1, 2), np.float32))[0, 2] == -np.inf


@pytest.mark.parametrize(
  ("items", "width", "codewords", "weighted"),
  [(37, 5, 4, True), (7, 2, 16, False), (1, 3, 2, True), (90, 8, 1, False)],
)
@pytest.mark.slow
def test_built_indices_are_distributions(items, width, codewords, weighted):
  x = RNG.normal(size=(items, width)).astype(np.float32)
  weights = RNG.normal(size=items).astype(np.float32) if weighted else None
  index = ops.midx_build(x, num_codewords=codewords, key=jax.random.key(0), log_weights=weights)
  query = RNG.normal(size=(2, 3, width)).astype(np.float32)
  logs = all_items(index, query)
  np.testing.assert_allclose(np.exp(logs).sum(-1), 1, rtol=1e-5)
  assert sorted(np.asarray(index.order)) == list(range(items))
  ids, drawn = ops.midx_sample(index, query, jax.random.key(1), 50)
  assert ids.shape == drawn.shape == (2, 3, 50) and ids.dtype == jnp.int32
  np.testing.assert_allclose(drawn, np.take_along_axis(logs, np.asarray(ids), -1), atol=1e-5)


@pytest.mark.slow
def test_more_codewords_than_distinct_items():
  x = np.repeat(RNG.normal(size=(3, 4)).astype(np.float32), 4, axis=0)
  index = ops.midx_build(x, num_codewords=8, key=jax.random.key(0))
  assert len(set(np.asarray(index.codes)[:, 0])) == 3  # the other codewords are empty
  # Every item lies on its codewords, so that the proposal is the softmax itself.
  query = 3 * RNG.normal(size=(4, 4)).astype(np.float32)
  expected = scipy.special.log_softmax(query @ x.T, -1)
  np.testing.assert_allclose(all_items(index, query), expected, atol=1e-4)


def clusters(per_cluster=6, spread=0.05):
  """Returns items around 3 x 3 centres, whose halves have 3 values each."""
  halves = np.array([[4, 0], [-4, 0], [0, 4]], np.float32)
  centres = np.concatenate([np.repeat(halves, 3, 0), np.tile(halves, (3, 1))], -1)
  items = np.repeat(centres, per_cluster, 0)
  return items + spread * RNG.normal(size=items.shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.slow
def test_finds_clusters_whatever_the_seed(seed):
  x = clusters()
  index = ops.midx_build(x, num_codewords=3, key=jax.random.key(seed))
  cell = np.asarray(index.codes) @ [3, 1]
  assert (cell.reshape(9, 6) == cell[::6, None]).all() and len(set(cell)) == 9
  query = RNG.normal(size=(5, 4)).astype(np.float32)
  exact = scipy.special.softmax(query @ x.T, -1)
  assert (np.abs(np.exp(all_items(index, query)) - exact).sum(-1) / 2 < 0.1).all()


def test_same_key_same_index_and_update_follows_the_items():
  x = clusters()
  build = partial(ops.midx_build, num_codewords=3, key=jax.random.key(0))
  index, again = build(x), jax.jit(build)(x)
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), index, again)
  moved = ops.midx_update(index, x + 1)
  np.testing.assert_array_equal(moved.codes, index.codes)
  for new, old in zip(moved.codebooks, index.codebooks, strict=True):
    np.testing.assert_allclose(new, old + 1, atol=1e-4)
  kept = ops.midx_update(index, x[::-1], num_iterations=0)
  np.testing.assert_array_equal(kept.codes, index.codes[::-1])


def test_under_jit_and_vmap_and_with_extreme_queries():
  index = ops.midx_build(clusters(), num_codewords=3, key=jax.random.key(0))
  query = RNG.normal(size=(4, 4)).astype(np.float32)
  sample = jax.jit(ops.midx_sample, static_argnums=3)
  for a, b in zip(
    sample(index, query, jax.random.key(3), 5),
    ops.midx_sample(index, query, jax.random.key(3), 5),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-6)
  mapped = jax.vmap(lambda q, i: ops.midx_log_probability(index, q, i))(query, np.arange(4))
  expected = ops.midx_log_probability(index, query, np.arange(4))
  np.testing.assert_allclose(mapped, expected, rtol=1e-5)
  ids, logs = ops.midx_sample(index, 1e4 * query, jax.random.key(0), 7)
  assert jnp.isfinite(logs).all() and (ids >= 0).all() and (ids < 54).all()
  assert np.isnan(ops.midx_sample(index, query * np.nan, jax.random.key(0), 2)[1]).all()


def test_large_indices_are_visited_block_by_block(monkeypatch):
  # Sizes that no other test has: blocks are chosen when a program is traced.
  monkeypatch.setattr("rankbias.ops.kmeans.BLOCK", 70)
  monkeypatch.setattr("rankbias.ops.midx.CELLS", 160)
  x, query = RNG.normal(size=(53, 4)).astype(np.float32), np.ones((11, 4), np.float32)
  index = ops.midx_build(x, num_codewords=7, key=jax.random.key(0))
  for half, codes, book in zip((x[:, :2], x[:, 2:]), index.codes.T, index.codebooks, strict=True):
    nearest = np.argmin(((half[:, None] - np.asarray(book)[None]) ** 2).sum(-1), -1)
    np.testing.assert_array_equal(codes, nearest)
  np.testing.assert_allclose(np.exp(all_items(index, query)).sum(-1), 1, rtol=1e-5)


def test_item_out_of_range_is_nan_and_half_precision_is_accepted():
  index = ops.midx_build(clusters().astype(jnp.bfloat16), num_codewords=3, key=jax.random.key(0))
  logs = ops.midx_log_probability(index, jnp.ones((3, 4), jnp.bfloat16), np.array([-1, 0, 54]))
  np.testing.assert_array_equal(np.isnan(logs), [True, False, True])
  assert logs.dtype == jnp.float32


def test_log_probability_is_differentiable_in_the_query():
  with jax.enable_x64(True):
    index, query = golden("pop_inner_mode1")  # has empty cells
    ids = np.arange(5)
    check_grads(lambda q: ops.midx_log_probability(index, q, ids), (query,), order=1, atol=1e-5)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda x, i: ops.midx_build(x[:, :1], num_codewords=2, key=jax.random.key(0)), "two coord"),
    (lambda x, i: ops.midx_build(x, num_codewords=0, key=jax.random.key(0)), "num_codewords = 0"),
    (
      lambda x, i: ops.midx_build(x, num_codewords=2, key=jax.random.key(0), num_iterations=0),
      "num_iterations = 0",
    ),
    (
      lambda x, i: ops.midx_from_codes(i.codebooks, i.codes, log_weights=np.full(54, -np.inf)),
      "not all -inf",
    ),
    (lambda x, i: ops.midx_from_codes(i.codebooks, i.codes + 1), r"must lie in 0\.\.2 and 0\.\.2"),
    (lambda x, i: ops.midx_update(i, x[:, :3]), "build a new one"),
    (lambda x, i: ops.midx_sample(i, x[:, :3], jax.random.key(0), 2), "index of 4 coordinates"),
    (lambda x, i: ops.midx_sample(i, x, jax.random.key(0), 0), "num_samples = 0"),
    (lambda x, i: ops.midx_log_probability(i, x, np.arange(3)), "start with the batch shape"),
  ],
)
def test_failures(call, message):
  x = clusters()
  index = ops.midx_build(x, num_codewords=3, key=jax.random.key(0))
  with pytest.raises(ValueError, match=message):
    call(x, index)
