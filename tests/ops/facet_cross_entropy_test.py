"""The streamed cross-entropy of facets against that of all their log-probabilities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

N, P, K, D, V = 11, 3, 2, 4, 23  # the last part has a class less
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, V, N)
KEEP = RNG.random(N) < 0.7
POINT = {
  "prior_logits": RNG.normal(size=(N, 1 + K)),
  "partition_facets": RNG.normal(size=(N, P, D)),
  "facets": RNG.normal(size=(N, K, D)),
  "kernel": RNG.normal(size=(D, V)),
  "bias": RNG.normal(size=V),
  "temperature": np.array(0.7),
}
PARTITIONED = ("partition_facets", "kernel", "bias", "temperature")
# Chunks that divide neither the tokens nor the classes of a part, one block, and no bias.
OPTIONS = {"small": {"chunk": (4, 3)}, "where": {"where": KEEP}, "plain": {"bias": None}}


def multi_facet(point, **options):
  parts = (point[k] for k in ("prior_logits", "partition_facets", "facets", "kernel"))
  own = {"bias": point["bias"], "temperature": point["temperature"], **options}
  return ops.multi_facet_cross_entropy(*parts, LABELS, **own)


def partitioned(point, **options):
  own = {"bias": point["bias"], "temperature": point["temperature"], **options}
  return ops.partitioned_cross_entropy(point["partition_facets"], point["kernel"], LABELS, **own)


def of_all(function, point, where=True, chunk=None, **options):
  own = {"bias": point["bias"], **options}
  if function is partitioned:
    logits = ops.partitioned_logits(point["partition_facets"], point["kernel"], **own)
    logs = ops.log_softmax(logits, temperature=point["temperature"])
  else:
    parts = (point[k] for k in ("prior_logits", "partition_facets", "facets", "kernel"))
    logs = ops.multi_facet_log_probs(*parts, temperature=point["temperature"], **own)
  keep = np.broadcast_to(where, (N,))
  return jnp.where(keep, -logs[np.arange(N), LABELS], 0), keep & (jnp.argmax(logs, -1) == LABELS)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", [partitioned, multi_facet])
def test_values_and_gradients_are_those_of_all_log_probs(function, options, compiled_quickly):
  def objective(loss_of, point):
    loss, correct = loss_of(point, **OPTIONS[options])
    return jnp.sum(jnp.arange(1, N + 1) * loss), (loss, correct)

  @compiled_quickly
  def both(point):
    pair = function, partial(of_all, function)
    return [jax.grad(partial(objective, f), has_aux=True)(point) for f in pair]

  with jax.enable_x64(True):
    ours, theirs = both(jax.tree.map(jnp.asarray, POINT))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=1e-12)
  moved = {k for k, g in ours[0].items() if np.abs(g).max() > 0}
  inputs = set(PARTITIONED if function is partitioned else POINT)
  assert moved == inputs - ({"bias"} if options == "plain" else set())


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_correct_is_the_first_of_equals_over_all_parts(parts):
  """Logits of few values, so that several classes are the best, in one part and in several."""
  logits = RNG.integers(0, 3, (400, 5))
  one_hot = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[:, None], (400, parts, 5))
  labels = jnp.asarray(RNG.integers(0, 5, 400))
  _, correct = ops.partitioned_cross_entropy(one_hot, jnp.eye(5), labels, chunk=(400, 2))
  np.testing.assert_array_equal(correct, logits.argmax(-1) == labels)
  assert 0 < correct.mean() < 1
  # Two equal softmaxes: the mixture has the same order, and its argmax is of the same classes.
  parted = jnp.zeros((400, 2)), one_hot, one_hot[:, :1], jnp.eye(5), labels
  np.testing.assert_array_equal(ops.multi_facet_cross_entropy(*parted, chunk=2)[1], correct)


@pytest.mark.parametrize("function", [partitioned, multi_facet])
def test_tokens_left_out_may_hold_anything(function, compiled_quickly):
  holes = ("prior_logits", "partition_facets", "facets")
  point = {name: np.float32(x) for name, x in POINT.items()}
  for name in holes:
    point[name][~KEEP] = np.nan

  def loss(point):
    loss, correct = function(point, where=KEEP, chunk=6)
    return loss.sum(), (loss, correct)

  gradients, (losses, correct) = compiled_quickly(jax.grad(loss, has_aux=True))(point)
  assert all(np.isfinite(g).all() for g in gradients.values())
  assert not losses[~KEEP].any() and not correct[~KEEP].any() and (losses[KEEP] > 0).all()
  assert not any(gradients[name][~KEEP].any() for name in holes)


def test_a_masked_label_costs_infinity_and_a_wrong_one_nan():
  bias = jnp.zeros(V).at[5].set(-jnp.inf)
  parts = [np.float32(POINT[k]) for k in ("prior_logits", "partition_facets", "facets", "kernel")]

  @jax.jit
  def loss(labels):
    labels = jnp.zeros(N, int).at[:3].set(labels)
    both = ops.partitioned_cross_entropy(parts[1], parts[3], labels, bias=bias)[0]
    return both, ops.multi_facet_cross_entropy(*parts, labels, bias=bias)[0]

  for losses in loss(jnp.array([5, 4, V])):
    assert losses[0] == jnp.inf and np.isfinite(losses[1]) and np.isnan(losses[2])


def test_holds_no_matrix_of_probabilities():
  """A block of 4096 tokens has no array of all classes, forward or backward."""
  shapes = (4096, 3), (4096, 4, 8), (4096, 2, 8), (8, 5000)
  parts = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  labels = jax.ShapeDtypeStruct((4096,), jnp.int32)

  def loss(*parts):
    losses, correct = ops.multi_facet_cross_entropy(*parts)
    return losses.sum(), correct

  program = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True)).lower(*parts, labels).compile()
  assert program.memory_analysis().temp_size_in_bytes < 4096 * 5000 * 4


def test_half_precision_adds_up_in_float32():
  names = ("prior_logits", "partition_facets", "facets", "kernel")
  parts = [jnp.asarray(POINT[k], jnp.bfloat16) for k in names]
  losses, _ = ops.multi_facet_cross_entropy(*parts, LABELS)
  expected = -ops.multi_facet_log_probs(*(x.astype(jnp.float32) for x in parts))
  assert losses.dtype == jnp.float32
  np.testing.assert_allclose(losses, expected[np.arange(N), LABELS], rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"labels": np.zeros(N - 1, int)}, r"labels of shape \(10,\)"),
    ({"labels": np.full(N, V)}, r"labels hold 23, and the classes are 0..22"),
    ({"prior_logits": np.zeros((N, K))}, r"prior_logits of shape \(11, 2\) does not fit facets"),
    ({"partition_facets": np.zeros((N, 0, D))}, r"hold no part: pass \[..., P, d\]"),
    ({"kernel": np.zeros((D + 1, V))}, r"kernel of shape \(5, 23\) does not fit"),
    ({"bias": np.zeros(V + 1)}, r"bias of shape \(24,\) must be \(23,\)"),
    ({"temperature": 0.0}, "temperature"),
    ({"chunk": 0}, r"chunk = \(0, 0\) must be"),
  ],
)
def test_refuses(changes, message):
  names = ("prior_logits", "partition_facets", "facets", "kernel")
  arguments = {k: POINT[k] for k in names} | {"labels": LABELS} | changes
  with pytest.raises(ValueError, match=message):
    ops.multi_facet_cross_entropy(**arguments)
