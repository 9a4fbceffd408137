"""Checkpoints come back bit for bit; one cut short does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rankbias.train.checkpoint import open_checkpoints


def make_state():
  params = {"w": jnp.arange(6.0).reshape(2, 3) / 7}
  return {
    "params": params,
    "opt": optax.adam(1e-3).init(params),
    "extra": {},
    "key": jax.random.key_data(jax.random.key(3)),
    "step": jnp.int32(5),
    "last": {"loss": jnp.float32(jnp.nan)},
  }


def test_round_trip(tmp_path):
  state = jax.device_put(make_state())
  with open_checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() is None
    checkpoints.save(5, state)
    checkpoints.save(5, state)  # a second save of a step is no error
  with open_checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() == 5
    restored = checkpoints.restore(5, state)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  assert jax.tree.map(lambda x: x.dtype, restored) == jax.tree.map(lambda x: x.dtype, state)


def test_unfinished_checkpoint_is_ignored(tmp_path):
  with open_checkpoints(tmp_path) as checkpoints:
    checkpoints.save(5, make_state())
  (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
  with open_checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() == 5
    checkpoints.save(9, make_state())
  with open_checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest() == 9


def test_only_the_newest_two_are_kept(tmp_path):
  with open_checkpoints(tmp_path) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, make_state())
  assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 3]
