"""The rank of log-probabilities: the same held and summed up, and what the theory of heads says."""

from importlib import import_module
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import evaluate
from rankbias.evaluate import Predictor, log_probability_rank

MODULE = import_module("rankbias.evaluate.log_probability_rank")  # a function has its name
V, D, N = 24, 3, 90


def lookup(table, x, *, key=None):
  """A network whose feature is that of the place in its row."""
  return table[jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)], {}


def head(params, features):
  return features @ params["kernel"] + params["bias"][None]


def bent(params, features, temperature):
  logits = (head(params, features) - jnp.logaddexp(0, -head(params, features))) / temperature
  return logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))


def made(log_head=None, temperature=1.0):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(N, D)).astype("f4")
  params = {"kernel": rng.normal(size=(D, V)), "bias": rng.normal(size=V)}
  params = {name: value.astype("f4") for name, value in params.items()}
  source = SimpleNamespace(tokens={"test": rng.integers(0, V, N)}.get, num_classes=V)
  return Predictor(lookup, table, head, params, temperature, log_head), source


def matrix(predictor, contexts):
  """Log-probabilities of one lane, in float64."""
  table, params = predictor.params.astype(float), predictor.head_params
  logits = table[:contexts] @ params["kernel"].astype(float) + params["bias"].astype(float)
  if predictor.log_head is not None:
    logits = logits - np.logaddexp(0, -logits)
  logits = logits / predictor.temperature
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("contexts", [20, 80])  # held, summed up
@pytest.mark.parametrize("log_head", [None, bent])
def test_spectrum_and_ranks_are_those_of_the_matrix(contexts, log_head, monkeypatch):
  monkeypatch.setattr(MODULE, "ENTRIES", 7 * V)  # blocks that divide nothing
  predictor, source = made(log_head, temperature=2.0)
  found = log_probability_rank(predictor, source, contexts=contexts, lanes=1)
  own = np.linalg.svd(matrix(predictor, contexts), compute_uv=False)
  values = found["curves"]["log_probabilities"]
  assert values.shape == (min(contexts, V),)
  np.testing.assert_allclose(values, own, rtol=0, atol=1e-5 * own[0])
  table = found["log_probability_rank"]
  assert (table["contexts"], table["classes"]) == (contexts, V)
  energy = np.cumsum(own**2) / np.sum(own**2)
  for eps in (1e-3, 1e-4):
    assert table["effective_rank"][f"{eps:g}"] == 1 + np.sum(energy < 1 - eps)
  level = 0.5 * np.sqrt(contexts + V + 1) * np.finfo("f4").eps  # of the rounding of float32
  assert table["press_rank"] == np.sum(own > level * own[0])
  assert (table["press_rank"] == D + 2) == (log_head is None)


def test_fewer_classes_are_columns_of_the_whole():
  predictor, source = made()
  found = log_probability_rank(predictor, source, contexts=40, classes=5, lanes=1)
  own = np.linalg.svd(matrix(predictor, 40)[:, :5], compute_uv=False)
  np.testing.assert_allclose(found["curves"]["log_probabilities"], own, rtol=1e-4)
  assert found["log_probability_rank"]["classes"] == 5


def test_a_short_text_has_the_contexts_it_has():
  predictor, source = made()
  found = log_probability_rank(predictor, source, contexts=4096, lanes=3)
  assert found["log_probability_rank"]["contexts"] == N - 1


def test_wrong_options_are_refused():
  text = {"data.name": "ptb", "model.name": "transformer"}
  with pytest.raises(ValueError, match="evaluate.log_probability_rank.contexts=0 must be at least"):
    evaluate.check_options({"log_probability_rank": {"contexts": 0, "context": 8}}, text)
  with pytest.raises(ValueError, match="evaluate.log_probability_rank.context=None: attention"):
    evaluate.check_options({"log_probability_rank": {}}, text)
  with pytest.raises(ValueError, match="evaluate.log_probability_rank.split='test': the data have"):
    evaluate.check_splits({"log_probability_rank": {}}, ("train",))
