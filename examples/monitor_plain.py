"""Ranks of every layer while a network of plain functions trains: temperature 1 against 100.

python examples/monitor_plain.py --steps=600

The network, the loss and the loop are somebody's own, in jax and optax. Three lines are added: the
monitor is made, called at every step and printed. On scikit-learn's digits the deeper layers end
in fewer dimensions at T = 100 than at T = 1. It takes about ten seconds.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from rankbias.rank import RankMonitor

WIDTH, DEPTH, BATCH = 64, 6, 128


def initialize(key):
  """Returns the kernels of a network without biases."""
  sizes = [64, *[WIDTH] * (DEPTH - 1), 10]
  keys = jax.random.split(key, DEPTH)
  return [
    jax.random.normal(k, (m, n)) * np.sqrt(2 / m)
    for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
  ]


def activations(params, x):
  """Returns {layer: activation} in forward order."""
  acts = {}
  for i, kernel in enumerate(params[:-1], 1):
    x = acts[f"layer{i}"] = jax.nn.relu(x @ kernel)
  return acts | {"logits": x @ params[-1]}


def train(temperature, steps, seed=0):
  """Trains with the softmax at a temperature; returns the monitor and the training accuracy."""
  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(seed).permutation(len(labels))
  x, y = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
  # The learning rate that fits a temperature in a network of so many linear layers.
  optimizer = optax.sgd(0.02 * temperature ** (2 / DEPTH), momentum=0.9)

  def loss(params, x, y):
    logits = activations(params, x)["logits"] / temperature
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  @jax.jit
  def step(params, state, x, y):
    updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
    return optax.apply_updates(params, updates), state

  params = initialize(jax.random.key(seed))
  state = optimizer.init(params)
  monitor = RankMonitor(activations, x, every=100)
  for i in range(steps + 1):
    monitor(i, params)
    rows = np.arange(i * BATCH, (i + 1) * BATCH) % len(y)
    params, state = step(params, state, x[rows], y[rows])
  return monitor, float(jnp.mean(activations(params, x)["logits"].argmax(-1) == y))


def main(steps=600):
  """Trains at both temperatures, prints their tables and returns {temperature: rows}."""
  found = {}
  for temperature in (1.0, 100.0):
    monitor, accuracy = train(temperature, steps)
    print(f"T = {temperature:g}, right on {accuracy:.1%} of the training images")
    print(monitor.table("covariance_rank"))
    found[temperature] = monitor.rows()
  return found


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=600)
  main(parser.parse_args().steps)
