"""CKA between networks: one batch is `rank.linear_cka`, several are the ratio of their means."""

import numpy as np
import pytest

from rankbias import rank
from rankbias.evaluate import COMPARISONS, check_options, check_splits


@pytest.fixture
def three(network):
  """Three networks of other weights, of which the second diverged."""
  rng = np.random.default_rng(5)
  params, kernel = network.weights(rng)
  other = network.predictor._replace(params=params, head_params=1e4 * kernel)
  return [network.predictor, None, other]


def matrices(network, predictor, x):
  h, found = x.reshape(len(x), -1) / 255, {}
  for name in network.layers[:-1]:
    found[name] = h = h @ np.float64(predictor.params[name])
  return found | {"logits": h @ np.float64(predictor.head_params)}


def cka(predictors, network, **own):
  return COMPARISONS["cka"](predictors, network.source, **own)


@pytest.mark.parametrize("debiased", [True, False])
def test_one_batch_is_linear_cka(network, three, debiased):
  found = cka(three, network, images=60, debiased=debiased)
  assert found["cka"] == {"split": "test", "images": 60, "batch": 60, "debiased": debiased}
  assert list(found["similarity"]) == network.layers
  x = network.source.splits["test"]["x"][:60]
  a, b = (matrices(network, p, x) for p in (three[0], three[2]))
  for layer, similarity in found["similarity"].items():
    expected = rank.linear_cka(np.float32(a[layer]), np.float32(b[layer]), debiased=debiased)
    assert similarity[0, 2] == pytest.approx(float(expected), abs=2e-5)
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_allclose(similarity[[0, 2], [0, 2]], 1, rtol=1e-6)
    assert np.isnan(similarity[1]).all() and np.isnan(similarity[:, 1]).all()


def u_statistic(k, l):
  """The unbiased estimate of Song et al. (equation 5), in float64."""
  k, l, n = k - np.diag(np.diag(k)), l - np.diag(np.diag(l)), len(k)
  cross = np.trace(k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2))
  return (cross - 2 / (n - 2) * k.sum(0) @ l.sum(0)) / (n * (n - 3))


def test_batches_are_averaged_before_they_are_divided(network, three):
  found = cka(three, network, images=64, batch=25, split="train")
  assert found["cka"] == {"split": "train", "images": 63, "batch": 21, "debiased": True}
  sums = {layer: np.zeros(3) for layer in network.layers}
  for start in (0, 21, 42):
    x = network.source.splits["train"]["x"][start : start + 21]
    both = [matrices(network, p, x) for p in (three[0], three[2])]
    for layer, total in sums.items():
      k, l = (m[layer] @ m[layer].T for m in both)
      total += [u_statistic(k, k), u_statistic(l, l), u_statistic(k, l)]
  for layer, (kk, ll, kl) in sums.items():
    assert found["similarity"][layer][0, 2] == pytest.approx(kl / np.sqrt(kk * ll), abs=2e-5)


def test_hsic_of_independent_inputs_has_no_bias():
  draws = np.random.default_rng(0).normal(size=(2, 300, 8, 5)).astype(np.float32)
  grams = draws @ draws.swapaxes(-1, -2)
  found = np.stack([rank.hsic(grams[:, i], debiased=True) for i in range(300)])
  assert abs(found[:, 0, 1].mean()) < 4 * found[:, 0, 1].std() / np.sqrt(300)
  biased = np.stack([rank.hsic(grams[:, i]) for i in range(300)])
  assert biased[:, 0, 1].mean() > 10 * biased[:, 0, 1].std() / np.sqrt(300)
  with pytest.raises(ValueError, match="debiased = True needs 4 inputs or more, not 3"):
    rank.hsic(grams[:, 0, :3, :3], debiased=True)


def test_dead_layers_and_no_network_at_all(network):
  dead = network.predictor._replace(head_params=np.zeros((6, 4), np.float32))
  found = cka([network.predictor, dead], network)["similarity"]
  assert np.isnan(found["logits"][0, 1]) and found["a"][0, 1] == pytest.approx(1, rel=1e-5)
  assert cka([None, None], network)["similarity"] == {}


def test_options_are_checked():
  check_options({"cka": {"debiased": False, "images": 100}}, {})
  with pytest.raises(ValueError, match="evaluate.cka.batch=3 must be at least 4"):
    check_options({"cka": {"batch": 3}}, {})
  with pytest.raises(ValueError, match=r"evaluate.cka.bach is unknown; use images, batch, debias"):
    check_options({"cka": {"bach": 3}}, {})
  with pytest.raises(ValueError, match="evaluate.cka.split='valid': the data have train, test"):
    check_splits({"cka": {"split": "valid"}}, ("train", "test"))
