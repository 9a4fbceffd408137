"""Answers that are right in every character, against a decoder that writes them one by one."""

import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.evaluate import EVALUATIONS, Predictor, check_options, exact_match, row_sharpness
from rankbias.evaluate.exact_match import measure_split
from rankbias.models import build_model
from rankbias.ops import adaptive_temperature_softmax

VOCABULARY, ANSWER, LONGEST = 12, 4, 70
NAMES = ("plain", "sharp")
FORM = SimpleNamespace(algorithms=NAMES, tasks=dict.fromkeys(NAMES, "plain"))
REMEDIES = {"adaptive": {"name": "adaptive_temperature_softmax"}}
MODEL = build_model("transformer", vocabulary=VOCABULARY, width=16, depth=2, heads=2)


def apply(params, x, **overrides):
  return MODEL.clone(**overrides).apply(params, x.astype(jnp.int32), False)


def head(kernel, features):
  return features @ kernel


@pytest.fixture(scope="module")
def predictor():
  variables = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
  kernel = jax.random.normal(jax.random.key(1), (16, VOCABULARY))
  return Predictor(apply, jax.tree.map(lambda leaf: 1.5 * leaf, variables), head, kernel)


@partial(jax.jit, static_argnums=0)
def most_likely(sharp, params, kernel, tokens):
  own = {"normalizer": adaptive_temperature_softmax} if sharp else {}
  return head(kernel, apply(params, tokens, **own)[0]).argmax(-1)


def decode(predictor, x, start, sharp=False):
  """Writes the ANSWER most likely tokens after each question, one after the other."""
  length, rows = x.shape[1], np.arange(len(x))
  x = np.pad(x, ((0, 0), (0, LONGEST + ANSWER - length)))  # to be compiled once
  for i in range(ANSWER):
    following = most_likely(sharp, predictor.params, predictor.head_params, x)
    x[rows, start + i] = np.asarray(following)[rows, start + i - 1]
  return x[:, :length]


def make_split(x, start, kinds):
  place = np.arange(1, 1 + x.shape[1])[None]
  asked = (place >= start[:, None]) & (place < start[:, None] + ANSWER)
  following = np.pad(x[:, 1:], ((0, 0), (0, 1)))
  y = np.where(asked, following, -1).astype(np.int8)
  inside = np.arange(x.shape[1])[None] < start[:, None] + ANSWER
  return {
    "x": np.where(inside, x, 0).astype(np.uint8),
    "y": y,
    "start": start.astype(np.int32),
    "end": (start + ANSWER).astype(np.int32),
    "algorithm": kinds.astype(np.int32),
    "length": start.astype(np.int32),
  }


@pytest.fixture(scope="module")
def source(predictor):
  """Answers that the network writes, with and without a remedy; a quarter has one wrong token."""
  rng = np.random.default_rng(0)
  splits = {}
  for name, longest in (("train", 20), ("test", 20), ("test/70", LONGEST)):
    start = rng.integers(3, longest, size=16)
    x = rng.integers(1, VOCABULARY, size=(16, longest + ANSWER))
    kinds = np.arange(16) % 2
    written = decode(predictor, x, start)
    sharp = decode(predictor, x, start, sharp=True)
    x = np.where((kinds == 1)[:, None], sharp, written)
    wrong = np.arange(16) % 4 == 3 - (np.arange(16) // 8)  # both kinds
    place = (start + rng.integers(0, ANSWER, size=16))[wrong]
    x[wrong, place] = 1 + x[wrong, place] % (VOCABULARY - 1)
    splits[name] = make_split(x, start, kinds)
  return SimpleNamespace(splits=splits, form=FORM)


@pytest.fixture(scope="module")
def found(predictor, source):
  return exact_match(predictor, source, remedies=REMEDIES)


def test_an_answer_is_exact_if_and_only_if_the_decoder_writes_it(predictor, source):
  specs = (("adaptive", "adaptive_temperature_softmax", ()),)
  for split in source.splits.values():
    exact = measure_split(predictor, split, specs)["exact"]
    truth = split["x"].astype(int)
    question, whole = (np.arange(truth.shape[1]) < split[k][:, None] for k in ("start", "end"))
    for values, sharp in zip(exact, (False, True), strict=True):
      written = decode(predictor, np.where(question, truth, 0), split["start"], sharp)
      same = (np.where(whole, written, 0) == truth).all(1)
      np.testing.assert_array_equal(values, same)
      assert 4 <= same.sum() < 16  # both kinds are there


def test_the_table_has_means_by_algorithm_and_split(predictor, source, found):
  table = found["exact_match"]
  assert table["splits"] == ["train", "test", "test/70"]
  assert table["examples"] == {"plain": [8, 8, 8], "sharp": [8, 8, 8]}
  assert table["tasks"] == {"plain": "plain", "sharp": "plain"}
  assert table["lengths"]["test"] == sorted(set(source.splits["test"]["length"].tolist()))
  specs = (("adaptive", "adaptive_temperature_softmax", ()),)
  for s, split in enumerate(source.splits.values()):
    values = measure_split(predictor, split, specs)
    for i, kind in enumerate(("plain", "sharp")):
      for c, column in enumerate(("as_trained", "adaptive")):
        for name in ("exact", "characters"):
          expected = values[name][c][split["algorithm"] == i].mean()
          assert table[name][column][kind][s] == pytest.approx(expected)
  assert 0.5 < table["exact"]["as_trained"]["plain"][1] < 1
  assert table["exact"]["adaptive"]["sharp"][1] >= 0.5
  assert table["characters"]["as_trained"]["plain"][1] > table["exact"]["as_trained"]["plain"][1]
  assert found["test"]["accuracy"] == pytest.approx(
    np.mean([table["exact"]["as_trained"][kind][1] for kind in ("plain", "sharp")])
  )
  assert json.loads(json.dumps(found)) == found


def test_characters_and_loss_are_as_in_numpy(predictor, source):
  split = source.splits["test"]
  values = measure_split(predictor, split, ())
  logits = np.asarray(head(predictor.head_params, jax.jit(apply)(predictor.params, split["x"])[0]))
  logs = logits - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
  asked = split["y"] >= 0
  truth = np.where(asked, split["y"], 0)
  right = ((logits.argmax(-1) == truth) & asked).sum(1) / ANSWER
  loss = -(np.take_along_axis(logs, truth[..., None], -1)[..., 0] * asked).sum(1) / ANSWER
  np.testing.assert_allclose(values["characters"][0], right, rtol=1e-6)
  np.testing.assert_allclose(values["loss"], loss, rtol=1e-4, atol=1e-5)


def test_sharpness_is_that_of_the_queries_that_begin_the_answer(predictor, source, found):
  split = source.splits["test/70"]
  table = found["exact_match"]
  assert table["keys"][2] == pytest.approx(split["start"].mean())
  acts = jax.jit(apply)(predictor.params, split["x"])[1]
  last = split["start"] - 1
  logits = np.asarray(acts["layer2/attention_logits"])[np.arange(16), :, last]
  one = row_sharpness(logits, np.arange(logits.shape[-1]) <= last[:, None, None])
  for name in ("spread", "entropy", "max_weight"):
    own = table[name]["as_trained"]["layer2"][2]
    np.testing.assert_allclose(own, np.mean(one[name], 0), rtol=1e-4)
  plain, sharp = (np.array(table["entropy"][c]["layer1"][2]) for c in ("as_trained", "adaptive"))
  assert (plain > 0.6).all() and (sharp < plain - 0.1).all()


def test_an_algorithm_without_texts_of_a_length_has_none(predictor, source):
  split = {name: array[::2] for name, array in source.splits["test"].items()}
  only = SimpleNamespace(splits={"train": split, "test": split}, form=source.form)
  table = exact_match(predictor, only, examples=4)["exact_match"]
  assert table["examples"] == {"plain": [4, 4], "sharp": [0, 0]}
  assert table["exact"]["as_trained"]["sharp"] == [None, None]


def test_a_question_that_cannot_be_asked_is_refused():
  assert EVALUATIONS["exact_match"] is exact_match
  with pytest.raises(ValueError, match="exact_match needs data.name 'clrs_text', and it is digits"):
    check_options({"exact_match": {}}, {"data.name": "digits"})
  fields = {"data.name": "clrs_text"}
  with pytest.raises(ValueError, match="remedy 'a' = .* needs a name"):
    check_options({"exact_match": {"remedies": {"a": {"k": 1}}}}, fields)
  with pytest.raises(ValueError, match="evaluate.exact_match.examples=0 must be at least 1"):
    check_options({"exact_match": {"examples": 0}}, fields)
  check_options({"exact_match": {"remedies": REMEDIES}}, fields)
