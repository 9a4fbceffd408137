"""How sharp are the heads of a model? Spread, entropy and largest weight of rows of logits."""

import jax
import jax.numpy as jnp

from rankbias import ops
from rankbias.ops.rows import masked_logits, row_count, row_maximum


@jax.jit
def row_sharpness(logits, where=None) -> dict[str, jax.Array]:
  """Measures every row of attention logits [..., heads, queries, keys].

  Args:
    logits: what enters the softmax: scaled, and with any bias added.
    where: True where a query may attend, broadcast against logits; -inf is a mask too.

  A logit of NaN or +inf that a query may attend to makes all numbers of this query NaN but "keys",
  and no other query's; means over it are then NaN too.

  Returns:
    {name: [..., heads, queries]}, 0 for a query without any key:
    "keys" n, the number of keys that it may attend to;
    "spread" delta = max z - min z over them;
    "entropy" H of the weights, and "effective_keys" e^H, between 1 and n;
    "max_weight" max p;
    "weight_lower", "weight_upper", "entropy_lower": what n and delta allow: every weight lies
    between the first two and H above the last (`ops.weight_bounds`, `ops.entropy_bound`).

  Example: row_sharpness(jnp.zeros((1, 1, 4)))["effective_keys"] is [[4.]].
  Source: Velickovic et al. 2024, arXiv:2410.01104, which reports spread and entropy of Gemma.
  """
  z = masked_logits(jnp.asarray(logits), None, where)
  mass = z != -jnp.inf
  count = row_count(mass, -1, z.dtype)[..., 0]
  top = row_maximum(z, -1)
  # The distance to the top is 0 where there is no mass, so an empty row has spread 0.
  spread = jnp.max(jnp.where(mass, top - z, 0), -1, initial=0)
  entropy = ops.entropy(z)
  lower, upper = ops.weight_bounds(count, spread)
  found = {
    "keys": count,
    "spread": spread,
    "entropy": entropy,
    "effective_keys": jnp.exp(entropy),
    "max_weight": jnp.max(ops.softmax(z), -1, initial=0),
    "weight_lower": lower,
    "weight_upper": upper,
    "entropy_lower": ops.entropy_bound(count, spread),
  }
  attends = jnp.any(mass, -1)
  return {name: jnp.where(attends, value, 0) for name, value in found.items()}


def sharpness(logits, where=None) -> dict[str, dict[str, jax.Array]]:
  """Summarises `row_sharpness` over the queries of every head, which have some key to attend to.

  Returns:
    {name: {"mean", "min", "max": [..., heads]}} for the names of `row_sharpness`; 0 for a head
    none of whose queries has a key.

  Raises:
    ValueError: logits have fewer than three axes.

  Example: sharpness(logits, where=jnp.tri(length, dtype=bool))["spread"]["mean"] of causal heads.
  Source: Velickovic et al. 2024, arXiv:2410.01104, which reports spread and entropy of Gemma.
  """
  _check_axes(logits)
  rows = row_sharpness(logits, where)
  attends = rows["keys"] > 0
  return {name: _summary(value, attends) for name, value in rows.items()}


def sharpness_against_count(logits, where=None) -> dict[str, jax.Array]:
  """Averages `row_sharpness` over all queries with the same number of keys: one curve a head.

  A causal head has them all, from 1 to its length; leading axes (layers excepted: map over those)
  are averaged over.

  Returns:
    "keys": 1, ..., number of keys. "rows" [heads, keys]: how many queries have that many keys; the
    means of the other names of `row_sharpness` are 0 where there is none.

  Raises:
    ValueError: logits have fewer than three axes.

  Example: curves = sharpness_against_count(logits, where=jnp.tri(length, dtype=bool));
    plot(curves["keys"], curves["entropy"][head]).
  """
  _check_axes(logits)
  rows = row_sharpness(logits, where)
  keys, heads = jnp.shape(logits)[-1], jnp.shape(logits)[-3]
  place = rows.pop("keys").astype(jnp.int32)
  flat = {name: _a_head(value, heads) for name, value in {"place": place, **rows}.items()}
  place = flat.pop("place")

  def total(value):
    return jax.vmap(lambda v, p: jax.ops.segment_sum(v, p, keys + 1)[1:])(value, place)

  number = total(jnp.ones_like(place))
  means = {name: total(value) / jnp.maximum(number, 1) for name, value in flat.items()}
  return {"keys": jnp.arange(1, keys + 1), "rows": number, **means}


def _check_axes(logits):
  if jnp.ndim(logits) < 3:
    raise ValueError(
      f"logits of shape {jnp.shape(logits)} must be [..., heads, queries, keys]; "
      "give one head, or one query, an axis of size 1."
    )


def _a_head(value, heads):
  """Turns [..., heads, queries] into [heads, rows]."""
  return jnp.moveaxis(value, -2, 0).reshape(heads, -1)


def _summary(value, holds):
  """Mean, least and largest of the last axis where `holds`; 0 where it never does."""
  some = jnp.any(holds, -1)
  least = jnp.min(value, -1, initial=jnp.inf, where=holds)
  largest = jnp.max(value, -1, initial=-jnp.inf, where=holds)
  mean = jnp.sum(value, -1, where=holds) / jnp.maximum(jnp.sum(holds, -1), 1)
  return {"mean": mean, "min": jnp.where(some, least, 0), "max": jnp.where(some, largest, 0)}
