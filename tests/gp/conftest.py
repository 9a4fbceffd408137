"""Float64, and a toy problem: clusters of labelled points."""

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def rbf():
  """The kernel between two sets of points."""
  return lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2)


@pytest.fixture
def toy(rbf):
  """Twelve points in clusters on a circle: inputs, labels and a kernel for every class."""

  def make(classes=2):
    labels = np.arange(12) % classes
    angle = 2 * np.pi * labels / classes
    noise = np.random.default_rng(0).normal(size=(12, 2))
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * noise
    return x, labels, np.stack([rbf(x, x)] * classes)

  return make
