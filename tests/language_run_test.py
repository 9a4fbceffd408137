"""A language model in training: its state is carried, by any number of devices, and kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, experiment, network, program, runs
from rankbias.config import base, override
from rankbias.train import loop, parallel, step

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("ptb")
  for seed, split in enumerate(SPLITS):
    words = np.random.default_rng(seed).integers(0, 7, (30, 9)).astype(str)
    lines = [" ".join(line) for line in [list("0123456"), *words]]
    (folder / f"ptb.{split}.txt").write_text("\n".join(lines) + "\n")
  return data.load("ptb", dir=str(folder), window=5)


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size = 6, 8
  c.data.name = "ptb"
  rates = dict.fromkeys(("dropout", "hidden_dropout", "input_dropout", "weight_dropout"), 0.4)
  c.model.update(
    name="lstm", vocabulary=8, embedding=4, width=6, features=5, word_dropout=0.2, **rates
  )
  c.optimizer.name = "sgd"
  return override(c, own)


def first_state(config, source, rate):
  """One member's optimiser, and its state before the first step."""
  model, head = network.build(config, source)
  make = program.optimizer.make_optimizer(config.optimizer.to_dict(), config.steps)

  @jax.jit
  def init():
    variables, own = network.init_variables(model, head, source, jax.random.key(0), config.dtype)
    variables |= network.init_carry(model, config.batch_size)
    params = {"model": variables.pop("params"), "head": own["params"]}
    numbers = {"temperature": 1.0, "learning_rate": rate, "weight_decay": 0.0}
    key = jax.random.key_data(jax.random.key(1))
    return step.init_state(params, variables, key, jax.tree.map(jnp.asarray, numbers), make)

  return step.make_step(network.make_loss(model, head, source, config), make), init()


def after_steps(devices, config, source, count=3, rate=0.5):
  """The state after some steps, in each of which the batch is cut over the axis "data"."""
  one, state = first_state(config, source, rate)
  gather, size = program.make_gather(source), config.batch_size
  constants = jax.tree.map(jnp.asarray, source.constants())

  def device(state, rows, positions):
    return one(state, gather(constants, rows, positions))[0]

  run = jax.jit(jax.vmap(device, in_axes=(None, 0, 0), out_axes=None, axis_name=parallel.AXIS))
  positions = np.arange(size, dtype=np.int32).reshape(devices, -1)
  for s in range(count):
    rows = source.indices("train", s, size=size, seed=0).reshape(devices, -1)
    state = run(state, rows, positions)
  return jax.device_get(state)


@pytest.mark.slow
def test_one_device_and_four_agree(source):
  with jax.enable_x64(True):
    config = tiny(dtype="float64")
    one, four = (after_steps(n, config, source) for n in (1, 4))
  assert one["extra"]["carry"]["state"]["layer1"]["h"].shape == (8, 6)
  assert np.abs(one["extra"]["carry"]["state"]["layer2"]["c"]).max() > 0.01
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), one, four)


def test_the_state_after_steps_is_that_of_one_long_window(source):
  config = tiny(**{f"model.{d}": 0.0 for d in tiny().model if d.endswith("dropout")})
  state = after_steps(1, config, source, rate=0.0)
  model, _ = network.build(config, source)
  text = np.concatenate([source.batch("train", s, size=8, seed=0)["x"] for s in range(3)], 1)

  @jax.jit
  def whole(params):
    carry = {"carry": {"state": model.start(8)}}
    return model.apply({"params": params, **carry}, text, True, mutable="carry")[1]

  expected = whole(state["params"]["model"])
  jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state["extra"], expected)


@pytest.mark.parametrize("asked", [{"data.crop": 4}, {"data.flip": True}])
def test_augmentation_of_words_is_refused_before_training(source, tmp_path, asked):
  with pytest.raises(ValueError, match=r"data\.(crop=4|flip=True) is for images, .*'ptb' has none"):
    experiment.run(tiny(**asked), tmp_path, source=source)
  assert not any(tmp_path.iterdir())


def test_a_vocabulary_that_is_too_small_is_refused(source):
  with pytest.raises(ValueError, match="vocabulary=7 is too small: ptb has 8.*vocabulary=8"):
    network.build(tiny(**{"model.vocabulary": 7}), source)


@pytest.mark.slow
def test_a_run_that_is_cut_ends_as_one_that_is_not(source, tmp_path, monkeypatch):
  config = tiny(steps_per_call=2, checkpoint_every=2)
  config.evaluate = {}
  config.measure.images, config.measure.count = 16, 2
  whole = experiment.run(config, tmp_path / "whole", source=source)
  (member,) = whole["members"]
  assert member["status"] == "finished" and np.isfinite(member["last"]["loss"])
  (folder,) = runs.find(tmp_path / "whole" / "tiny")
  measured = [row for row in runs.read(folder)["metrics"] if row["split"] == "measure"]
  layers = ("embedding", "layer1", "features", "logits")
  assert all(0 < row[f"{layer}:effective_rank"] <= 16 for row in measured for layer in layers)

  train = loop.train

  def cut(*args, hooks, on_interrupt, **own):
    def stop(s, state):
      if s == 4:
        on_interrupt(s, state)
        raise loop.Interrupted("cut")

    return train(
      *args, hooks=[*hooks, loop.Hook(frozenset([4]), stop)], on_interrupt=on_interrupt, **own
    )

  with monkeypatch.context() as patch:
    patch.setattr(loop, "train", cut)
    with pytest.raises(loop.Interrupted):
      experiment.run(config, tmp_path / "cut", source=source)
  assert experiment.run(config, tmp_path / "cut", source=source) == whole
