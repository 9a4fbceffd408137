"""Hand-made networks: plain functions and NumPy weights, whose every number can be recomputed."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.evaluate import Predictor

LAYERS = ("stem", "layer2", "layer10", "a")  # forward order, which is not the alphabetical one
SHAPE, CLASSES = (2, 3, 1), 4


def apply(params, x, *, key=None):
  """A linear network: every layer multiplies the one before it; "layer10" keeps an image axis."""
  acts, h = {}, jnp.reshape(x, (len(x), -1)) / 255
  for name in LAYERS:
    h = h @ params[name]
    acts[name] = h.reshape(len(h), 2, -1) if name == "layer10" else h
  return h, acts


def head(kernel, features):
  return features @ kernel


def make_weights(rng):
  """Weights of the layers and of the head; "layer2" has rank 3, "layer10" and "a" one shape."""
  widths = dict(zip(LAYERS, (5, 8, 6, 6), strict=True))
  params, wide = {}, np.prod(SHAPE)
  for name, width in widths.items():
    rank = 3 if name == "layer2" else min(wide, width)
    params[name] = (rng.normal(size=(wide, rank)) @ rng.normal(size=(rank, width))).astype("f4")
    wide = width
  return params, rng.normal(size=(wide, CLASSES)).astype("f4")


def make_source(rng, train=1100, test=70):
  """Random images and labels."""

  def split(n):
    images = rng.integers(0, 256, size=(n, *SHAPE), dtype=np.uint8)
    return {"x": images, "y": rng.integers(0, CLASSES, size=n, dtype=np.int32)}

  return SimpleNamespace(splits={"train": split(train), "test": split(test)})


def activations(predictor, x):
  """Every layer's matrix and the logits, in float64 NumPy."""
  found, h = {}, x.reshape(len(x), -1).astype(float) / 255
  for name in LAYERS:
    found[name] = h = h @ np.asarray(predictor.params[name], float)
  return found | {"logits": h @ np.asarray(predictor.head_params, float)}


@pytest.fixture
def network():
  """predictor, source, matrices(x) in float64, and the layers in forward order."""
  rng = np.random.default_rng(0)
  params, kernel = make_weights(rng)
  predictor = Predictor(apply, params, head, kernel, temperature=5.0)
  return SimpleNamespace(
    predictor=predictor,
    source=make_source(rng),
    matrices=lambda x: activations(predictor, x),
    layers=[*LAYERS, "logits"],
    apply=apply,
    head=head,
    weights=make_weights,
  )
