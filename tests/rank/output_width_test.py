"""The width of a last layer from its outputs: found for linear heads, not for bent or mixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops, rank

QUERIES, CLASSES, WIDTH = 300, 80, 8
RNG = np.random.default_rng(0)
SCALES = np.arange(1, WIDTH + 1) ** -0.5  # features of unequal size, as trained ones are
H = RNG.normal(size=(QUERIES, WIDTH)) * SCALES
W, B = 2 * RNG.normal(size=(WIDTH, CLASSES)), RNG.normal(size=CLASSES)


def answers(logits):
  """Log-probabilities in float32, as from an interface."""
  return np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


@pytest.mark.parametrize("bias", [0, B[None]], ids=["no bias", "bias"])
def test_the_width_of_a_linear_head(bias):
  found = rank.width_from_outputs(answers(H @ W + bias))
  assert found.width == WIDTH and found.gap > 1e5 > 3 > found.next_gap
  assert found.reason.startswith("largest gap") and found.singular_values.shape == (CLASSES - 1,)
  exact = np.linalg.svd((H - H.mean(0)) @ (W - W.mean(1, keepdims=True)), compute_uv=False)
  np.testing.assert_allclose(found.singular_values[:WIDTH], exact[:WIDTH], rtol=1e-5)


def test_some_of_the_classes_and_the_logits_do():
  logits = H @ W + B
  assert rank.width_from_outputs(answers(logits)[:, 10:30]).width == WIDTH
  assert rank.width_from_outputs(np.float32(logits)).width == WIDTH
  assert rank.width_from_outputs(answers(logits)[:20]).width == WIDTH


@pytest.mark.parametrize("decimals", [6, 4, 2, 1, 0, -1])
def test_rounding_hides_the_width_where_it_comes_near_the_last_value(decimals):
  log_p = answers(H @ W + B)
  last = rank.width_from_outputs(log_p).singular_values[WIDTH - 1]
  found = rank.width_from_outputs(np.round(log_p, decimals))
  # Below the gap is the rounding: uniform in half a unit either way, independent.
  floor = 10.0**-decimals / 12**0.5 * (QUERIES**0.5 + CLASSES**0.5)
  assert (found.width == WIDTH) if floor < last / 10 else (found.width is None)
  if 0 <= decimals < 6:
    assert 0.7 < found.singular_values[WIDTH] / floor < 1.1
  assert (floor < last / 10) == (decimals >= 0)


def plif(z):
  return ops.plif(z, ops.plif_init(jax.random.key(0), 20, scale=1.0), bound=10.0)


def mixed(z):
  contexts = np.tanh(np.einsum("nd,kde->nke", H, RNG.normal(size=(3, WIDTH, WIDTH))))
  log_p = ops.mixture_log_probs(np.zeros((QUERIES, 3)), contexts, W, B)
  assert log_p.shape == z.shape
  return log_p


BENT = {
  "sigsoftmax": ops.sigsoftmax_logits,
  "tanh cap 5": lambda z: ops.tanh_cap(z, cap=5.0),
  "plif": plif,
  "mixture of softmaxes": mixed,
}


@pytest.mark.parametrize("name", BENT)
def test_there_is_no_gap_behind_a_bent_map_or_a_mixture(name):
  found = rank.width_from_outputs(answers(BENT[name](np.float32(H @ W + B))))
  assert found.width is None and 1 < found.gap < 10
  assert "not linear, rounded, or too few" in found.reason


def test_a_map_that_hardly_bends_gives_the_width_away():
  found = rank.width_from_outputs(answers(ops.tanh_cap(np.float32(H @ W + B), cap=100.0)))
  assert found.width == WIDTH and found.gap < 1e4


@pytest.mark.parametrize("queries", [4, WIDTH, WIDTH + 1])
def test_too_few_queries_show_no_gap(queries):
  found = rank.width_from_outputs(answers(H @ W + B)[:queries])
  assert found.width is None and "too few queries" in found.reason


def test_equal_answers_have_no_width():
  found = rank.width_from_outputs(np.tile(np.log([[0.5, 0.3, 0.15, 0.05]]), (9, 1)))
  assert found.width is None


@pytest.mark.parametrize(
  ("outputs", "own", "message"),
  [
    (np.full((5, 5), -np.inf), {}, "log_probs has entries that are not finite"),
    (np.zeros((3, 9)), {}, r"log_probs of shape \(3, 9\) must be"),
    (np.zeros((9, 9)), {"clear": 1.0}, "clear = 1.0 must be above 1"),
  ],
)
def test_what_cannot_be_is_refused(outputs, own, message):
  with pytest.raises(ValueError, match=message):
    rank.width_from_outputs(outputs, **own)
