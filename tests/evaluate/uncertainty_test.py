"""Predictions under dropout: recomputed in NumPy, known in advance, and refused without it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from rankbias import runs
from rankbias.evaluate import EVALUATIONS, Predictor, check_options, uncertainty
from rankbias.models import Transformer

SCORES = ("predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio")


def keep(key):
  return jax.vmap(lambda k: jax.random.bernoulli(k, 0.7, (6,)))(key)


@pytest.fixture
def dropped(network):
  """The network of this room with dropout on its features, and labels that it gets right often."""

  def apply(params, x, *, key=None):
    features, acts = network.apply(params, x)
    return (features if key is None else jnp.where(keep(key), features / 0.7, 0)), acts

  rng = np.random.default_rng(5)
  for split in network.source.splits.values():
    answers = network.matrices(split["x"])["logits"].argmax(-1)
    split["y"] = np.where(rng.random(len(answers)) < 0.2, split["y"], answers).astype(np.int32)
  network.predictor = network.predictor._replace(apply=apply, temperature=3000.0)
  return network


def draws(network, split, samples):
  """Log-probabilities [samples, images, classes], with a key for each sample and image."""
  matrices = network.matrices(split["x"])
  found = []
  for t in range(samples):
    key = jax.random.fold_in(jax.random.key(0), t)
    positions = np.arange(len(split["y"]))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
    features = np.where(keep(keys), matrices["a"] / 0.7, 0)
    logits = features @ np.asarray(network.predictor.head_params, float)
    found.append(log_softmax(logits / 3000.0, axis=-1))
  return np.stack(found), log_softmax(matrices["logits"] / 3000.0, axis=-1)


def auroc(score, wrong):
  """By counting pairs."""
  more = score[wrong][:, None] > score[~wrong]
  same = score[wrong][:, None] == score[~wrong]
  return more.mean() + same.mean() / 2


@pytest.mark.parametrize(("split", "images"), [("test", 2048), ("train", 600)])
def test_numbers_are_those_of_numpy(dropped, split, images):
  """Less and more than a batch, which is filled up by images that must not count."""
  chosen = {name: rows[:images] for name, rows in dropped.source.splits[split].items()}
  log_p, plain = draws(dropped, chosen, 5)
  found = uncertainty(dropped.predictor, dropped.source, samples=5, images=images, split=split)
  (name,), (found,) = found.keys(), found.values()
  assert name == "uncertainty" and (found["samples"], found["images"]) == (5, len(chosen["y"]))

  p = np.exp(log_p)
  q = p.mean(0)
  votes = np.stack([(p.argmax(-1) == c).sum(0) for c in range(4)])
  scores = {
    "predictive_entropy": entropy(q, axis=-1),
    "expected_entropy": entropy(p, axis=-1).mean(0),
    "mutual_information": entropy(q, axis=-1) - entropy(p, axis=-1).mean(0),
    "variation_ratio": 1 - votes.max(0) / 5,
  }
  wrong = q.argmax(-1) != chosen["y"]
  for name, score in scores.items():
    assert found[name] == pytest.approx(score.mean(), rel=1e-4), name
    assert found["error_auroc"][name] == pytest.approx(auroc(score, wrong), abs=2e-3), name
  for kind, prediction in (("averaged", q), ("deterministic", np.exp(plain))):
    at_label = prediction[np.arange(len(wrong)), chosen["y"]]
    assert found[kind]["loss"] == pytest.approx(-np.log(at_label).mean(), rel=1e-4)
    right = prediction.argmax(-1) == chosen["y"]
    assert found[kind]["accuracy"] == pytest.approx(right.mean())
  expected = auroc(entropy(np.exp(plain), axis=-1), plain.argmax(-1) != chosen["y"])
  assert found["error_auroc"]["deterministic"] == pytest.approx(expected, abs=2e-3)
  assert 0 < wrong.mean() < 1 and scores["mutual_information"].mean() > 0.01


def test_the_draws_of_an_image_depend_on_nothing_but_sample_and_position(dropped):
  first = {name: rows[:600] for name, rows in dropped.source.splits["train"].items()}
  dropped.source.splits["short"] = {name: rows[512:600] for name, rows in first.items()}
  whole = uncertainty(dropped.predictor, dropped.source, samples=3, split="train", images=600)
  head = uncertainty(dropped.predictor, dropped.source, samples=3, split="train", images=512)
  log_p, _ = draws(dropped, first, 3)
  tail = np.mean(entropy(np.exp(log_p[:, 512:]).mean(0), axis=-1))
  parts = 512 * head["uncertainty"]["predictive_entropy"] + 88 * tail
  assert 600 * whole["uncertainty"]["predictive_entropy"] == pytest.approx(parts, rel=1e-5)


def thrown(scale, classes=4):
  """A network that throws a die for every image when there is a key, and says class 0 without."""

  def apply(params, x, *, key=None):
    if key is None:
      return jax.nn.one_hot(jnp.zeros(len(x), int), classes), {}
    faces = jax.vmap(lambda k: jax.random.randint(k, (), 0, classes))(key)
    return jax.nn.one_hot(faces, classes), {}

  return Predictor(apply, {}, lambda scale, features: scale * features, jnp.float32(scale))


def test_a_network_that_throws_dice_is_sure_every_time_and_never_agrees(network):
  found = uncertainty(thrown(1000.0), network.source, samples=200)["uncertainty"]
  assert found["expected_entropy"] == 0
  assert found["mutual_information"] == pytest.approx(np.log(4), rel=0.02)
  assert found["predictive_entropy"] == pytest.approx(found["mutual_information"], rel=1e-5)
  assert found["variation_ratio"] == pytest.approx(0.75, abs=0.06)
  # exp(-1000) underflows; the loss is that of the share of samples that name the label.
  assert found["averaged"]["loss"] == pytest.approx(np.log(4), abs=0.05)
  y = network.source.splits["test"]["y"]
  assert found["deterministic"]["loss"] == pytest.approx(1000 * np.mean(y != 0))
  assert found["deterministic"]["accuracy"] == pytest.approx(np.mean(y == 0))


def test_a_network_that_hardly_hears_its_dice_sees_noise_and_no_disagreement(network):
  found = uncertainty(thrown(1e-3), network.source, samples=10)["uncertainty"]
  assert found["expected_entropy"] == pytest.approx(np.log(4), rel=1e-5)
  exact = 1e-6 * 9 / 10 * (1 - 1 / 4) / 4 / 2  # sum_c p_c var(log p_c) / 2
  assert found["mutual_information"] == pytest.approx(exact, rel=0.1)


def test_averaging_over_dropout_beats_a_single_draw(dropped):
  """By Jensen's inequality the average costs at most what its samples cost on average."""
  split = dropped.source.splits["train"]
  log_p, _ = draws(dropped, split, 8)
  single = -log_p[:, np.arange(len(split["y"])), split["y"]].mean()
  found = uncertainty(dropped.predictor, dropped.source, samples=8, split="train")["uncertainty"]
  assert found["averaged"]["loss"] < single


def test_a_network_without_dropout_is_refused(network):
  with pytest.raises(ValueError, match="all 3 samples are identical.*model.dropout above 0"):
    uncertainty(network.predictor, network.source, samples=3)


def test_a_dead_network_is_sure_of_its_one_answer_and_not_refused(network):
  found = uncertainty(thrown(0.0), network.source, samples=3)["uncertainty"]
  assert found["mutual_information"] < 1e-12 and found["variation_ratio"] == 0
  assert found["predictive_entropy"] == pytest.approx(np.log(4))


@pytest.mark.slow
def test_a_transformer_with_dropout_is_refused_since_it_predicts_every_token():
  model = Transformer(vocabulary=5, width=4, depth=1, heads=2, dropout=0.5)
  x = np.zeros((3, 6), np.int32)
  params = jax.jit(model.init)(jax.random.key(0), x)

  def apply(params, x, *, key=None):
    return model.apply(params, x, False, key)

  network = Predictor(apply, params, lambda kernel, features: features @ kernel, np.ones((4, 5)))
  source = SimpleNamespace(splits={"test": {"x": x, "y": x}})
  with pytest.raises(ValueError, match=r"logits of shape \(512, 6, 5\).*a transformer does"):
    uncertainty(network, source, samples=2)


def test_one_sample_is_refused(dropped):
  with pytest.raises(ValueError, match="samples=1: at least 2"):
    uncertainty(dropped.predictor, dropped.source, samples=1)


@pytest.mark.parametrize(
  ("options", "fields", "message"),
  [
    ({}, {}, "evaluate.uncertainty needs model.dropout above 0, and it is not set; set it"),
    ({}, {"model.dropout": 0.0}, "needs model.dropout above 0, and it is 0.0; .* or remove"),
    ({"samples": 1}, {"model.dropout": 0.1}, "uncertainty.samples=1 must be at least 2"),
    ({"images": 0}, {"model.dropout": 0.1}, "uncertainty.images=0 must be at least 1"),
    ({"sample": 3}, {"model.dropout": 0.1}, "sample is unknown; use samples, images, split"),
  ],
)
def test_what_cannot_be_measured_is_refused_before_training(options, fields, message):
  with pytest.raises(ValueError, match=message):
    check_options({"uncertainty": options}, fields)
  check_options({"uncertainty": {}, "accuracy": {}}, {"model.dropout": 0.5})


def test_json_holds_the_result_with_null_where_nothing_is_wrong(dropped):
  evaluation = EVALUATIONS["uncertainty"]
  found = evaluation(dropped.predictor, dropped.source, others={}, samples=2)
  assert runs.plain(found) == found
  split = dropped.source.splits["test"]
  answers = draws(dropped, split, 2)[0]
  split["y"] = np.exp(answers).mean(0).argmax(-1).astype(np.int32)
  right = runs.plain(evaluation(dropped.predictor, dropped.source, samples=2))["uncertainty"]
  assert right["averaged"]["accuracy"] == 1
  assert all(right["error_auroc"][name] is None for name in SCORES)


def test_one_compilation_serves_all_samples_and_members(dropped):
  traced, own = [], dropped.predictor.apply

  def apply(params, x, *, key=None):
    traced.append(key is None)
    return own(params, x, key=key)

  params, kernel = dropped.weights(np.random.default_rng(1))
  one = dropped.predictor._replace(apply=apply)
  uncertainty(one, dropped.source, samples=4)
  uncertainty(Predictor(apply, params, dropped.head, kernel, 7.0), dropped.source, samples=6)
  assert sorted(traced) == [False, True]
