"""Spectra, ranks and norms of hand-made networks against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from rankbias import runs
from rankbias.evaluate import EVALUATIONS, Predictor, measure_layers, spectra
from rankbias.evaluate.spectra import TOLERANCES, columns, layer_names

TEMPERATURE = 5.0


def svdvals(matrix, center=False):
  return np.linalg.svd(matrix - center * matrix.mean(0), compute_uv=False)


def ranks(matrix):
  """Every rank measure by its definition: the centred spectrum for one, the raw for the others."""
  centered, s = svdvals(matrix, center=True), svdvals(matrix)
  p, squares = s / s.sum(), s**2
  energy = np.cumsum(squares) / squares.sum()
  return {
    "covariance_rank": np.sum(centered**2 > 1e-3 * centered[0] ** 2),
    "numerical_rank": np.sum(s > 1e-3 * s[0]),
    "effective_rank": np.exp(-np.sum(p * np.log(np.maximum(p, 1e-300)))),
    "rankme": np.exp(-np.sum((p + 1e-7) * np.log(p + 1e-7))),
    "stable_rank": squares.sum() / squares[0],
    "participation_ratio": squares.sum() ** 2 / np.sum(squares**2),
    "energy_rank": 1 + np.sum(energy < 0.99),
  }


def norms(logits):
  raw = {
    "mean_norm": np.mean(np.sqrt(np.sum(logits**2, axis=1))),
    "frobenius_norm": np.sqrt(np.sum(logits**2) / len(logits)),
    "spectral_norm": svdvals(logits)[0],
  }
  return raw | {f"tempered_{name}": value / TEMPERATURE for name, value in raw.items()}


def images(network, count=70):
  return tuple(network.source.splits["train"][name][:count] for name in ("x", "y"))


def check_ranks(found, matrix):
  for name, value in ranks(matrix).items():
    if name in found:
      np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_a_measurement_is_as_in_numpy(network):
  x, y = images(network)
  row = measure_layers(network.predictor, x, y)
  matrices = network.matrices(x)
  for layer in network.layers:
    found = {key.split(":")[1]: v for key, v in row.items() if key.startswith(f"{layer}:")}
    assert {"covariance_rank", "numerical_rank", "stable_rank"} <= set(found)
    check_ranks(found, matrices[layer].reshape(len(x), -1))
  for name, value in norms(matrices["logits"]).items():
    np.testing.assert_allclose(row[f"logits:{name}"], value, rtol=1e-5, err_msg=name)
  expected = svdvals(matrices["logits"])
  found = row["logits:singular_values"]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected[0])
  log_probs = log_softmax(matrices["logits"] / TEMPERATURE, axis=-1)
  np.testing.assert_allclose(row["loss"], -log_probs[np.arange(len(y)), y].mean(), rtol=1e-5)
  assert row["accuracy"] == pytest.approx(np.mean(matrices["logits"].argmax(-1) == y))


def test_covariance_rank_reads_the_centred_spectrum_and_the_others_the_raw_one():
  """One direction of variation around a far mean: 1 by covariance, 2 by singular values."""
  rng = np.random.default_rng(0)
  line = np.stack([rng.normal(size=50), np.full(50, 3.0), np.zeros(50)], axis=1)
  fixed = Predictor(lambda p, x: (x, {"line": x}), {}, lambda p, h: h, {})
  row = measure_layers(fixed, line.astype(np.float32), np.zeros(50, np.int32))
  assert (row["line:covariance_rank"], row["line:numerical_rank"]) == (1, 2)
  assert row["line:stable_rank"] > 1.01


def test_known_ranks_of_known_matrices(network):
  found = spectra(network.predictor, network.source)["ranks"]
  assert found["stem"]["numerical_rank"] == 5  # five features of six pixels
  assert found["layer2"]["numerical_rank"] == 3 == found["layer10"]["numerical_rank"]
  assert found["logits"]["covariance_rank"] <= 3


@pytest.mark.parametrize("count", [70, 1100, 5000])
def test_the_evaluation_covers_the_first_images_of_the_split(network, count):
  """More images than a batch, or than there are, and a last batch that is filled up."""
  x, _ = images(network, min(count, 1100))
  found = EVALUATIONS["spectra"](network.predictor, network.source, others={}, images=count)
  matrices = network.matrices(x)
  for layer in network.layers:
    matrix = matrices[layer].reshape(len(x), -1)
    top = svdvals(matrix)[0]
    kinds = {"spectrum": svdvals(matrix), "spectrum_centered": svdvals(matrix, center=True)}
    for kind, expected in kinds.items():
      np.testing.assert_allclose(found[kind][layer], expected, rtol=1e-5, atol=1e-6 * top)
    assert set(found["ranks"][layer]) == set(ranks(matrix))
    check_ranks(found["ranks"][layer], matrix)
  for name, value in norms(matrices["logits"]).items():
    assert found["norms"][name] == pytest.approx(value, rel=1e-5), name


def test_another_split(network):
  found = spectra(network.predictor, network.source, split="test")
  expected = svdvals(network.matrices(network.source.splits["test"]["x"])["stem"])
  np.testing.assert_allclose(found["spectrum"]["stem"], expected, rtol=1e-5)


def test_layers_keep_their_order(network):
  assert layer_names(network.predictor, images(network)[0]) == network.layers
  found = spectra(network.predictor, network.source, images=70)
  sweeps = found["tolerance"]["covariance_rank"], found["tolerance"]["numerical_rank"]
  for part in (found["ranks"], found["spectrum"], found["spectrum_centered"], *sweeps):
    assert list(part) == network.layers


def test_a_layer_measures_the_same_alone_as_among_others_of_its_shape():
  """Layers of one shape are stacked; here three of them, with the logits among them."""
  rng = np.random.default_rng(3)
  x = rng.normal(size=(40, 6)).astype(np.float32)
  params = {f"layer{i}": rng.normal(size=(6, 6)).astype(np.float32) ** 3 for i in (10, 9, 1)}

  def apply(params, x):
    acts = {name: x @ kernel for name, kernel in params.items()}
    return acts["layer9"], acts

  def measure(names):
    own = Predictor(apply, {n: params[n] for n in names}, lambda p, h: h @ p, params["layer1"])
    return measure_layers(own, x, np.zeros(40, np.int32))

  together = measure(["layer10", "layer9", "layer1"])
  for other in ("layer10", "layer1"):
    alone = measure([other, "layer9"])
    for key, value in alone.items():
      np.testing.assert_allclose(together[key], value, rtol=1e-6, err_msg=key)
  assert together["layer10:stable_rank"] != together["layer1:stable_rank"]


def test_wide_layers_are_represented_by_a_fixed_subset_of_features(network):
  kept = columns(1000, 30)
  np.testing.assert_array_equal(kept, columns(1000, 30))
  assert len(set(kept)) == 30 and (np.diff(kept) > 0).all() and kept.max() < 1000
  assert columns(30, 30) == slice(None)
  x, y = images(network)
  for found in (
    spectra(network.predictor, network.source, images=70, max_features=5),
    spectra(network.predictor, network.source, images=70, max_features=5),
  ):
    for layer, matrix in network.matrices(x).items():
      expected = svdvals(matrix[:, columns(matrix.shape[1], 5)])
      top = expected[0]
      np.testing.assert_allclose(found["spectrum"][layer], expected, rtol=1e-5, atol=1e-6 * top)
  row = measure_layers(network.predictor, x, y, max_features=5)
  check = np.float64(row["layer2:stable_rank"])
  assert check == pytest.approx(found["ranks"]["layer2"]["stable_rank"], rel=1e-5)


def test_the_tolerance_sweep_falls_with_the_tolerance_and_holds_the_usual_one(network):
  found = spectra(network.predictor, network.source)
  sweep = found["tolerance"]
  rtol = np.array(sweep["rtol"])
  assert (np.diff(rtol) < 0).all() and rtol[0] == pytest.approx(0.1) and rtol[-1] < 2e-6
  (usual,) = np.flatnonzero(np.isclose(rtol, 1e-3))
  for name in ("covariance_rank", "numerical_rank"):
    for layer in network.layers:
      counts = sweep[name][layer]
      assert len(counts) == len(TOLERANCES) and all(type(c) is int for c in counts)
      assert (np.diff(counts) >= 0).all() and counts[0] >= 1
      assert counts[usual] == found["ranks"][layer][name]
  spectrum = found["spectrum_centered"]["stem"]
  counts = [np.sum(spectrum**2 > r * spectrum[0] ** 2) for r in rtol]
  assert sweep["covariance_rank"]["stem"] == counts


def test_json_holds_the_result(network):
  found = spectra(network.predictor, network.source, images=70)
  arrays = {kind: found.pop(kind) for kind in ("spectrum", "spectrum_centered")}
  assert runs.plain(found) == found  # plain numbers already
  assert all(isinstance(s, np.ndarray) for part in arrays.values() for s in part.values())


def test_jitted_and_mapped_over_members(network):
  """As record.make_measure runs it: parameters and temperature of all members on a first axis."""
  x, y = images(network)
  members = []
  for seed, temperature in ((0, 1.0), (1, 10.0), (2, 100.0)):
    params, kernel = network.weights(np.random.default_rng(seed))
    members.append(Predictor(network.apply, params, network.head, kernel, np.float32(temperature)))

  def measure(numbers, x, y):
    params, kernel, temperature = numbers
    return measure_layers(Predictor(network.apply, params, network.head, kernel, temperature), x, y)

  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(m.numbers() for m in members))
  together = jax.jit(jax.vmap(measure, in_axes=(0, None, None)))(stacked, x, y)
  for i, member in enumerate(members):
    alone = measure_layers(member, x, y)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
      atol = 1e-6 * np.max(value)
      np.testing.assert_allclose(
        together[key][i], value, rtol=1e-4, atol=atol, err_msg=f"{key} {i}"
      )


def test_a_network_that_is_not_finite_measures_nan_and_not_a_low_rank(network):
  broken = network.predictor._replace(head_params=np.full((6, 4), np.nan, np.float32))
  row = measure_layers(broken, *images(network))
  assert np.isnan(row["logits:covariance_rank"]) and np.isnan(row["logits:stable_rank"])
  assert np.isfinite(row["a:covariance_rank"])
