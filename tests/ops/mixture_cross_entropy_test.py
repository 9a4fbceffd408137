"""The streamed cross-entropy of a mixture against that of all its log-probabilities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

N, K, D, V = 11, 3, 4, 23
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, V, N)
KEEP = RNG.random(N) < 0.7
POINT = {
  "prior_logits": RNG.normal(size=(N, K)),
  "contexts": RNG.normal(size=(N, K, D)),
  "kernel": RNG.normal(size=(D, V)),
  "bias": RNG.normal(size=V),
  "temperature": np.array(0.7),
  "parameters": RNG.normal(size=7),
}
MAPS = {
  "none": lambda p: None,
  "sigsoftmax": lambda p: ops.sigsoftmax_logits,
  "plif": lambda p: ops.plif_map(p, bound=3.0),
}
# Chunks that divide neither the 33 contexts nor the 23 classes, and one block.
OPTIONS = {
  "none": {"chunk": (7, 6)},
  "sigsoftmax": {"where": KEEP},
  "plif": {"chunk": 5, "kernel_layout": "vd", "where": KEEP},
}


def dense(point, name, where=None, **_):
  parts = (point[k] for k in ("prior_logits", "contexts", "kernel", "bias"))
  function = MAPS[name](point["parameters"])
  logs = ops.mixture_log_probs(*parts, temperature=point["temperature"], logit_map=function)
  keep = np.ones(N, bool) if where is None else where
  return jnp.where(keep, -logs[np.arange(N), LABELS], 0), keep & (jnp.argmax(logs, -1) == LABELS)


def streamed(point, name, **options):
  kernel = point["kernel"].T if options.get("kernel_layout") == "vd" else point["kernel"]
  own = {"bias": point["bias"], "temperature": point["temperature"]}
  own |= {"logit_map": MAPS[name](point["parameters"]), **options}
  parts = point["prior_logits"], point["contexts"]
  return ops.mixture_cross_entropy(*parts, kernel, LABELS, **own)


@pytest.mark.parametrize("name", MAPS)
def test_values_and_gradients_are_those_of_all_log_probs(name, compiled_quickly):
  def objective(function, point):
    loss, correct = function(point, name, **OPTIONS[name])
    return jnp.sum(jnp.arange(1, N + 1) * loss), (loss, correct)

  @compiled_quickly
  def both(point):
    return [jax.grad(partial(objective, f), has_aux=True)(point) for f in (streamed, dense)]

  with jax.enable_x64(True):
    ours, theirs = both(jax.tree.map(jnp.asarray, POINT))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=1e-12)
  moved = {k for k, g in ours[0].items() if np.abs(g).max() > 0}
  assert moved == set(POINT) - (set() if name == "plif" else {"parameters"})


def test_correct_is_of_the_mixture_and_the_first_of_equals():
  """Components whose best classes are 0 and 2 and whose mixture's is 1, beside a tie."""
  probabilities = np.array([[0.5, 0.4, 0.1], [0.1, 0.4, 0.5]])
  contexts = jnp.asarray(np.log(np.stack([probabilities, probabilities])), jnp.float32)
  flat = jnp.zeros((2, 2))

  def correct(label, contexts=contexts, chunk=2):
    labels = jnp.full(2, label)
    return ops.mixture_cross_entropy(flat, contexts, jnp.eye(3), labels, chunk=chunk)[1]

  found = [correct(label).tolist() for label in range(3)]
  assert found == [[False, False], [True, True], [False, False]]
  tied = [correct(label, jnp.zeros((2, 2, 3)), chunk).all() for label in (0, 1) for chunk in (1, 2)]
  assert tied == [True, True, False, False]


def test_tokens_left_out_may_hold_anything(compiled_quickly):
  prior, contexts = np.float32(POINT["prior_logits"]), np.float32(POINT["contexts"])
  prior[~KEEP], contexts[~KEEP] = np.inf, np.nan
  labels = np.where(KEEP, LABELS, -100)

  def loss(prior, contexts, kernel):
    loss, correct = ops.mixture_cross_entropy(prior, contexts, kernel, labels, where=KEEP, chunk=6)
    return loss.sum(), (loss, correct)

  run = compiled_quickly(jax.grad(loss, (0, 1, 2), has_aux=True))
  gradients, (losses, correct) = run(prior, contexts, np.float32(POINT["kernel"]))
  assert all(np.isfinite(g).all() for g in gradients)
  assert not losses[~KEEP].any() and not correct[~KEEP].any() and (losses[KEEP] > 0).all()
  assert not gradients[0][~KEEP].any() and not gradients[1][~KEEP].any()


def test_a_masked_label_costs_infinity_and_a_wrong_one_nan(compiled_quickly):
  bias = jnp.zeros(V).at[5].set(-jnp.inf)

  def loss(parts, labels):
    kernel, own = np.float32(POINT["kernel"]), {"bias": bias}
    return ops.mixture_cross_entropy(*parts, kernel, labels, **own)[0]

  parts = np.float32(POINT["prior_logits"][:3]), np.float32(POINT["contexts"][:3])
  run = compiled_quickly(lambda parts, labels: jax.vjp(lambda p: loss(p, labels), parts))
  losses, pull = run(parts, jnp.array([5, 4, V]))
  assert losses[0] == jnp.inf and np.isfinite(losses[1]) and np.isnan(losses[2])
  (gradients,) = pull(jnp.array([1.0, 1.0, 0.0]))
  assert not any(g[0].any() for g in gradients) and all(g[1].any() for g in gradients)


def test_holds_no_matrix_of_probabilities():
  """A block of 3 x 4096 contexts has no array of all classes, forward or backward."""
  shapes = (4096, 3), (4096, 3, 8), (8, 5000)
  parts = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  labels = jax.ShapeDtypeStruct((4096,), jnp.int32)

  def loss(prior, contexts, kernel, labels):
    losses, correct = ops.mixture_cross_entropy(prior, contexts, kernel, labels)
    return losses.sum(), correct

  program = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True)).lower(*parts, labels).compile()
  assert program.memory_analysis().temp_size_in_bytes < 4096 * 5000 * 4


def test_half_precision_adds_up_in_float32():
  parts = (jnp.asarray(POINT[k], jnp.bfloat16) for k in ("prior_logits", "contexts", "kernel"))
  prior, contexts, kernel = parts
  losses, _ = ops.mixture_cross_entropy(prior, contexts, kernel, LABELS)
  wide = (x.astype(jnp.float32) for x in (prior, contexts, kernel))
  expected = -ops.mixture_log_probs(*wide)[np.arange(N), LABELS]
  assert losses.dtype == jnp.float32
  np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"labels": np.zeros(N - 1, int)}, r"labels of shape \(10,\) and dtype int32 must be integers"),
    ({"labels": np.full(N, V)}, r"labels hold 23, and the classes are 0..22"),
    ({"prior_logits": np.zeros((N, 2))}, r"prior_logits of shape \(11, 2\) does not fit"),
    ({"kernel": np.zeros((D + 1, V))}, r"kernel of shape \(5, 23\) does not fit"),
    ({"temperature": 0.0}, "temperature"),
    ({"chunk": 0}, r"chunk = \(0, 0\) must be"),
    ({"kernel_layout": "xy"}, "kernel_layout = 'xy'"),
  ],
)
def test_refuses(changes, message):
  arguments = {k: POINT[k] for k in ("prior_logits", "contexts", "kernel")} | {"labels": LABELS}
  arguments |= changes
  with pytest.raises(ValueError, match=message):
    ops.mixture_cross_entropy(**arguments)
