"""Collapse by layer of hand-made networks against measures of its matrices; a collapsed one."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import rank
from rankbias.evaluate import EVALUATIONS, Predictor
from rankbias.evaluate.spectra import columns

CLASSES = 4


@pytest.fixture
def source(network):
  """The data of the network, with classes and foreign images: more than a batch, and fewer."""
  rng = np.random.default_rng(1)
  foreign = {
    "x": rng.integers(0, 99, size=(600, 2, 3, 1), dtype=np.uint8),
    "y": np.zeros(600, "i4"),
  }
  splits = network.source.splits | {"ood_test": foreign}
  return SimpleNamespace(splits=splits, num_classes=CLASSES)


def collapse(predictor, source, **own):
  return EVALUATIONS["collapse"](predictor, source, others=None, **own)["collapse"]


def test_every_layer_as_by_hand(network, source):
  found = collapse(network.predictor, source, images=700)
  assert (found["split"], found["images"]) == ("train", 700)
  assert list(found["layers"]) == network.layers
  x, y = (source.splits["train"][name][:700] for name in ("x", "y"))
  matrices, foreign = network.matrices(x), network.matrices(source.splits["ood_test"]["x"])
  for layer in network.layers:
    matrix = matrices[layer].astype(np.float32)
    last = {"kernel": network.predictor.head_params} if layer == network.layers[-2] else {}
    expected = rank.neural_collapse(matrix, y, num_classes=CLASSES, **last)._asdict()
    expected = {name: value for name, value in expected.items() if value is not None}
    means = np.stack([matrices[layer][y == c].mean(0) for c in range(CLASSES)])
    expected["ortho_dev"] = rank.ortho_dev(means, foreign[layer].mean(0))
    own = found["layers"][layer]
    assert own.keys() == expected.keys()
    for name, value in expected.items():
      assert own[name] == pytest.approx(float(value), rel=5e-3, abs=1e-4), (layer, name)


def test_a_collapsed_network():
  labels = np.arange(60, dtype=np.int32) % CLASSES
  images = np.eye(CLASSES, dtype=np.float32)[labels]
  splits = {"train": {"x": images, "y": labels}}
  identity = np.eye(CLASSES, dtype=np.float32)

  def apply(params, x):
    return x @ params, {"raw": x, "last": x @ params}

  predictor = Predictor(apply, identity, lambda p, h: h @ p + 1, identity)
  found = collapse(predictor, SimpleNamespace(splits=splits, num_classes=CLASSES))["layers"]
  assert "ortho_dev" not in found["last"] and "nc3" not in found["raw"]
  for name, limit in {"nc1": 0, "nc2": 0, "cdnv": 0, "nc3": 0, "nc4": 1}.items():
    assert found["last"][name] == pytest.approx(limit, abs=1e-5)


def test_a_head_that_is_no_linear_map_has_no_measures_of_a_classifier(network, source):
  bent = network.predictor._replace(head=lambda p, h: jnp.tanh(h @ p))
  own = collapse(bent, source, images=100)["layers"][network.layers[-2]]
  assert "nc1" in own and "nc3" not in own and "nc4" not in own


def test_wide_layers_are_represented_by_the_usual_subset(network, source):
  found = collapse(network.predictor, source, images=200, max_features=5)["layers"]
  x, y = (source.splits["train"][name][:200] for name in ("x", "y"))
  matrix = network.matrices(x)["layer2"][:, columns(8, 5)].astype(np.float32)
  expected = rank.neural_collapse(matrix, y, num_classes=CLASSES)
  assert found["layer2"]["nc2"] == pytest.approx(float(expected.nc2), rel=1e-4)
  assert "nc3" not in found[network.layers[-2]]  # the kernel has all six rows


def test_missing_classes_and_other_labels(network, source):
  labels = np.minimum(source.splits["test"]["y"], 1)
  source.splits["test"] = source.splits["test"] | {"y": labels}
  with pytest.raises(ValueError, match=r"'test' has no image of 2 of 4 classes \(2, 3\) among its"):
    collapse(network.predictor, source, split="test")
  source.splits["test"] = source.splits["test"] | {"y": np.ones((70, 4), "f4")}
  with pytest.raises(ValueError, match="it needs one class an example"):
    collapse(network.predictor, source, split="test")
