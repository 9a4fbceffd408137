"""Distributions over items from which a sampled softmax draws, with one signature."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Real, UInt32

from rankbias.ops.midx import midx_log_probability, midx_sample
from rankbias.ops.midx_index import Key, MidxIndex
from rankbias.ops.rows import checked, float_dtype

RESOLUTION = 2.0**31  # a popularity is a number of this many tickets; the rest of 2^32 is slack


@runtime_checkable
class Proposal(Protocol):
  """A distribution q(item | query) that can be drawn from; those here are pytrees of arrays.

  Write another one as a NamedTuple with these two methods; it then passes through jit.
  """

  def sample(
    self, query: Real[ArrayLike, "*batch d"], key: Key, num_samples: int
  ) -> tuple[Int[Array, "*batch n"], Float[Array, "*batch n"]]:
    """Draws items for every query, with replacement; returns ids and log q(id | query)."""
    ...

  def log_probability(
    self, query: Real[ArrayLike, "*batch d"], ids: Integer[ArrayLike, "..."]
  ) -> Float[Array, "..."]:
    """Computes log q(id | query) for ids of shape [*batch] or [*batch, ...]; NaN for no item."""
    ...


class UniformProposal(NamedTuple):
  """Every item with probability 1 / num_items."""

  num_items: int | Int[Array, ""]

  def sample(self, query, key, num_samples):
    """Draws items for every query; returns ids and log probabilities."""
    shape = *jnp.shape(query)[:-1], num_samples
    ids = jax.random.randint(key, shape, 0, self.num_items)
    return ids, self.log_probability(query, ids)

  def log_probability(self, query, ids):
    """Computes -log num_items for every id."""
    ids = jnp.asarray(ids)
    dtype = jnp.promote_types(float_dtype(query), jnp.float32)
    known = (ids >= 0) & (ids < self.num_items)
    return jnp.where(known, -jnp.log(jnp.asarray(self.num_items, dtype)), jnp.nan)


class PopularityProposal(NamedTuple):
  """Every item by a share of tickets, whatever the query."""

  last_ticket: UInt32[Array, "items"]  # running sum of the tickets, exact as integers are
  log_share: Float[Array, "items"]

  def sample(self, query, key, num_samples):
    """Draws items for every query; returns ids and log probabilities."""
    shape = *jnp.shape(query)[:-1], num_samples
    ticket = jax.random.randint(key, shape, 0, self.last_ticket[-1], jnp.uint32)
    ids = jnp.searchsorted(self.last_ticket, ticket, side="right").astype(jnp.int32)
    return ids, self.log_share[ids]

  def log_probability(self, query, ids):
    """Computes the log of the share of every id."""
    ids = jnp.asarray(ids)
    known = (ids >= 0) & (ids < self.log_share.shape[0])
    return jnp.where(known, self.log_share[jnp.where(known, ids, 0)], jnp.nan)


class MidxProposal(NamedTuple):
  """Every item by the softmax of its quantised score."""

  index: MidxIndex

  def sample(self, query, key, num_samples):
    """Draws items for every query; returns ids and log probabilities."""
    return midx_sample(self.index, query, key, num_samples)

  def log_probability(self, query, ids):
    """Computes the log probability of every id given its query."""
    return midx_log_probability(self.index, query, ids)


def uniform_proposal(num_items: int) -> UniformProposal:
  """Makes the proposal that draws each of `num_items` items with the same probability.

  Raises:
    ValueError: num_items < 1.

  Example: uniform_proposal(10_000).
  Source: Bengio & Senecal 2008, "Adaptive importance sampling to accelerate training of a neural
  probabilistic language model".
  """
  return UniformProposal(checked("num_items", num_items, lambda n: n >= 1, "must be 1 or more."))


def popularity_proposal(
  counts: Real[ArrayLike, "items"], *, power: Real[ArrayLike, ""] = 0.75
) -> PopularityProposal:
  """Makes the proposal that draws item j with probability counts_j^power / sum_i counts_i^power.

  The probabilities are rounded to multiples of 2^-31, one at the least; the log probabilities are
  exactly those of the rounded ones, so that no error enters a corrected loss. A draw is a binary
  search. An item of count 0 is never drawn: a sampled loss then leaves out its mass unless it is
  the positive, so add 1 to counts that may be 0 by chance.

  Args:
    counts: how often every item occurs; non-negative, up to 2^30 items.
    power: 1 for the counts themselves, 0 for uniform over the items that occur.

  Raises:
    ValueError: counts are negative, not finite or all 0.

  Example: popularity_proposal([1, 0, 1]) draws items 0 and 2.
  Source: Mikolov et al. 2013, arXiv:1310.4546 (the power 3/4).
  """
  remedy = "must be finite, not negative and not all 0: pass how often every item occurs."
  checked("counts", counts, lambda c: ((c >= 0) & (c < jnp.inf)).all() & (c > 0).any(), remedy)
  return _popularity(jnp.asarray(counts), power)


@jax.jit
def _popularity(counts, power):
  dtype = jnp.promote_types(float_dtype(counts), jnp.float32)
  counts = counts.astype(dtype)
  occurs = counts > 0
  share = jnp.where(occurs, counts / jnp.max(counts), 1) ** jnp.asarray(power, dtype)
  share = jnp.where(occurs, share, 0)
  tickets = jnp.floor(share * (RESOLUTION / jnp.sum(share))).astype(jnp.uint32)
  tickets = jnp.where(occurs, jnp.maximum(tickets, 1), 0)
  last = jnp.cumsum(tickets, dtype=jnp.uint32)
  return PopularityProposal(last, jnp.log(tickets.astype(dtype)) - jnp.log(last[-1].astype(dtype)))


def midx_proposal(index: MidxIndex) -> MidxProposal:
  """Makes the proposal that draws from an inverted multi-index: nearly the softmax itself.

  Example: midx_proposal(midx_build(items, num_codewords=32, key=key)).
  Source: Chen et al. 2025, arXiv:2501.08563.
  """
  return MidxProposal(index)
