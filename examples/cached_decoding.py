"""Decodes with a key/value cache: one query a step, its temperature right at every step.

python examples/cached_decoding.py --steps=64

The inverse temperature of a query follows from the entropy of its own logits and from how many keys
it sees, so nothing of it has to be cached: the mask of the keys that are filled is enough. Every
step gives the row that causal attention over the whole sequence gives. One compiled program serves
all steps, because the cache has its full length from the start.
"""

import argparse
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rankbias.ops import adaptive_temperature_attention


class Cache(NamedTuple):
  """Keys and values [batch, capacity, heads, features], and how many of them are filled."""

  key: jax.Array
  value: jax.Array
  length: jax.Array

  @classmethod
  def empty(cls, batch, capacity, heads, features, dtype=jnp.float32):
    """Returns a cache without keys."""
    zeros = jnp.zeros((batch, capacity, heads, features), dtype)
    return cls(zeros, zeros, jnp.zeros((), jnp.int32))

  def append(self, key, value):
    """Returns the cache with one more key and value [batch, 1, heads, features]."""
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=self.length, axis=1)
    return Cache(put(self.key, key), put(self.value, value), self.length + 1)


def decode_step(cache, query, key, value):
  """Appends a key and a value and returns what the query [batch, 1, heads, features] reads.

  With one query "dense" holds no more numbers than the cache has keys.
  """
  cache = cache.append(key, value)
  filled = jnp.arange(cache.key.shape[1]) < cache.length
  out = adaptive_temperature_attention(
    query, cache.key, cache.value, mask=filled[None, None, None], implementation="dense"
  )
  return cache, out


@jax.jit
def decode(cache, queries, keys, values):
  """Returns the outputs of all steps; arrays are [batch, steps, heads, features]."""

  def step(cache, tokens):
    return decode_step(cache, *(x[:, None] for x in tokens))

  steps = tuple(jnp.moveaxis(x, 1, 0) for x in (queries, keys, values))
  _, out = jax.lax.scan(step, cache, steps)
  return jnp.moveaxis(out[:, :, 0], 0, 1)


def main(arguments=None):
  """Prints how far the steps are from causal attention over the whole sequence."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=64)
  flags = parser.parse_args(arguments)
  query, key, value = jax.random.normal(jax.random.key(0), (3, 2, flags.steps, 4, 16))
  cache = Cache.empty(2, flags.steps, 4, 16)
  steps = decode(cache, query, key, value)
  whole = adaptive_temperature_attention(query, key, value, is_causal=True)
  difference = float(jnp.max(jnp.abs(steps - whole)))
  print(f"{flags.steps} steps, at most {difference:.1e} from causal attention")
  return difference


if __name__ == "__main__":
  main()
