"""Loss and accuracy over a split, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from rankbias import runs
from rankbias.evaluate import EVALUATIONS, Predictor, accuracy, measure_layers
from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.predictor import BATCH, batches

PRIOR = {1.0: 0.7, -0.3: 0.3}  # of each part of a mixture, by what its logits are multiplied with


def expected(network, split, temperature):
  logits = network.matrices(split["x"])["logits"]
  log_probs = log_softmax(logits / temperature, axis=-1)
  return {
    "loss": -np.mean(log_probs[np.arange(len(logits)), split["y"]]),
    "accuracy": np.mean(logits.argmax(-1) == split["y"]),
  }


@pytest.mark.parametrize("temperature", [0.5, 5.0, 1000.0])
def test_every_split_is_as_in_numpy(network, temperature):
  found = accuracy(network.predictor._replace(temperature=temperature), network.source)
  assert list(found) == ["train", "test"]
  for name, split in network.source.splits.items():
    for key, value in expected(network, split, temperature).items():
      np.testing.assert_allclose(found[name][key], value, rtol=2e-5, err_msg=f"{name} {key}")


def mixed(kernel, features, temperature=1.0):
  """Log-probabilities of a mixture of two softmaxes, the temperature inside of each."""
  parts = [jax.nn.log_softmax(by * features @ kernel / temperature) for by in PRIOR]
  return jax.nn.logsumexp(jnp.stack(parts), 0, b=np.array([*PRIOR.values()])[:, None, None])


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_a_mixture_is_measured_with_the_temperature_inside_its_parts(network, temperature):
  own = {"head": mixed, "log_head": mixed, "temperature": temperature}
  predictor, split = network.predictor._replace(**own), network.source.splits["test"]
  logits = network.matrices(split["x"])["logits"]
  parts = [log_softmax(by * logits / temperature, axis=-1) for by in PRIOR]
  log_probs = logsumexp(parts, axis=0, b=np.array([*PRIOR.values()])[:, None, None])
  loss = -np.mean(log_probs[np.arange(len(logits)), split["y"]])
  right = np.mean(log_probs.argmax(-1) == split["y"])
  training = jax.jit(lambda x, y: measure_layers(predictor, x, y))(split["x"], split["y"])
  for found in (split_accuracy(predictor, split), training):
    np.testing.assert_allclose(found["loss"], loss, rtol=2e-5)
    np.testing.assert_allclose(found["accuracy"], right, rtol=1e-6)


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 7])
def test_the_images_that_fill_the_last_batch_do_not_count(network, count):
  """The last image is repeated to fill up: it alone is right, so counting it twice would show."""
  split = {name: rows[:count] for name, rows in network.source.splits["train"].items()}
  answers = network.matrices(split["x"])["logits"].argmax(-1)
  split["y"] = ((answers + 1) % 4).astype(np.int32)
  split["y"][-1] = answers[-1]
  found = split_accuracy(network.predictor, split)
  assert found["accuracy"] == pytest.approx(1 / count, rel=1e-6)
  # A confident answer costs nothing up to the float32 rounding of its logit.
  rounding = np.abs(network.matrices(split["x"])["logits"]).max() / 5 * np.finfo(np.float32).eps
  expected_loss = expected(network, split, 5.0)["loss"]
  assert found["loss"] == pytest.approx(expected_loss, rel=2e-5, abs=4 * rounding)
  assert found["loss"] >= 0


def test_batches_are_of_one_size_and_hold_every_image_once():
  split = {"x": np.arange(1100), "y": np.arange(1100)}
  parts = list(batches(split, size=400))
  assert [len(x) for x, _, _ in parts] == [400, 400, 400]
  kept = np.concatenate([x[weight == 1] for x, _, weight in parts])
  np.testing.assert_array_equal(kept, split["x"])
  assert sum(weight.sum() for _, _, weight in parts) == 1100


def test_a_fixed_answer_is_right_as_often_as_it_is_asked_for(network):
  """Logits that do not depend on the image: uniform, or sure of class 2."""
  y = network.source.splits["train"]["y"]
  images = network.source.splits["train"]["x"]
  for logits, loss in (([0, 0, 0, 0], np.log(4)), ([0, 0, 60, 0], 60 * np.mean(y != 2))):
    fixed = Predictor(
      lambda params, x: (x.reshape(len(x), -1) * 0.0 @ np.ones((6, 4)), {}),
      {},
      lambda kernel, features: features + kernel,
      np.array([logits], np.float32),
    )
    found = split_accuracy(fixed, {"x": images, "y": y})
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(y == np.argmax(logits)))


def test_the_result_is_plain_numbers_for_json(network):
  found = EVALUATIONS["accuracy"](network.predictor, network.source, others={})
  assert runs.plain(found) == found
  assert all(type(v) is float for split in found.values() for v in split.values())


def test_one_compilation_serves_all_members_of_a_program(network, monkeypatch):
  """Members share the functions and differ in numbers, so nothing is traced again."""
  traced = []

  def apply(params, x):
    traced.append(len(x))
    return network.apply(params, x)

  params, kernel = network.weights(np.random.default_rng(1))
  one = network.predictor._replace(apply=apply)
  first = accuracy(one, network.source)
  again = accuracy(Predictor(apply, params, network.head, kernel, 7.0), network.source)
  assert traced == [BATCH]
  assert first != again


def test_the_loss_of_nan_logits_is_nan_and_null_in_json(network):
  broken = network.predictor._replace(head_params=np.full((6, 4), np.nan, np.float32))
  found = accuracy(broken, network.source)
  assert np.isnan(found["test"]["loss"]) and runs.plain(found)["test"]["loss"] is None
