"""The step: its update, what it does with a loss that is not finite, and loops of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rankbias.train import parallel
from rankbias.train import step as steps

RATE = 0.1


def loss(params, extra, batch, key, numbers):
  """A linear model with squared error; images beyond `numbers["limit"]` overflow it."""
  error = batch["x"] @ params["model"]["w"] - batch["y"]
  value = jnp.where(batch["x"].max() > numbers["limit"], jnp.inf, 1.0) * jnp.mean(error**2)
  return value, ({"accuracy": jnp.mean(error < 0)}, {"seen": extra["seen"] + 1})


def optimizer(numbers):
  return optax.sgd(numbers["learning_rate"])


def make(limits=(np.inf,)):
  def member(limit):
    numbers = {"learning_rate": jnp.float32(RATE), "limit": limit}
    params = {"model": {"w": jnp.array([1.0, -1.0])}}
    return steps.init_state(
      params, {"seen": jnp.float32(0)}, jnp.zeros(2, jnp.uint32), numbers, optimizer
    )

  return jax.vmap(member)(jnp.array(limits, jnp.float32))


X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
Y = X @ np.array([0.5, 2.0], np.float32)
X[7] = [50.0, 0.0]  # an image that only members with a limit above 50 survive
CONSTANTS = {"x": X, "y": Y}


def gather(constants, rows, positions):
  return {"x": constants["x"][rows], "y": constants["y"][rows]}


def train(state, count, length, first=0, batch=4):
  """Runs `count` steps on all four devices, `length` a call; image i is seen in step i // batch."""
  step = steps.make_step(loss, optimizer)
  members = state["step"].shape[0]
  chunk = parallel.pmap(steps.make_chunk([step], gather, members, length))
  state, constants = parallel.replicate(state), parallel.replicate(CONSTANTS)
  logs, s = [], first
  while s < first + count:
    end = min(s + length, first + count)
    block = np.stack([np.arange(batch * t, batch * (t + 1)) for t in range(s, end)])[:, None]
    rows = np.zeros((length, members, batch), np.int32)
    rows[: end - s] = block
    feed = {
      "rows": parallel.local_slices(rows, 2),
      "positions": parallel.local_slices(np.arange(batch), 0),
      "variant": np.zeros((4, length), np.int32),
      "count": np.full(4, end - s, np.int32),
    }
    state, metrics = chunk(state, feed, constants)
    logs.append(jax.tree.map(lambda x, n=end - s: x[:n], parallel.fetch(metrics)))
    s = end
  return parallel.fetch(state), jax.tree.map(lambda *x: np.concatenate(x), *logs)


def test_one_step_is_gradient_descent_on_the_global_batch():
  state, metrics = train(make(), 1, 1)
  x, y, w = X[:4], Y[:4], np.array([1.0, -1.0])
  np.testing.assert_allclose(metrics["loss"], [[np.mean((x @ w - y) ** 2)]], rtol=1e-6)
  expected = w - RATE * 2 * x.T @ (x @ w - y) / 4
  np.testing.assert_allclose(state["params"]["model"]["w"], [expected], rtol=1e-5)
  assert state["step"] == 1 and state["extra"]["seen"] == 1 and state["stopped_at"] == -1


@pytest.mark.parametrize("length", [3, 7, 100])
def test_steps_per_call_do_not_change_the_result(length):
  one, single = train(make((60.0, 60.0)), 10, 1)
  many, looped = train(make((60.0, 60.0)), 10, length)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, many)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), single, looped)


def test_a_member_that_overflows_stops_and_the_others_go_on():
  state, metrics = train(make((60.0, 10.0)), 10, 4)
  alone, _ = train(make((60.0,)), 10, 4)
  assert state["stopped_at"].tolist() == [-1, 1]  # image 7 is seen in step 1
  good = state["params"]["model"]["w"][0]
  np.testing.assert_allclose(good, alone["params"]["model"]["w"][0], rtol=1e-5)
  frozen, _ = train(make((10.0,)), 1, 1)
  np.testing.assert_array_equal(state["params"]["model"]["w"][1], frozen["params"]["model"]["w"][0])
  assert np.isnan(metrics["loss"][1:, 1]).all() and np.isfinite(metrics["loss"][:, 0]).all()
  np.testing.assert_array_equal(state["last"]["loss"][1], metrics["loss"][0, 1])
  assert state["extra"]["seen"].tolist() == [10, 1] and state["step"].tolist() == [10, 10]


def test_a_gradient_that_is_not_finite_is_not_taken():
  def bad(params, extra, batch, key, numbers):
    return jnp.sqrt(jnp.sum(params["w"])), ({"accuracy": jnp.float32(0)}, extra)

  params = {"w": jnp.zeros(2)}  # the square root of zero has an infinite slope
  numbers = {"learning_rate": jnp.float32(RATE)}
  state = steps.init_state(params, {}, jnp.zeros(2, jnp.uint32), numbers, optimizer)
  step = jax.vmap(steps.make_step(bad, optimizer), axis_name=parallel.AXIS)
  state, _ = step(jax.tree.map(lambda x: x[None], state), {"x": jnp.zeros((1, 1))})
  assert state["stopped_at"][0] == 0 and (state["params"]["w"] == 0).all()


def test_fit_time_is_the_end_of_the_first_epoch_with_99_percent_right():
  accuracies = jnp.array([0.9, 1.0, 1.0, 0.985, 1.0, 1.0, 0.5, 1.0])

  def step(state, batch):
    accuracy = accuracies[state["step"]]
    return {**state, "step": state["step"] + 1}, {"accuracy": accuracy}

  wrapped = steps.with_fit_time(step, steps_per_epoch=2)
  state = {"step": jnp.int32(0), "right": jnp.float32(0), "fitted_at": jnp.int32(-1)}
  seen = []
  for _ in range(8):
    state, _ = wrapped(state, None)
    seen.append(int(state["fitted_at"]))
  assert seen == [-1, -1, -1, 4, 4, 4, 4, 4]


def test_keys_differ_by_step_and_not_by_device():
  def noisy(params, extra, batch, key, numbers):
    return jax.random.uniform(key) + 0 * params["w"].sum(), ({"accuracy": jnp.float32(0)}, extra)

  numbers = {"learning_rate": jnp.float32(RATE)}
  state = steps.init_state(
    {"w": jnp.zeros(2)}, {}, jax.random.key_data(jax.random.key(1)), numbers, optimizer
  )
  step = jax.jit(jax.vmap(steps.make_step(noisy, optimizer), (None, 0), axis_name=parallel.AXIS))
  draws = []
  for _ in range(3):
    new, metrics = step(state, {"x": jnp.zeros((2, 1))})
    assert metrics["loss"][0] == metrics["loss"][1]
    draws.append(float(metrics["loss"][0]))
    state = jax.tree.map(lambda x: x[0], new)
  key = jax.random.key(1)
  expected = [float(jax.random.uniform(jax.random.fold_in(key, s))) for s in range(3)]
  np.testing.assert_allclose(draws, expected, rtol=1e-6)
