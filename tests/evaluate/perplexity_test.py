"""Perplexity of whole streams: every token once, whatever the pieces, from the context it says."""

from importlib import import_module
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import evaluate
from rankbias.evaluate import Predictor, perplexity
from rankbias.evaluate.streams import contexts, pieces

MODULE = import_module("rankbias.evaluate.perplexity")  # a function has its name

V = 7


def counting(params, x, *, key=None):
  """A network whose feature is how many tokens of its row it has seen, and their running sum."""
  seen = jnp.broadcast_to(jnp.arange(1, x.shape[1] + 1), x.shape)
  return jnp.stack([seen, jnp.cumsum(x, 1), x], -1).astype("float32") * params, {}


def head(kernel, features):
  return jnp.sin(features @ kernel)  # bounded, though the sums are not


def stream(n, seed=0):
  return np.random.default_rng(seed).integers(0, V, n).astype(np.int32)


def made(n=50, temperature=1.0, log_head=None, **splits):
  tokens = {"valid": stream(n), "test": stream(n + 13, 1), **splits}
  kernel = np.random.default_rng(2).normal(size=(3, V)).astype("f4")
  source = SimpleNamespace(tokens=tokens.get, num_classes=V, splits=tokens)
  return Predictor(counting, np.float32(1), head, kernel, temperature, log_head), source


def by_hand(predictor, rows, counts):
  """Mean of - log p over the positions that count, row by row in float64."""
  losses = []
  for row, own in zip(rows, counts, strict=True):
    x = row[:-1]
    features = np.stack([np.arange(1, len(x) + 1), np.cumsum(x), x], -1).astype(float)
    logits = np.sin(features @ predictor.head_params.astype(float)) / predictor.temperature
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses += [-log_probs[t, row[t + 1]] for t in own]
  return np.mean(losses), len(losses)


@pytest.mark.parametrize("lanes", [1, 3, 16, 1000])
def test_lanes_count_every_token_once_and_lose_context_at_their_borders(lanes):
  predictor, source = made(temperature=2.0)
  found = perplexity(predictor, source, splits=("valid",), lanes=lanes)
  tokens = source.tokens("valid")
  length = -(-49 // lanes)
  rows = [tokens[i : i + length + 1] for i in range(0, 49, length)]
  loss, count = by_hand(predictor, rows, [range(len(row) - 1) for row in rows])
  assert count == found["tokens"]["valid"] == 49
  assert found["cross_entropy"]["valid"] == pytest.approx(loss, rel=1e-5)
  assert found["perplexity"]["valid"] == pytest.approx(np.exp(loss), rel=1e-5)


@pytest.mark.parametrize("context", [2, 5, 8, 49, 64])
def test_windows_overlap_by_half_and_count_every_token_once(context, monkeypatch):
  monkeypatch.setattr("rankbias.evaluate.streams.PAIRS", 3 * context**2)  # three rows a pass
  predictor, source = made()
  found = perplexity(predictor, source, splits=("test",), context=context)
  tokens, half = source.tokens("test"), context // 2
  rows, counts, done = [], [], 0
  while done < len(tokens) - 1:  # each window begins half of one before what it counts
    start = max(done - half, 0)
    row = tokens[start : start + context + 1]
    rows.append(row)
    counts.append(range(done - start, len(row) - 1))
    done = start + len(row) - 1
  loss, count = by_hand(predictor, rows, counts)
  assert count == found["tokens"]["test"] == 62
  assert found["cross_entropy"]["test"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 18, 100])
@pytest.mark.parametrize("context", [None, 2, 3, 7, 16, 200])
def test_pieces_cover_every_position_once_with_half_a_window_before_it(count, context):
  starts, length, skipped = pieces(count, 4, context)
  seen = []
  for i, start in enumerate(starts):
    seen += [p for p in range(start + skipped * (i > 0), start + length) if p < count]
  assert seen == list(range(count))
  if context:
    assert skipped >= min(context, count) // 2 and length <= context + 1


def test_blocks_of_the_head_do_not_matter(monkeypatch):
  predictor, source = made()
  whole = perplexity(predictor, source)
  monkeypatch.setattr(MODULE, "ENTRIES", 5 * V)
  monkeypatch.setattr("rankbias.evaluate.streams.PASS", 8)
  small = perplexity(predictor, source)
  for kind, splits in whole.items():
    assert small[kind] == pytest.approx(splits, rel=1e-6)
  assert list(whole["perplexity"]) == ["valid", "test"]


def test_contexts_come_in_the_order_of_the_stream():
  predictor, source = made()
  tokens = source.tokens("valid")
  parts = [(np.asarray(f)[c], y[c]) for f, y, c in contexts(predictor, tokens, context=6)]
  np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), tokens[1:])
  np.testing.assert_array_equal(np.concatenate([f[:, 2] for f, _ in parts]), tokens[:-1])


def test_a_uniform_network_has_the_perplexity_of_its_vocabulary():
  predictor, source = made()
  found = perplexity(predictor._replace(head_params=0 * predictor.head_params), source)
  assert found["perplexity"] == pytest.approx({"valid": V, "test": V}, rel=1e-6)


def test_a_mixture_says_its_own_log_probabilities_at_the_temperature():
  def log_head(kernel, features, temperature):
    parts = [jnp.sin(k * features @ kernel) / temperature for k in (1, 2)]
    probs = sum(jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True) for z in parts) / 2
    return jnp.log(probs)

  predictor, source = made(temperature=3.0, log_head=log_head)
  (features, following, counts), *_ = contexts(predictor, source.tokens("valid"), lanes=1)
  log_probs = np.asarray(log_head(predictor.head_params, features, 3.0))
  expected = -log_probs[np.arange(len(following)), following][counts].mean()
  found = perplexity(predictor, source, splits=("valid",), lanes=1)
  assert found["cross_entropy"]["valid"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_beyond_floating_point_is_an_infinite_perplexity():
  predictor, source = made(log_head=lambda kernel, features, t: features @ kernel * 0 - 1000.0)
  assert perplexity(predictor, source)["perplexity"] == {"valid": np.inf, "test": np.inf}


def test_a_stream_without_anything_to_predict_is_refused():
  predictor, source = made(valid=stream(1))
  with pytest.raises(ValueError, match="a stream of 1 has nothing to predict"):
    perplexity(predictor, source)


TEXT = {"data.name": "ptb", "model.name": "lstm"}


@pytest.mark.parametrize(
  ("options", "fields", "message"),
  [
    ({}, {"data.name": "digits"}, "evaluate.perplexity needs data.name one of ptb, wikitext2"),
    ({"context": 1}, TEXT, "evaluate.perplexity.context=1 must be at least 2"),
    ({"lanes": 0}, TEXT, "evaluate.perplexity.lanes=0 must be at least 1"),
    ({"window": 5}, TEXT, "evaluate.perplexity.window is unknown; use splits, lanes, context"),
    ({}, TEXT | {"model.name": "transformer"}, "evaluate.perplexity.context=None: attention over"),
  ],
)
def test_what_cannot_be_measured_is_refused(options, fields, message):
  with pytest.raises(ValueError, match=message):
    evaluate.check_options({"perplexity": options}, fields)
  evaluate.check_options({"perplexity": {"context": 64}}, TEXT | {"model.name": "transformer"})


def test_splits_must_exist():
  evaluate.check_splits({"perplexity": {}}, ("train", "valid", "test"))
  with pytest.raises(ValueError, match=r"evaluate.perplexity.splits=\('valid', 'test'\): the data"):
    evaluate.check_splits({"perplexity": {}}, ("train", "test"))
  with pytest.raises(ValueError, match="evaluate.perplexity.splits=.'dev'.: the data have train"):
    evaluate.check_splits({"perplexity": {"splits": ["dev"]}}, ("train",))
