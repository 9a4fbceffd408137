"""Tests of the proposals: draws against probabilities, rounding of popularities, failures."""

import jax
import numpy as np
import pytest

from rankbias import ops

RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(64, 4)).astype(np.float32)
QUERY = RNG.normal(size=(2, 4)).astype(np.float32)
PROPOSALS = {
  "uniform": ops.uniform_proposal(64),
  "popularity": ops.popularity_proposal(1 + np.arange(64) % 7),
  "midx": ops.midx_proposal(ops.midx_build(ITEMS, num_codewords=4, key=jax.random.key(0))),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_proposals_are_distributions_and_draw_what_they_say(name):
  proposal = PROPOSALS[name]
  ids = np.broadcast_to(np.arange(64), (2, 64))
  expected = np.exp(jax.jit(lambda p: p.log_probability(QUERY, ids))(proposal))
  np.testing.assert_allclose(expected.sum(-1), 1, rtol=1e-5)
  assert isinstance(proposal, ops.Proposal)
  drawn, logs = jax.jit(lambda p, key: p.sample(QUERY, key, 20_000))(proposal, jax.random.key(1))
  np.testing.assert_allclose(
    np.exp(logs), np.take_along_axis(expected, np.asarray(drawn), -1), rtol=1e-4
  )
  counts = np.stack([np.bincount(i, minlength=64) for i in np.asarray(drawn)])
  # Mean of the total variation at most sqrt(64 / 20000) / 2, then McDiarmid at a risk of 1e-9.
  bound = np.sqrt(64 / 20_000) / 2 + np.sqrt(np.log(1e9) / 40_000)
  assert (np.abs(counts / 20_000 - expected).sum(-1) / 2 < bound).all()
  outside = proposal.log_probability(QUERY, np.array([-1, 64]))
  assert np.isnan(outside).all()


def test_popularity_follows_counts_and_power():
  counts = np.array([0, 1, 16, 0, 81, 10_000_000])
  share = ops.popularity_proposal(counts, power=0.25).log_probability(
    np.zeros((1, 2), np.float32), np.arange(6)[None]
  )
  expected = counts**0.25 / (counts**0.25).sum()
  np.testing.assert_allclose(np.exp(share)[0], expected, rtol=1e-6)
  rare = ops.popularity_proposal(np.array([1.0, 1e12]), power=1)  # rounded up to one ticket
  np.testing.assert_allclose(rare.log_share[0], -31 * np.log(2), rtol=1e-6)
  ids, _ = ops.popularity_proposal(counts).sample(QUERY, jax.random.key(0), 1000)
  assert set(np.unique(ids)) <= {1, 2, 4, 5}


def test_a_million_items_keep_their_probabilities():
  counts = 1 / np.arange(1, 1_000_001)
  proposal = ops.popularity_proposal(counts, power=1.0)
  np.testing.assert_allclose(np.exp(proposal.log_share), counts / counts.sum(), rtol=0.01)
  # What is drawn is what the log probability says, to the last item: a count of tickets.
  tickets = np.diff(np.asarray(proposal.last_ticket, np.int64), prepend=0)
  share = tickets / tickets.sum()
  np.testing.assert_allclose(np.exp(proposal.log_share), share, rtol=3e-6)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.uniform_proposal(0), "num_items = 0"),
    (lambda: ops.popularity_proposal(np.zeros(3)), "not all 0"),
    (lambda: ops.popularity_proposal(np.array([1.0, -1.0])), "not negative"),
    (lambda: ops.popularity_proposal(np.array([1.0, np.nan])), "must be finite"),
  ],
)
def test_failures(call, message):
  with pytest.raises(ValueError, match=message):
    call()
