"""The monitor: ranks of known matrices, any shape of activations, and few examples and features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import rank


def low_rank(n, d, r, seed=0, mean=0.0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, r)) @ rng.normal(size=(r, d)) + mean).astype(np.float32)


def expected(matrix, rtol=1e-3):
  """Every measure, from NumPy's singular values."""
  matrix = matrix.astype(np.float64)
  raw = np.linalg.svd(matrix, compute_uv=False)
  centered = np.linalg.svd(matrix - matrix.mean(0), compute_uv=False)
  p = raw / raw.sum()
  p = p[p > 1e-12]
  return {
    "covariance_rank": np.sum(centered**2 > rtol * centered[0] ** 2),
    "numerical_rank": np.sum(raw > rtol * raw[0]),
    "effective_rank": np.exp(-np.sum(p * np.log(p))),
    "stable_rank": np.sum(raw**2) / raw[0] ** 2,
    "participation_ratio": np.sum(raw**2) ** 2 / np.sum(raw**4),
  }


def check(found, matrix, **own):
  for name, value in expected(matrix, **own).items():
    assert found[name] == pytest.approx(value, rel=1e-5), name


def network(params, x):
  hidden = jnp.maximum(x @ params["first"], 0)
  return {"z": hidden, "a": {"deep": hidden @ params["second"]}}


PARAMS = {"first": low_rank(12, 20, 12), "second": low_rank(20, 30, 3, seed=1)}
X = low_rank(100, 12, 12, seed=2)


def numpy_network(x=X):
  hidden = np.maximum(x @ PARAMS["first"], 0)
  return {"z": hidden, "a/deep": hidden @ PARAMS["second"]}


@pytest.mark.parametrize("rtol", [1e-3, 0.1])
def test_measures_are_those_of_numpy(rtol):
  found = rank.measure_states(jax.jit(rank.layer_states)(network(PARAMS, X)), rtol=rtol)
  assert set(found) == {"z", "a/deep"}
  for layer, matrix in numpy_network().items():
    check(found[layer], matrix, rtol=rtol)
  assert found["a/deep"]["numerical_rank"] == 3


def test_covariance_rank_alone_ignores_the_mean():
  matrix = low_rank(80, 16, 2, mean=5.0)
  found = rank.measure_states(rank.layer_states(matrix))["activations"]
  assert (found["covariance_rank"], found["numerical_rank"]) == (2, 3)
  check(found, matrix)


def test_states_of_two_batches_merge_to_those_of_all_rows():
  parts = [rank.layer_states(X[:30]), rank.layer_states(X[30:])]
  merged = {name: rank.spectrum_merge(part, parts[1][name]) for name, part in parts[0].items()}
  check(rank.measure_states(merged)["activations"], X)


def test_devices_measure_their_common_batch():
  x = low_rank(64, 10, 4)
  states = jax.pmap(partial(rank.layer_states, axis_name="data"), axis_name="data")(
    x.reshape(4, 16, 10)
  )
  for device in (0, 3):
    one = jax.tree.map(lambda leaf, device=device: np.asarray(leaf)[device], states)
    check(rank.measure_states(one)["activations"], x)


def test_factor_states_measure_the_same():
  """As where float64 does not work."""
  state = rank.spectrum_update(rank.spectrum_init(12, method="qr"), X)
  check(rank.measure_states({"x": state})["x"], X)


def test_few_rows_and_features_of_large_layers():
  x = low_rank(300, 12 * 3, 36).reshape(300, 12, 3)
  state = rank.layer_states({"conv": x}, rows=200, features=20)["conv"]
  assert float(state.count) == 200 and state.scatter.shape == (20, 20)
  kept = np.sort(np.random.default_rng(36).choice(36, 20, replace=False))
  check(rank.measure_states({"conv": state})["conv"], x.reshape(300, 36)[:200, kept])


def test_every_so_many_steps_in_forward_order():
  monitor = rank.RankMonitor(network, X, every=3)
  due = [monitor(step, PARAMS) for step in range(7)]
  assert due == [True, False, False, True, False, False, True]
  rows = monitor.rows()
  assert [(row["step"], row["layer"]) for row in rows] == [
    (step, layer) for step in (0, 3, 6) for layer in ("z", "a/deep")
  ]
  for row in rows:
    check(row, numpy_network()[row["layer"]])
  lines = monitor.table("numerical_rank").splitlines()
  assert lines[0].split() == ["numerical_rank", "z", "a/deep"]
  assert lines[2].split()[0] == "3" and lines[2].split()[2] == "3.0"
  assert len(lines) == 4


@pytest.mark.parametrize(
  ("every", "steps", "due"),
  [
    (100, range(99, 500, 100), [199, 299, 399, 499]),  # after each 100 steps
    (100, range(29, 330, 30), [119, 209, 329]),
    (100, range(0, 500, 150), [0, 150, 300, 450]),
    (3, range(1, 9), [3, 6]),  # continued at step 1
    (3, [4, 5, 6, 7, 4, 5, 6, 7], [6, 6]),  # and from a checkpoint
    (3, [0, 1, 2, 3, 0, 1, 2, 3], [0, 3, 0, 3]),
    (2, [5, 6, 6, 20, 21], [6, 6, 20]),
    (1, [7, 8], [7, 8]),
  ],
)
def test_calls_that_are_due(every, steps, due):
  monitor = rank.RankMonitor(lambda x: x, X[:4, :2], every=every, measures=["stable_rank"])
  assert [int(step) for step in steps if monitor(step)] == due
  assert [row["step"] for row in monitor.rows()] == due


def test_it_follows_the_parameters_and_survives_their_donation():
  shrink = jax.jit(lambda p: jax.tree.map(lambda x: x.at[:, 1:].set(0), p), donate_argnums=0)
  params = jax.tree.map(jnp.asarray, PARAMS)
  monitor = rank.RankMonitor(network, X, every=1, layers=["a/deep"], measures=["numerical_rank"])
  for step in range(2):
    monitor(step, params)
    params = shrink(params)
  assert [row["numerical_rank"] for row in monitor.rows()] == [3, 1]
  assert set(monitor.rows()[0]) == {"step", "layer", "numerical_rank"}


def test_activations_that_are_there_already():
  monitor = rank.RankMonitor(lambda acts: acts, every=2, rows=64)
  monitor(0, X)
  check(monitor.rows()[0], X[:64])


def test_sharded_examples_measure_the_same():
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  monitor = rank.RankMonitor(network, jax.device_put(X, spread), layers=["z"])
  monitor(0, PARAMS)
  check(monitor.rows()[0], numpy_network()["z"])


def test_a_layer_that_is_not_finite_measures_nan_and_one_of_zeros_zero():
  found = rank.measure_states(rank.layer_states({"nan": X * np.nan, "zero": X * 0, "x": X}))
  assert np.isnan(list(found["nan"].values())).all()
  assert set(found["zero"].values()) == {0.0}
  check(found["x"], X)


def test_nothing_was_measured_yet():
  monitor = rank.RankMonitor(network, X)
  assert monitor.rows() == []
  assert monitor.table("stable_rank").split() == ["stable_rank"]


def test_an_unknown_layer_is_found_at_the_first_call_of_any_step():
  monitor = rank.RankMonitor(network, X, layers=["a/depe"])
  with pytest.raises(ValueError, match="'a/depe' is no known layer.*mean 'a/deep'.*Known: z, a/de"):
    monitor(7, PARAMS)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: rank.RankMonitor(network, X, measures=["stable"]), "no known measure.*'stable_rank'"),
    (lambda: rank.RankMonitor(network, X, every=0), "every = 0 is no number of steps: give a whol"),
    (
      lambda: rank.RankMonitor(network, X, rows=0),
      "rows = 0 is no number of them to meas",
    ),
    (lambda: rank.RankMonitor(network, X, features=-3), "features = -3 is no .*number, at least 1"),
    (lambda: rank.RankMonitor(network, X, rtol=1.0), r"rtol = 1.0 is no part .* in \[0, 1\)"),
    (lambda: rank.RankMonitor(network, X, rtol=-1e-3), r"rtol = -0.001 is no part .* such as 1e-3"),
    (lambda: rank.RankMonitor(network, X, rtol=np.nan), "rtol = nan is no part"),
    (lambda: rank.layer_states(X, rows=0), "rows = 0 measures nothing"),
    (lambda: rank.layer_states(X, features=0), "features = 0 measures nothing"),
    (lambda: rank.layer_states({"loss": jnp.float32(1)}), r"layer 'loss' has shape \(\)"),
    (lambda: rank.layer_states({"x": X}, layers=["y"]), "'y' is no known layer. Known: x"),
  ],
)
def test_failures(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_layer_of_one_feature_has_rank_one():
  monitor = rank.RankMonitor(lambda w, x: {"score": x @ w}, X, every=1)
  monitor(0, low_rank(12, 1, 1, seed=3))
  (row,) = monitor.rows()
  check(row, X @ low_rank(12, 1, 1, seed=3))
