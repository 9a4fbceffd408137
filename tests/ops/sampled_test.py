"""Tests of the sampled softmax: published loss, convergence to the full one, masks, memory."""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "midx.npz")
RNG = np.random.default_rng(0)
DRAWS = 3000


class StoredDraws(NamedTuple):
  """A proposal written outside the package: draws and log probabilities that are known."""

  ids: jax.Array
  log_q: jax.Array
  log_positive: jax.Array

  def sample(self, query, key, num_samples):
    """Returns the stored draws."""
    del query, key, num_samples
    return self.ids, self.log_q

  def log_probability(self, query, ids):
    """Returns the stored log probability of the positives."""
    del query, ids
    return self.log_positive


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_published_loss_and_gradient(dtype):
  with jax.enable_x64(dtype == "f64"):
    float_ = jnp.float64 if dtype == "f64" else jnp.float32
    stored = {k: jnp.asarray(GOLDEN[f"loss/{k}"], float_) for k in ("log_pos_prob", "log_neg_prob")}
    # Query b is the b-th unit vector, and its scores are those of items 10 b .. 10 b + 9.
    ids = jnp.arange(60).reshape(6, 10)
    scores = np.concatenate([GOLDEN["loss/pos_score"], GOLDEN["loss/neg_score"]], -1)
    items = np.zeros((60, 6))
    items[ids, np.arange(6)[:, None]] = scores
    proposal = StoredDraws(ids[:, 1:], stored["log_neg_prob"], stored["log_pos_prob"][:, 0])

    @jax.jit
    def loss(items, proposal):
      return ops.sampled_softmax_loss(
        jnp.eye(6, dtype=float_), items, ids[:, 0], jax.random.key(0), proposal, 9,
        remove_accidental_hits=False,
      ).mean()  # fmt: skip

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(items, float_), proposal)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == "f64" else {"rtol": 1e-5, "atol": 1e-5}
    prefix = f"loss/sampled_softmax/{dtype}"
    np.testing.assert_allclose(value, GOLDEN[f"{prefix}/y"], **tolerance)
    theirs = [GOLDEN[f"{prefix}/grad_{k}_score"] for k in ("pos", "neg")]
    ours = gradient[ids, np.arange(6)[:, None]]
    np.testing.assert_allclose(ours, np.concatenate(theirs, -1), **tolerance)
    column = int(GOLDEN["loss/full_softmax_target_column"])
    full = ops.cross_entropy(GOLDEN["loss/neg_score"].astype(float_), np.full(6, column)).mean()
    np.testing.assert_allclose(full, GOLDEN[f"loss/full_softmax/{dtype}/y"], **tolerance)


def clustered(per_cluster=4, sharpness=1.5):
  """Returns 4 x 4 clusters of items, two queries and their positives."""
  halves = sharpness * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
  centres = np.concatenate([np.repeat(halves, 4, 0), np.tile(halves, (4, 1))], -1)
  items = np.repeat(centres, per_cluster, 0)
  items += 0.1 * RNG.normal(size=items.shape).astype(np.float32)
  return items, np.array([[1, 0.5, -0.3, 0.8], [-0.5, 0, 1, 0.4]], np.float32), np.array([3, 40])


ITEMS, QUERY, POSITIVES = clustered()
FULL = np.asarray(ops.cross_entropy(QUERY @ ITEMS.T, POSITIVES))
PROPOSALS = {
  "uniform": ops.uniform_proposal(64),
  "popularity": ops.popularity_proposal(1 + np.arange(64) % 7),
  "midx": ops.midx_proposal(ops.midx_build(ITEMS, num_codewords=4, key=jax.random.key(0))),
}


@partial(jax.jit, static_argnames=("num_samples", "remove"))
def repeated(proposal, num_samples, remove=True, query=QUERY):
  """Returns the losses and gradients with respect to the query of many independent draws."""

  def loss(query, key):
    losses = ops.sampled_softmax_loss(
      query, ITEMS, POSITIVES, key, proposal, num_samples, remove_accidental_hits=remove
    )
    return losses.sum(), losses

  run = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))
  gradients, losses = run(jnp.asarray(query), jax.random.split(jax.random.key(7), DRAWS))
  return losses, gradients


def mean_and_error(x):
  """Returns the mean over draws and its standard error."""
  x = np.asarray(x, np.float64)
  return x.mean(0), x.std(0) / np.sqrt(len(x))


def relative_variance(proposal):
  """Returns the variance of one draw of [j != y] p_j / q_j, for every query."""
  ids = np.broadcast_to(np.arange(64), (2, 64))
  q = np.exp(proposal.log_probability(QUERY, ids), dtype=np.float64)
  p = np.array(jax.nn.softmax(QUERY @ ITEMS.T), np.float64)
  p[np.arange(2), POSITIVES] = 0
  return (p**2 / q).sum(-1) - p.sum(-1) ** 2


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_estimate_of_the_normaliser_is_unbiased(name):
  losses, _ = repeated(PROPOSALS[name], 4)
  mean, error = mean_and_error(np.exp(np.asarray(losses) - FULL))  # Z estimated / Z
  assert (np.abs(mean - 1) < 5 * error + 1e-5).all() and (error < 0.05).all()


@pytest.mark.parametrize("name", ["uniform", "popularity"])  # that of the index drowns in noise
def test_bias_of_loss_and_gradient_falls_with_samples(name):
  full_gradient = jax.grad(lambda q: ops.cross_entropy(q @ ITEMS.T, POSITIVES).sum())(QUERY)
  bias, gradient_bias, noise = {}, {}, {}
  for num_samples in (2, 32):
    losses, gradients = repeated(PROPOSALS[name], num_samples)
    mean, error = mean_and_error(losses)
    bias[num_samples], noise[num_samples] = np.abs(mean - FULL), 5 * error
    assert (mean - FULL < 5 * error).all()  # from below in the mean
    mean, error = mean_and_error(gradients)
    gradient_bias[num_samples] = np.linalg.norm(mean - full_gradient)
  assert (bias[32] + noise[32] < bias[2] / 2).all()
  # Var(Z) / 2 Z^2, and half as much for the higher orders.
  assert (bias[32] < 1.5 * relative_variance(PROPOSALS[name]) / 64 + noise[32]).all()
  assert gradient_bias[32] < gradient_bias[2] / 2
  assert gradient_bias[32] < 0.1 * np.linalg.norm(full_gradient)


def test_an_index_has_less_bias_than_uniform_draws():
  uniform, _ = mean_and_error(repeated(PROPOSALS["uniform"], 2)[0])
  index, error = mean_and_error(repeated(PROPOSALS["midx"], 2)[0])
  assert (np.abs(index - FULL) + 5 * error < np.abs(uniform - FULL) / 2).all()


def test_published_form_converges_to_the_full_loss_and_a_constant():
  log_q = PROPOSALS["popularity"].log_probability(QUERY, POSITIVES)
  losses, gradients = repeated(PROPOSALS["popularity"], 64, remove=False)
  mean, _ = mean_and_error(losses)
  np.testing.assert_allclose(mean, FULL + np.log(64) + log_q, atol=0.1)
  full_gradient = jax.grad(lambda q: ops.cross_entropy(q @ ITEMS.T, POSITIVES).sum())(QUERY)
  np.testing.assert_allclose(mean_and_error(gradients)[0], full_gradient, atol=0.15)


def test_temperature_and_bias_enter_scores_and_proposal():
  bias = RNG.normal(size=64).astype(np.float32)
  temperature = np.array([2, 3], np.float32)
  full = ops.cross_entropy(QUERY @ ITEMS.T + bias, POSITIVES, temperature=temperature[:, None])
  loss = ops.sampled_softmax_loss(
    QUERY, ITEMS, POSITIVES, jax.random.key(0), PROPOSALS["uniform"], 20_000,
    temperature=temperature, bias=bias,
  )  # fmt: skip
  np.testing.assert_allclose(loss, full, atol=0.04)
  # With one item a cell and the bias in the index, q is the softmax and no noise is left but that
  # of the draws that hit the positive.
  index = ops.midx_from_codes((ITEMS[:, :2], ITEMS[:, 2:]), np.stack([np.arange(64)] * 2, -1),
                              log_weights=bias / 2)  # fmt: skip
  exact = ops.sampled_softmax_loss(
    QUERY[:1], ITEMS, POSITIVES[:1], jax.random.key(0), ops.midx_proposal(index), 5,
    temperature=2.0, bias=bias, remove_accidental_hits=False,
  )  # fmt: skip
  full = ops.cross_entropy(QUERY[:1] @ ITEMS.T + bias, POSITIVES[:1], temperature=2.0)
  log_q = index.log_weights[3] + QUERY[0] @ ITEMS[3] / 2
  log_q -= jax.nn.logsumexp((QUERY[0] @ ITEMS.T + bias) / 2)
  np.testing.assert_allclose(exact, full + np.log(6) + log_q, atol=1e-4)


def test_masked_queries_cost_nothing_and_unknown_positives_are_nan():
  query = jnp.asarray(np.concatenate([QUERY, np.full((2, 4), np.nan, np.float32)]))
  positives, where = np.array([3, 64, 5, -1]), np.array([True, True, False, False])

  def loss(query, items):
    return ops.sampled_softmax_loss(
      query, items, positives, jax.random.key(0), PROPOSALS["midx"], 6, where=where
    )

  np.testing.assert_array_equal(np.isnan(loss(query, ITEMS)), [False, True, False, False])
  assert (loss(query, ITEMS)[2:] == 0).all()
  gradient, of_items = jax.grad(lambda *a: loss(*a)[jnp.array([0, 2, 3])].sum(), (0, 1))(
    query, jnp.asarray(ITEMS)
  )
  assert (gradient[2:] == 0).all() and (gradient[0] != 0).any()
  assert jnp.isfinite(gradient[0]).all() and jnp.isfinite(of_items).all()


def test_only_draws_that_hit_the_positive_leave_nothing_to_learn():
  loss = partial(ops.sampled_softmax_loss, QUERY[:1], key=jax.random.key(0), num_samples=3)
  proposal = ops.uniform_proposal(1)
  value, gradient = jax.value_and_grad(
    lambda x: loss(x, np.array([0]), proposal=proposal).sum()
  )(jnp.asarray(ITEMS[:1]))  # fmt: skip
  assert value == 0 and (gradient == 0).all()


def test_half_precision_batch_shapes_and_jit():
  query = jnp.asarray(QUERY, jnp.bfloat16)[:, None]
  run = jax.jit(partial(ops.sampled_softmax_loss, num_samples=4))
  loss = run(query, ITEMS.astype(jnp.bfloat16), POSITIVES[:, None], jax.random.key(0),
             PROPOSALS["midx"])  # fmt: skip
  assert loss.shape == (2, 1) and loss.dtype == jnp.bfloat16 and jnp.isfinite(loss).all()


@pytest.mark.parametrize("name", ["uniform", "popularity", "midx"])
def test_memory_never_holds_batch_times_items(name):
  items = RNG.normal(size=(1009, 4)).astype(np.float32)
  proposal = {
    "uniform": ops.uniform_proposal(1009),
    "popularity": ops.popularity_proposal(np.arange(1009)),
    "midx": ops.midx_proposal(ops.midx_build(items, num_codewords=4, key=jax.random.key(0))),
  }[name]
  query, positives = jnp.ones((50, 4)), jnp.zeros(50, int)

  def loss(query, items):
    return ops.sampled_softmax_loss(query, items, positives, jax.random.key(0), proposal, 3).sum()

  program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(query, jnp.asarray(items)))
  found = {tuple(map(int, m.split(","))) for m in re.findall(r"\[(\d+(?:,\d+)*)\]", program)}
  assert (50, 4, 4) in found  # the vectors of the positive and 3 draws
  assert max(map(np.prod, found)) <= 1009 * 4


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda f: f(QUERY, ITEMS, POSITIVES[:1]), r"positives of shape \(1,\) do not fit"),
    (lambda f: f(QUERY, ITEMS, POSITIVES, num_samples=0), "num_samples = 0"),
    (lambda f: f(QUERY, ITEMS, POSITIVES, temperature=0.0), "temperature = 0.0"),
  ],
)
def test_failures(call, message):
  options = {"key": jax.random.key(0), "proposal": PROPOSALS["uniform"], "num_samples": 2}

  def loss(*arguments, **own):
    return ops.sampled_softmax_loss(*arguments, **{**options, **own})

  with pytest.raises(ValueError, match=message):
    call(loss)
