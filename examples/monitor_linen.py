"""Ranks of a Flax linen network's layers while it trains, without a change to the network.

python examples/monitor_linen.py --steps=300

`capture_intermediates` collects what every module returns, and the monitor takes it as it is; names
are paths, such as "conv1/__call__". On scikit-learn's digits. It takes about fifteen seconds.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

from rankbias.rank import RankMonitor

BATCH = 64
LAYERS = ["conv1/__call__", "conv2/__call__", "hidden/__call__", "head/__call__"]


class Network(nn.Module):
  """Two convolutions and two dense layers."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (3, 3), name="conv1")(x))
    x = nn.relu(nn.Conv(16, (3, 3), strides=2, name="conv2")(x)).reshape(len(x), -1)
    return nn.Dense(10, name="head")(nn.relu(nn.Dense(64, name="hidden")(x)))


def activations(variables, x):
  """Returns what every module returned, nested as the modules are."""
  captured = Network().apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
  return captured[1]["intermediates"]


def main(steps=300, seed=0):
  """Trains, prints the ranks of chosen layers and returns the rows."""
  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(seed).permutation(len(labels))
  x, y = images[order].reshape(-1, 8, 8, 1).astype(np.float32) / 16, labels[order]
  optimizer = optax.adam(1e-3)

  def loss(variables, x, y):
    logits = Network().apply(variables, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @jax.jit
  def step(variables, state, x, y):
    value, grads = jax.value_and_grad(loss)(variables, x, y)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(variables, updates), state, value

  variables = jax.jit(Network().init)(jax.random.key(seed), x[:1])
  state = optimizer.init(variables)
  monitor = RankMonitor(activations, jnp.asarray(x), layers=LAYERS, every=50)
  for i in range(steps + 1):
    monitor(i, variables)
    rows = np.arange(i * BATCH, (i + 1) * BATCH) % len(y)
    variables, state, value = step(variables, state, x[rows], y[rows])
  print(f"loss {value:.3f} after {steps} steps")
  print(monitor.table("effective_rank"))
  return monitor.rows()


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=300)
  main(parser.parse_args().steps)
