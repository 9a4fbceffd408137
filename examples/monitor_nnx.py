"""Ranks of a Flax nnx network's layers while it trains: modules hold state, the monitor is pure.

python examples/monitor_nnx.py --steps=300

A compiled program takes arrays, so `nnx.split` takes the module apart and `nnx.merge` puts it
together again inside. On scikit-learn's digits. It takes about ten seconds.
"""

import argparse

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from rankbias.rank import RankMonitor

BATCH = 64


class Network(nnx.Module):
  """Three hidden layers, whose activations are returned beside the logits."""

  def __init__(self, rngs):
    self.first = nnx.Linear(64, 96, rngs=rngs)
    self.second = nnx.Linear(96, 96, rngs=rngs)
    self.third = nnx.Linear(96, 96, rngs=rngs)
    self.head = nnx.Linear(96, 10, rngs=rngs)

  def __call__(self, x):
    acts = {}
    for name in ("first", "second", "third"):
      x = acts[name] = nnx.relu(getattr(self, name)(x))
    return self.head(x), acts


def main(steps=300, seed=0):
  """Trains, prints the ranks of every hidden layer and returns the rows."""
  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(seed).permutation(len(labels))
  x, y = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
  optimizer = optax.adam(1e-3)
  structure, params = nnx.split(Network(nnx.Rngs(seed)))

  def activations(params, x):
    return nnx.merge(structure, params)(x)[1]

  def loss(params, x, y):
    logits = nnx.merge(structure, params)(x)[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @nnx.jit
  def step(params, state, x, y):
    value, grads = nnx.value_and_grad(loss)(params, x, y)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  state = optimizer.init(params)
  monitor = RankMonitor(activations, x, every=50)
  for i in range(steps + 1):
    monitor(i, params)
    rows = np.arange(i * BATCH, (i + 1) * BATCH) % len(y)
    params, state, value = step(params, state, x[rows], y[rows])
  print(f"loss {value:.3f} after {steps} steps")
  print(monitor.table("covariance_rank"))
  return monitor.rows()


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=300)
  main(parser.parse_args().steps)
