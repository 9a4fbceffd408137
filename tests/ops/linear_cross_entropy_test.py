"""The streamed cross-entropy against the dense one: values, gradients, masks, ties, precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

N, D, V = 13, 4, 23
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, V, N)
KEEP = RNG.random(N) < 0.7
POINT = {
  "features": RNG.normal(size=(N, D)),
  "kernel": RNG.normal(size=(D, V)),
  "bias": RNG.normal(size=V),
  "temperature": np.array(1.7),
  "parameters": RNG.normal(size=7),
}
MAPS = {
  "linear": lambda p: None,
  "sigsoftmax": lambda p: ops.sigsoftmax_logits,
  "two slopes": lambda p: partial(ops.generalized_sigsoftmax_logits, knee=p[0], slope=2.5),
  "tanh cap": lambda p: lambda z: ops.tanh_cap(z, cap=2 + p[0] ** 2),
  "plif": lambda p: ops.plif_map(p, bound=3.0),
  "plif, partial": lambda p: jax.tree_util.Partial(ops.plif, parameters=p, bound=3.0),
}
# Chunks that divide neither 13 nor 23, one block, and blocks of one.
OPTIONS = {
  "linear": {"chunk": (4, 6)},
  "sigsoftmax": {"chunk": 5, "kernel_layout": "vd"},
  "two slopes": {"chunk": None},
  "tanh cap": {"chunk": (13, 22), "kernel_layout": "vd"},
  "plif": {"chunk": (5, 9)},
  "plif, partial": {"chunk": 1, "kernel_layout": "vd"},
}


def dense(point, name, where=None, reduction=None, **_):
  """Loss and log-sum-exp from the matrix of logits."""
  logits = point["features"] @ point["kernel"] + point["bias"][None]
  function = MAPS[name](point["parameters"])
  scores = (logits if function is None else function(logits)) / point["temperature"]
  logsumexp = jax.nn.logsumexp(scores, -1)
  keep = np.ones(N, bool) if where is None else where
  loss = jnp.where(keep, logsumexp - scores[np.arange(N), LABELS], 0)
  loss = loss if reduction is None else loss.sum() / keep.sum()
  correct = keep & (jnp.argmax(scores, -1) == LABELS)
  return loss, (jnp.where(keep, logsumexp, 0), correct)


def streamed(point, name, **options):
  kernel = point["kernel"].T if options.get("kernel_layout") == "vd" else point["kernel"]
  return ops.linear_cross_entropy(
    point["features"],
    kernel,
    LABELS,
    bias=point["bias"],
    temperature=point["temperature"],
    logit_map=MAPS[name](point["parameters"]),
    **options,
  )


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("name", MAPS)
def test_values_and_gradients_are_those_of_the_dense_loss(name, reduction, compiled_quickly):
  weights = np.random.default_rng(1).normal(size=(2, N))
  options = {**OPTIONS[name], "reduction": reduction}

  def objective(function, point, where):
    loss, aux = function(point, name, where=where, **options)
    if reduction:
      return 3 * loss, (loss, aux)
    return jnp.sum(weights[0] * loss + weights[1] * aux[0] ** 2), (loss, aux)

  @compiled_quickly
  def both(point):
    return [
      [jax.grad(partial(objective, f), has_aux=True)(point, keep) for keep in (KEEP, None)]
      for f in (streamed, dense)
    ]

  with jax.enable_x64(True):
    ours, theirs = both(jax.tree.map(jnp.asarray, POINT))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=1e-12)
  moved = {k for k, g in ours[0][0].items() if np.abs(g).max() > 0}
  assert moved >= {"features", "kernel", "bias", "temperature"}
  assert ("parameters" in moved) == (name not in ("linear", "sigsoftmax"))


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("logit_map", [None, ops.sigsoftmax_logits])
def test_tied_embeddings(logit_map, reduction, compiled_quickly):
  """The table is read twice: as features and as the kernel."""
  table, tokens = RNG.normal(size=(V, D)), RNG.integers(0, V, (2, 6))

  def objective(table, stream):
    features = jnp.tanh(table[tokens[:, :-1]])
    if stream:
      options = {"kernel_layout": "vd", "chunk": (3, 10), "reduction": reduction}
      options["logit_map"] = logit_map
      return ops.linear_cross_entropy(features, table, tokens[:, 1:], **options)[0].mean()
    logits = features @ table.T
    logits = logits if logit_map is None else logit_map(logits)
    return ops.cross_entropy(logits, tokens[:, 1:]).mean()

  with jax.enable_x64(True):
    gradients = compiled_quickly(lambda t: [jax.grad(objective)(t, s) for s in (True, False)])
    ours, theirs = gradients(table)
  np.testing.assert_allclose(ours, theirs, atol=1e-13)


def test_vmap_over_what_a_map_closes_over(compiled_quickly):
  """Heads side by side: parameters and temperatures in a batch, the layer shared."""

  def objective(function, parameters, temperature):
    point = {**POINT, "parameters": parameters, "temperature": temperature}
    return function(point, "plif", chunk=(5, 9))[0].sum()

  batch = jnp.asarray(RNG.normal(size=(3, 7)), jnp.float32), jnp.array([0.5, 1.0, 2.0])
  results = [
    compiled_quickly(jax.vmap(jax.value_and_grad(partial(objective, f), (0, 1))))(*batch)
    for f in (streamed, dense)
  ]
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
  plain = jax.vmap(partial(objective, streamed))(*batch)  # not even under jit
  np.testing.assert_allclose(plain, results[0][0], rtol=1e-5)


def test_traced_labels_outside_make_their_loss_nan():
  kernel, features = (np.float32(POINT[k]) for k in ("kernel", "features"))
  labels = LABELS.copy()
  labels[[2, 5]] = -1, V
  loss, aux = jax.jit(ops.linear_cross_entropy)(features, kernel, labels)
  np.testing.assert_array_equal(np.isnan(loss), np.isin(np.arange(N), [2, 5]))
  assert not aux.correct[jnp.array([2, 5])].any()
  mean = jax.jit(partial(ops.linear_cross_entropy, reduction="mean"))
  assert np.isnan(mean(features, kernel, labels)[0])


def test_a_tie_is_won_by_the_first_class():
  logits = np.float32([[1, 3, 2, 3, 3], [0, 0, 0, 0, 0], [2, 1, 1, 1, 1]])
  for labels, expected in (([1, 0, 0], [1, 1, 1]), ([3, 4, 1], [0, 0, 0]), ([4, 1, 4], [0, 0, 0])):
    layer = np.eye(3, dtype="f4"), logits, np.array(labels)
    _, aux = ops.linear_cross_entropy(*layer, chunk=2)
    np.testing.assert_array_equal(aux.correct, np.bool_(expected))


def test_half_precision_is_added_up_in_single(compiled_quickly):
  rng = np.random.default_rng(2)
  h, w = rng.normal(size=(8, 64)) / 8, rng.normal(size=(64, 500))
  h, w = jnp.asarray(h, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
  labels = rng.integers(0, 500, 8)

  def run(h, w):
    f = partial(ops.linear_cross_entropy, labels=labels, chunk=(5, 99), reduction="mean")
    return jax.value_and_grad(lambda h, w: f(h, w)[0], (0, 1))(h, w)

  run = compiled_quickly(run)
  loss, gradients = run(h, w)
  exact, wide = run(*(x.astype(jnp.float32) for x in (h, w)))
  assert loss.dtype == jnp.float32 and all(g.dtype == jnp.bfloat16 for g in gradients)
  np.testing.assert_allclose(loss, exact, rtol=1e-5)
  for a, b in zip(gradients, wide, strict=True):
    np.testing.assert_allclose(a.astype("f4"), b, atol=float(jnp.abs(b).max()) / 64)
  mixed = run(h.astype(jnp.float32), w)
  np.testing.assert_allclose(mixed[0], exact, rtol=1e-5)
