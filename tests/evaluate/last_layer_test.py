"""What a last layer cannot say and what gives its width away: against its definition."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import evaluate, ops, rank
from rankbias.evaluate import Predictor, last_layer

V, D, N = 60, 3, 90


def lookup(table, x, *, key=None):
  """A network whose feature is that of the place in its row."""
  return table[jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)], {}


def linear(variables, features):
  own = variables["params"]["linear"]
  return features @ own["kernel"] + own["bias"][None]


def bent(variables, features):
  return jnp.logaddexp(0, linear(variables, features))


def folded(variables, features):
  return jnp.square(linear(variables, features))


def mixed(variables, features, temperature):
  halves = [linear(variables, s * features) for s in (1.0, -1.0)]
  return jnp.logaddexp(*map(ops.log_softmax, halves)) - jnp.log(2)


def made(head, log_head=None):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(N, D)).astype("f4")
  own = {"kernel": rng.normal(size=(D, V)).astype("f4"), "bias": rng.normal(size=V).astype("f4")}
  source = SimpleNamespace(tokens={"test": rng.integers(0, V, N)}.get, num_classes=V)
  return Predictor(lookup, table, head, {"params": {"linear": own}}, 1.0, log_head), source


@pytest.mark.parametrize("head", [linear, bent])
def test_words_that_are_never_first_are_those_of_the_kernel_and_bias(head):
  predictor, source = made(head)
  found = last_layer(predictor, source, queries=80)["last_layer"]
  own = predictor.head_params["params"]["linear"]
  never = np.flatnonzero(~rank.argmaxable(own["kernel"], own["bias"]).argmaxable)
  assert 20 < len(never) < V and found["increasing"]
  assert found["never_first"] == len(never)
  assert found["never_first_words"] == never[:20].tolist()
  # The words that the text's own contexts put first are not among them.
  first = np.argmax(np.asarray(head(predictor.head_params, predictor.params)), 1)
  assert not set(first) & set(never)


@pytest.mark.parametrize(
  ("head", "log_head", "width"),
  [(linear, None, D), (bent, None, None), (linear, mixed, None)],
)
def test_only_a_linear_softmax_gives_its_width_away(head, log_head, width):
  predictor, source = made(head, log_head)
  found = last_layer(predictor, source, queries=80, classes=40)["last_layer"]
  assert (found["width"], found["features"]) == (width, D)
  assert (found["gap"] >= 10) == (width is not None)
  assert (found["queries"], found["classes"]) == (80, 40)


def test_a_map_that_does_not_increase_leaves_the_question_open():
  found = last_layer(*made(folded), queries=80)["last_layer"]
  assert (found["increasing"], found["never_first"], found["never_first_words"]) == (
    False,
    None,
    [],
  )


def test_wrong_options_are_refused():
  text = {"data.name": "ptb", "model.name": "lstm"}
  with pytest.raises(ValueError, match="evaluate.last_layer.queries=0 must be at least 1"):
    evaluate.check_options({"last_layer": {"queries": 0}}, text)
  with pytest.raises(ValueError, match="evaluate.last_layer needs data.name one of ptb"):
    evaluate.check_options({"last_layer": {}}, text | {"data.name": "digits"})
