"""Networks of a config as functions of raw images: what keys do in training and evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, network
from rankbias.config import base, override
from rankbias.train import parallel

BATCH = 8


@pytest.fixture(scope="module")
def source():
  return data.load("digits", limit=64)


def tiny(**own):
  c = base("tiny")
  c.dtype = "float64"
  c.model.update(name="mlp", depth=3, width=8, dropout=0.4)
  return override(c, own)


def built(config, source):
  """The model, its loss, parameters and a batch."""
  model, head = network.build(config, source)
  variables, head_variables = network.init_variables(
    model, head, source, jax.random.key(0), config.dtype
  )
  params = {"model": variables.pop("params"), "head": head_variables["params"]}
  split = source.splits["train"]
  batch = {"x": split["x"][:BATCH], "y": split["y"][:BATCH], "positions": np.arange(BATCH)}
  return model, network.make_loss(model, head, source, config), (params, variables), batch


def loss_and_gradient(config, source, key=0):
  """On one device, as a step computes them."""
  _, loss, (params, extra), batch = built(config, source)
  own = jax.random.key(key)

  def run(params):
    return loss(params, extra, batch, own, {"temperature": 2.0})[0]

  return jax.jit(jax.value_and_grad(run))(params)


HEADS = {  # what they drop: features and weights, contexts
  "dropout_decoupled": {"dropout": 0.3, "weight_dropout": 0.2},
  "mixture_of_softmaxes": {"components": 2, "dropout": 0.3},
}


@pytest.mark.parametrize("name", HEADS)
def test_devices_agree_on_what_is_dropped(source, name):
  """Four devices with two images each, with a crop and a flip, against one with eight."""
  with jax.enable_x64(True):
    config = tiny(**{"data.crop": 1, "data.flip": True})
    config.head = {"name": name, **HEADS[name]}
    expected = loss_and_gradient(config, source)
    _, loss, (params, extra), batch = built(config, source)
    parts = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)

    def on_a_device(params, part, key):
      run = jax.value_and_grad(lambda p: loss(p, extra, part, key, {"temperature": 2.0})[0])
      return jax.lax.pmean(run(params), parallel.AXIS)

    found = parallel.pmap(on_a_device)(params, parts, jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


@pytest.mark.parametrize("part", ["model", "head"])
def test_training_drops_features_anew_at_every_step(source, part):
  def loss(key, rate=0.4):
    config = tiny(dtype="float32", **{"model.dropout": rate if part == "model" else 0.0})
    if part == "head":
      config.head = {"name": "dropout_decoupled", "dropout": rate}
    return float(loss_and_gradient(config, source, key)[0])

  assert loss(0) == loss(0)
  assert abs(loss(0) - loss(1)) > 1e-3 and abs(loss(0) - loss(0, rate=0.0)) > 1e-3
  assert loss(0, rate=0.0) == loss(1, rate=0.0)


@pytest.mark.parametrize(
  "head", [{"name": "mixture_of_softmaxes"}, {"name": "plif"}, {"name": "plif", "chunked": True}]
)
def test_other_heads_train_through_the_same_loss(source, head):
  config = tiny(dtype="float32")
  config.head = head
  loss, gradients = loss_and_gradient(config, source)
  assert 0 < loss < 10
  for gradient in jax.tree.leaves(gradients["head"]):
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_chunks_and_label_smoothing_are_refused_together(source):
  config = tiny(label_smoothing=0.1)
  config.head = {"name": "linear", "chunked": True}
  with pytest.raises(ValueError, match=r"label_smoothing=0.1 needs all logits at once"):
    network.build(config, source)


def test_dropout_does_not_draw_what_augmentation_draws():
  """Both derive from an image's key: augmentation splits it, dropout folds a number in."""
  key = jax.random.key(0)
  for taken in jax.random.split(key):
    own = jax.random.fold_in(key, network.DROPOUT)
    assert (jax.random.key_data(own) != jax.random.key_data(taken)).any()


def test_a_step_takes_one_evaluation_of_the_head(source):
  """Products with the matrix of classes: one forward, two backward; none for the accuracy."""
  _, loss, (params, extra), batch = built(tiny(dtype="float32"), source)

  def run(params):
    return loss(params, extra, batch, jax.random.key(0), {"temperature": 2.0})

  jaxpr = jax.make_jaxpr(jax.value_and_grad(run, has_aux=True))(params)
  assert str(jaxpr).count("f32[8,10] = dot_general") == 1


class TestPredictor:
  def applied(self, source, config):
    model, _, (params, extra), batch = built(config, source)
    apply = network.make_apply(model, partial(source.inputs, dtype=config.dtype))
    return lambda x=batch["x"], **own: apply({"params": params["model"], **extra}, x, **own)[0]

  def test_a_key_switches_dropout_on(self, source):
    config = tiny(dtype="float32")
    apply = self.applied(source, config)
    plain, drawn = apply(), apply(key=jax.random.key(0))
    np.testing.assert_array_equal(plain, apply())
    assert np.abs(plain - drawn).max() > 0.1
    np.testing.assert_array_equal(drawn, apply(key=jax.random.key(0)))
    off = self.applied(source, override(config, {"model.dropout": 0.0}))
    np.testing.assert_array_equal(off(key=jax.random.key(0)), off())

  def test_one_key_is_one_per_position_and_keys_may_be_given_per_image(self, source):
    apply = self.applied(source, tiny(dtype="float32"))
    keys = network.fold_in(jax.random.key(0), jnp.arange(BATCH))
    drawn = apply(key=jax.random.key(0))
    np.testing.assert_array_equal(apply(key=keys), drawn)
    tail = apply(source.splits["train"]["x"][3:BATCH], key=keys[3:])
    np.testing.assert_allclose(tail, drawn[3:], rtol=1e-5)

  def test_overrides_change_the_rate(self, source):
    apply = self.applied(source, tiny(dtype="float32"))
    drawn = apply(key=jax.random.key(0), dropout=0.9)
    assert np.mean(drawn == 0) > np.mean(apply(key=jax.random.key(0)) == 0)
