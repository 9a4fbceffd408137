"""Somebody else's training step, in jax and optax, with the softmax of attention and loss swapped.

python examples/third_party_training.py --steps=100

Every item of a set has a symbol and a priority; the symbol of the highest priority is the class. A
learned query attends over the items: it is trained on sets of 16 and tested on 16 and on 128, where
many more items come close to the highest. After 100 steps every map is right on about nine in ten
of the short sets and five to seven in ten of the long ones; which is best depends on the seed. It
takes about ten seconds.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import optax

import rankbias.ops as ops

SYMBOLS, WIDTH, HEADS, SHORT, LONG, BATCH = 8, 32, 2, 16, 128, 128

# What is swapped: the map that attention uses, and the loss over the classes.
VARIANTS = {
  "softmax": (ops.softmax, ops.cross_entropy),
  "softmax at T = 1/2": (
    partial(ops.softmax, temperature=0.5),
    partial(ops.cross_entropy, temperature=0.5),
  ),
  "adaptive temperature": (ops.adaptive_temperature_softmax, ops.cross_entropy),
  "sparsemax": (ops.sparsemax, ops.fenchel_young_loss(ops.sparsemax)),
}


@partial(jax.jit, static_argnames=("size", "length"))
def examples(key, size, length):
  """Returns random symbols, their priorities, and the symbol of the highest priority."""
  for_symbols, for_priorities = jax.random.split(key)
  symbols = jax.random.randint(for_symbols, (size, length), 0, SYMBOLS)
  priorities = jax.random.uniform(for_priorities, (size, length))
  labels = jnp.take_along_axis(symbols, priorities.argmax(1, keepdims=True), 1)[:, 0]
  return symbols, priorities, labels


@jax.jit
def initialize(key):
  """Returns the parameters of one attention layer between an embedding and a linear head."""
  shapes = {
    "symbol": (SYMBOLS, WIDTH),
    "priority": (1, WIDTH),
    "query": (1, WIDTH),
    "key": (WIDTH, WIDTH),
    "value": (WIDTH, WIDTH),
    "head": (WIDTH, SYMBOLS),
  }
  keys = jax.random.split(key, len(shapes))
  normal = jax.nn.initializers.normal(WIDTH**-0.5)
  return {name: normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


def apply(params, symbols, priorities, normalizer):
  """Returns the logits of the classes."""
  x = params["symbol"][symbols] + priorities[..., None] * params["priority"][None]
  heads = (HEADS, WIDTH // HEADS)
  query = jnp.broadcast_to(params["query"].reshape(1, 1, *heads), (len(x), 1, *heads))
  keys, values = ((x @ params[name]).reshape(*x.shape[:2], *heads) for name in ("key", "value"))
  out = ops.dot_product_attention(query, keys, values, normalizer=normalizer)
  return out.reshape(len(x), WIDTH) @ params["head"]


def train(normalizer, loss, steps, seed=0):
  """Returns the first and last training loss and the accuracy on short and long sets."""
  for_init, for_training, for_short, for_long = jax.random.split(jax.random.key(seed), 4)
  data = examples(for_training, steps * BATCH, SHORT)
  batches = [x.reshape(steps, BATCH, *x.shape[1:]) for x in data]
  tests = [examples(key, 2048, n) for key, n in ((for_short, SHORT), (for_long, LONG))]
  adam = optax.adam(0.03)

  def objective(params, symbols, priorities, labels):
    return loss(apply(params, symbols, priorities, normalizer), labels).mean()

  def step(carry, batch):
    params, state = carry
    value, grads = jax.value_and_grad(objective)(params, *batch)
    updates, state = adam.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  def accuracy(params, symbols, priorities, labels):
    return jnp.mean(apply(params, symbols, priorities, normalizer).argmax(-1) == labels)

  @jax.jit
  def run(params, batches, tests):
    (params, _), losses = jax.lax.scan(step, (params, adam.init(params)), batches)
    return losses[0], losses[-1], *(accuracy(params, *test) for test in tests)

  names = ("first_loss", "last_loss", "accuracy", "accuracy_long")
  return dict(zip(names, map(float, run(initialize(for_init), batches, tests)), strict=True))


def main(steps=100):
  """Trains every variant, prints a line for each and returns {variant: {name: number}}."""
  results = {}
  print(f"{'attention and loss':22} first loss  last loss  right at {SHORT}  right at {LONG}")
  for name, (normalizer, loss) in VARIANTS.items():
    results[name] = r = train(normalizer, loss, steps)
    print(
      f"{name:22} {r['first_loss']:10.3f} {r['last_loss']:10.3f}"
      f" {r['accuracy']:12.1%} {r['accuracy_long']:14.1%}"
    )
  return results


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=100)
  main(parser.parse_args().steps)
