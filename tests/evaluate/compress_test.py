"""Smaller networks: factors against NumPy, networks that run them, and networks that end early."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rankbias.evaluate import EVALUATIONS, Predictor, check_options
from rankbias.evaluate.accuracy import split_accuracy
from rankbias.evaluate.compress import fraction_ranks, incoming_ranks, inputs_of_layers, shrink
from rankbias.evaluate.cut import cut_at, cut_probes, superfluous_after
from rankbias.evaluate.factors import factor_kernel, parameters, replace_kernels, saves
from rankbias.evaluate.linear_maps import LinearMap

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(12, 9)).astype(np.float32)
INPUTS = (RNG.normal(size=(200, 12)) * np.geomspace(1, 1e-3, 12)).astype(np.float32)


class Network(nn.Module):
  """Two convolutions, one with a stride and one without a bias, and two dense layers."""

  @nn.compact
  def __call__(self, x):
    acts = {}
    x = acts["conv1"] = nn.relu(nn.Conv(12, (3, 3), strides=2, padding=1, name="conv1")(x))
    x = acts["conv2"] = nn.relu(nn.Conv(16, (3, 3), use_bias=False, name="conv2")(x))
    x = nn.BatchNorm(use_running_average=True, name="norm")(x).mean((1, 2))
    x = acts["dense1"] = nn.relu(nn.Dense(24, name="dense1")(x))
    x = acts["dense2"] = nn.relu(nn.Dense(20, use_bias=False, name="dense2")(x))
    return x, acts


def apply(params, x, **options):
  return Network().apply(params, jnp.asarray(x, jnp.float32) / 255)


def head(params, features):
  return features @ params["kernel"] + params["bias"][None, :]


@pytest.fixture(scope="module")
def network():
  rng = np.random.default_rng(1)
  x = rng.integers(0, 256, size=(240, 8, 8, 2), dtype=np.uint8)
  params = jax.jit(Network().init)(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
  params = jax.tree.map(lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype("f4"), params)
  last = {"kernel": rng.normal(size=(20, 3)).astype("f4"), "bias": np.zeros(3, "f4")}
  logits = np.asarray(head(last, jax.jit(apply)(params, x)[0]))
  last["bias"] = -logits.mean(0)  # without it the network says one class alone
  predictor = Predictor(apply, params, head, last)
  y = np.argmax(logits + last["bias"], -1).astype(np.int32)
  assert np.bincount(y).min() > 40
  split = {"x": x, "y": y}
  source = SimpleNamespace(splits={"train": split, "test": split}, num_classes=3)
  return SimpleNamespace(predictor=predictor, source=source, x=x)


def product(factors):
  return np.asarray(factors.down, float).reshape(-1, factors.up.shape[0]) @ factors.up


@pytest.mark.parametrize("inputs", [None, INPUTS])
def test_a_full_rank_is_exact(inputs):
  np.testing.assert_allclose(product(factor_kernel(KERNEL, 9, inputs=inputs)), KERNEL, atol=2e-6)


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_weights_are_truncated_as_by_the_svd(rank):
  error = np.linalg.norm(product(factor_kernel(KERNEL, rank)) - KERNEL)
  values = np.linalg.svd(KERNEL, compute_uv=False)
  assert error == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_outputs_are_truncated_as_well_as_any_rank_allows(rank):
  """The error on real inputs is that of the SVD of the outputs, and less than that by weights."""
  error, by_weights = (
    np.linalg.norm(INPUTS @ (product(factor_kernel(KERNEL, rank, inputs=own)) - KERNEL))
    for own in (INPUTS, None)
  )
  values = np.linalg.svd(INPUTS.astype(float) @ KERNEL, compute_uv=False)
  assert error == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-3)
  assert error < 0.9 * by_weights


def test_a_convolution_is_factored_as_its_matrix():
  kernel = RNG.normal(size=(3, 3, 4, 10)).astype(np.float32)
  factors = factor_kernel(kernel, 5)
  assert factors.down.shape == (3, 3, 4, 5) and factors.up.shape == (5, 10)
  left, values, right = np.linalg.svd(kernel.reshape(36, 10), full_matrices=False)
  expected = (left[:, :5] * values[:5]) @ right[:5]
  np.testing.assert_allclose(product(factors), expected, atol=1e-5)


def test_factors_are_taken_where_they_are_smaller():
  assert saves((100, 100), 49) and not saves((100, 100), 50)
  assert saves((3, 3, 10, 90), 44) and not saves((3, 3, 10, 90), 45)


def multiplied(predictor, ranks, maps, method):
  """The predictor with each factorisation multiplied back into a kernel."""
  params = jax.tree.map(np.asarray, predictor.params)
  for layer, r in ranks.items():
    kernel = params["params"][layer]["kernel"]
    inputs = maps[layer].inputs if method == "activations" else None
    whole = product(factor_kernel(kernel, r, inputs=inputs)).reshape(kernel.shape)
    params["params"][layer]["kernel"] = whole.astype("f4")
  return predictor._replace(params=params)


@pytest.mark.parametrize("method", ["weights", "activations"])
def test_a_network_with_factors_says_what_the_truncated_kernels_say(network, method):
  maps = inputs_of_layers(network.predictor, network.source, 64, 500)
  assert list(maps) == ["conv1", "conv2", "dense1", "dense2"]
  ranks = {"conv1": 4, "conv2": 5, "dense1": 6, "dense2": 7}
  small, kept = shrink(network.predictor, maps, ranks, method)
  assert kept == ranks
  expected = multiplied(network.predictor, ranks, maps, method)
  found = jax.jit(small.apply)(small.params, network.x)[1]
  wanted = jax.jit(apply)(expected.params, network.x)[1]
  for layer in ranks:
    np.testing.assert_allclose(found[layer], wanted[layer], atol=2e-5, err_msg=layer)
  assert parameters(small.params["params"]["conv2"]) == 5 * (9 * 12 + 16)
  assert parameters(small.params["params"]["dense1"]) == 6 * (16 + 24) + 24


def test_it_runs_the_factors_and_not_their_product(network):
  maps = inputs_of_layers(network.predictor, network.source, 64, 500)
  small, _ = shrink(network.predictor, maps, {"conv2": 1, "dense1": 1, "dense2": 1}, "weights")
  flops = [
    jax.jit(p.apply).lower(p.params, network.x).compile().cost_analysis()["flops"]
    for p in (network.predictor, small)
  ]
  assert flops[1] < 0.5 * flops[0]


def test_ranks_of_incoming_activations_count_the_mean_once_more():
  line = np.stack([np.linspace(-1, 1, 50), np.ones(50), np.zeros(50)], 1).astype("f4")
  maps = {"a": LinearMap(np.zeros((3, 8), "f4"), line)}
  assert incoming_ranks(maps, 1e-3) == {"a": 2}
  assert fraction_ranks(maps, 0.5) == {"a": 2} and fraction_ranks(maps, 0.01) == {"a": 1}


def test_every_row_of_the_curve_is_the_network_with_these_ranks(network):
  own = {"rtols": [1e-1, 1e-5], "fractions": [0.2], "images": 64, "max_rows": 500}
  found = EVALUATIONS["compress"](network.predictor, network.source, **own)["compression"]
  assert found["accuracy"] == 1.0 and found["superfluous_after"] is None and found["cuts"] == {}
  whole = parameters(network.predictor.params["params"]) + 63
  assert found["parameters"] == whole
  assert [row.get("rtol") for row in found["curve"]] == [1e-1, 1e-1, 1e-5, 1e-5, None, None]
  assert [row["method"] for row in found["curve"]] == ["activations", "weights"] * 3
  maps = inputs_of_layers(network.predictor, network.source, 64, 500)
  kernels = {"conv1": (18, 12), "conv2": (108, 16), "dense1": (16, 24), "dense2": (24, 20)}
  for row in found["curve"]:
    ranks = incoming_ranks(maps, row["rtol"]) if "rtol" in row else fraction_ranks(maps, 0.2)
    less = {k: d * m - ranks[k] * (d + m) for k, (d, m) in kernels.items()}
    assert row["ranks"] == {k: ranks[k] for k, saved in less.items() if saved > 0}
    assert row["parameters"] == whole - sum(less[k] for k in row["ranks"])
    assert row["saved"] == 1 - row["parameters"] / whole
    expected = multiplied(network.predictor, row["ranks"], maps, row["method"])
    expected = split_accuracy(expected, network.source.splits["test"])
    assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert row["accuracy"] == pytest.approx(expected["accuracy"], abs=1.5 / 240)  # rounding
  by_outputs, by_weights, *fine = found["curve"][:4]
  assert by_outputs["accuracy"] > by_weights["accuracy"] + 0.2 > 0.4
  assert all(row["ranks"] == {} and row["loss"] == found["loss"] for row in fine)


def test_a_cut_network_is_the_probe_on_its_layer(network):
  probes = cut_probes(network.predictor, network.source, ["conv2"])
  small = cut_at(network.predictor, network.source, "conv2", probes["conv2"])
  act = jax.jit(apply)(network.predictor.params, network.x)[1]["conv2"]
  wanted = probes["conv2"](act.reshape(len(act), -1))
  features = jax.jit(small.apply)(small.params, network.x)[0]
  np.testing.assert_allclose(small.head(small.head_params, features), wanted, atol=1e-4)
  own = network.predictor.params["params"]
  assert parameters(small.params["params"]) == parameters(own["conv1"], own["conv2"])
  assert small.params["other"] == {}
  right = split_accuracy(small, network.source.splits["test"])["accuracy"]
  assert right == pytest.approx(np.mean(np.argmax(wanted, 1) == network.source.splits["test"]["y"]))


@pytest.mark.slow
def test_every_layer_can_be_cut_at(network):
  own = {"rtols": [], "cuts": True, "tolerance": 0.02}
  found = EVALUATIONS["compress"](network.predictor, network.source, **own)["compression"]
  probe = {"conv1": 16 * 12 + 1, "conv2": 16 * 16 + 1, "dense1": 24 + 1, "dense2": 20 + 1}
  layers = {
    "conv1": 18 * 12 + 12,
    "conv2": 108 * 16,
    "dense1": 32 + 16 * 24 + 24,
    "dense2": 24 * 20,
  }
  needed = np.cumsum(list(layers.values()))  # the norm, 32, stands before the first dense layer
  acts = jax.jit(apply)(network.predictor.params, network.x)[1]
  probes = cut_probes(network.predictor, network.source)
  assert list(found["cuts"]) == list(layers)
  for (layer, row), before in zip(found["cuts"].items(), needed, strict=True):
    assert row["parameters"] == before + 3 * probe[layer]
    assert row["saved"] == 1 - row["parameters"] / found["parameters"]
    right = np.asarray(probes[layer](acts[layer].reshape(240, -1))).argmax(1)
    right = np.mean(right == network.source.splits["test"]["y"])
    assert row["accuracy"] == pytest.approx(right, abs=1.5 / 240)  # rounding, at most
  chosen = superfluous_after(network.predictor, network.source, 0.02)
  assert found["superfluous_after"] == chosen | found["cuts"][chosen["layer"]]


@pytest.mark.parametrize("rank", [0, 10])
def test_a_rank_that_the_kernel_does_not_have(rank):
  with pytest.raises(ValueError, match=rf"rank = {rank} of a kernel that is 12 x 9.*1 to 9"):
    factor_kernel(KERNEL, rank)


def test_failures(network):
  maps = inputs_of_layers(network.predictor, network.source, 8, 100)
  with pytest.raises(ValueError, match="'dense9' cannot be factored.*conv1, conv2, dense1, dense2"):
    shrink(network.predictor, maps, {"dense9": 2}, "weights")
  with pytest.raises(ValueError, match="rank = 99 of a kernel that is 16 x 24"):
    shrink(network.predictor, maps, {"dense1": 99}, "weights")
  with pytest.raises(ValueError, match="'dens' has no kernel; those with one: conv1"):
    replace_kernels(network.predictor.params["params"], {"dens": factor_kernel(KERNEL, 2)})
  with pytest.raises(ValueError, match=r"inputs of shape \(200, 12\) do not enter .* 9 x 12"):
    factor_kernel(KERNEL.T, 2, inputs=INPUTS)
  with pytest.raises(ValueError, match="layer 'pool' does not exist; the network has conv1"):
    cut_probes(network.predictor, network.source, ["pool"])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"methods": ["svd"]}, "methods: 'svd' is unknown; use activations or weights"),
    ({"rtols": [0.0]}, "rtols: 0.0 must lie between 0 and 1"),
    ({"fractions": [2]}, "fractions: 2 must lie between 0 and 1"),
    ({"tolerance": 1.0}, r"compress.tolerance=1.0 must lie in \[0, 1\), a share of right answers"),
  ],
)
def test_options_are_refused_before_training(options, message):
  with pytest.raises(ValueError, match=message):
    check_options({"compress": options}, {"data.name": "digits"})
