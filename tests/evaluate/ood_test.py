"""Detection of foreign data: the numbers by hand, temperatures, collapsed features, refusals."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from rankbias import rank, runs
from rankbias.evaluate import EVALUATIONS, check_options, check_splits
from rankbias.evaluate.detection import detection
from rankbias.evaluate.detectors import DETECTORS
from rankbias.evaluate.ood import KNOWN, dimensions, ood

BOTH = {"msp", "energy", "gen", "kl_matching", "react", "vim", "odin"}


@pytest.fixture
def foreign(network):
  """The network of this room with 70 foreign images: dark ones."""
  images = network.source.splits["test"]["x"] // 3
  network.source.splits["ood_test"] = {"x": images, "y": np.zeros(70, np.int32)}
  kernel = network.predictor.head_params / 300
  network.predictor = network.predictor._replace(head_params=kernel, temperature=0.25)
  return network


def matrices(network, count=600):
  splits = network.source.splits
  found = [network.matrices(splits[s]["x"][:count]) for s in ("train", "test", "ood_test")]
  return [own | {"logits": own["logits"] / 300} for own in found]


def close(found, expected):
  return found == {k: pytest.approx(v, abs=2e-3) for k, v in expected.items()}


def test_numbers_are_those_of_numpy(foreign):
  found = ood(foreign.predictor, foreign.source, others={}, images=600)
  train, inside, outside = matrices(foreign)
  table = found["ood"]
  assert table.keys() == set(KNOWN) | {f"{name}_untempered" for name in BOTH}
  assert BOTH - {"odin"} == {name for name, d in DETECTORS.items() if d.scale_matters}
  z, foreign_z = inside["logits"], outside["logits"]
  assert close(table["max_logit"], detection(z.max(-1), foreign_z.max(-1)))
  for suffix, t in (("", 0.25), ("_untempered", 1)):
    energies = (logsumexp(v / t, axis=-1) for v in (z, foreign_z))
    assert close(table[f"energy{suffix}"], detection(*energies))
    odds = []
    for v in (z, foreign_z):
      v = np.sort(v / t, axis=-1)
      odds.append(v[:, -1] - logsumexp(v[:, :-1], axis=-1))
    assert close(table[f"msp{suffix}"], detection(*odds))
  assert table["msp"] != table["msp_untempered"]

  h = train["a"]
  axes = np.linalg.svd(h - h.mean(0))[2]
  ratios = [
    [np.linalg.norm(v @ axes[:d].T, axis=-1) / np.linalg.norm(v, axis=-1) for d in range(1, 4)]
    for v in (inside["a"], outside["a"])
  ]
  expected = [detection(a, b) for a, b in zip(*ratios, strict=True)]
  expected[2] = detection(np.ones(70), np.ones(70))  # "layer2" has rank 3, and nothing leaves it
  assert close(table["neco"], expected[2])  # of 4 classes
  sweep = found["neco_by_dimension"]
  assert sweep["rank"] == 3 and sweep["dimension"] == [1, 2, 3]
  used = {"neco": 3, "neco_standardized": 3, "neco_max_logit": 3, "vim": 2}
  assert found["ood_dimensions"] == used  # ViM's 3 of 6 are lowered to the rank less 1
  np.testing.assert_allclose(sweep["auroc"], [e["auroc"] for e in expected], atol=2e-3)
  assert sweep["classes_less_1"] == {"dimension": 3, "auroc": sweep["auroc"][2]}
  assert sweep["best"]["auroc"] == max(sweep["auroc"])

  y = foreign.source.splits["train"]["y"][:600]
  means = np.stack([h[y == c].mean(0) for c in range(4)])
  expected = rank.ortho_dev(means, outside["a"].mean(0))
  assert found["ortho_dev"] == pytest.approx(float(expected), rel=1e-4)
  assert runs.plain(found) == found


def test_odin_moves_bytes_by_a_part_of_white(foreign):
  """A linear network: the step is known."""
  found = ood(foreign.predictor, foreign.source, images=600, detectors=["odin"])["ood"]
  assert found.keys() == {"odin", "odin_untempered"}
  total = np.eye(6)
  for name in ("stem", "layer2", "layer10", "a"):
    total = total @ np.asarray(foreign.predictor.params[name], float)
  total = total @ np.asarray(foreign.predictor.head_params, float) / 255
  for name, t in (("odin", 250), ("odin_untempered", 1000)):
    scores = []
    for split in ("test", "ood_test"):
      x = foreign.source.splits[split]["x"].reshape(70, -1).astype(float)

      def log_p(x, total=total, t=t):
        z = np.sort(x @ total / t, -1)
        return z[:, -1] - logsumexp(z[:, :-1], -1)

      slope = np.stack([log_p(x + e) - log_p(x - e) for e in 1e-4 * np.eye(6)], -1)
      scores.append(log_p(x + 0.0014 * 255 * np.sign(slope)))
    assert close(found[name], detection(*scores)), name


def mixture(kernel, features, temperature=1.0):
  """Two softmaxes of one matrix, mixed 3 to 1."""
  z = features @ kernel / temperature
  parts = jax.nn.log_softmax(z) + np.log(0.75), jax.nn.log_softmax(-z / 3) + np.log(0.25)
  return jax.numpy.logaddexp(*parts)


def test_a_mixture_has_the_detectors_that_need_no_level(foreign):
  predictor = foreign.predictor._replace(head=mixture, log_head=mixture)
  found = ood(predictor, foreign.source, images=600)["ood"]
  gone = {"energy", "react", "vim", "neco_max_logit"}
  kept = set(KNOWN) - gone
  assert found.keys() == kept | {f"{name}_untempered" for name in BOTH - gone}
  for suffix, t in (("", 0.25), ("_untempered", 1.0)):
    odds = []
    for seen in matrices(foreign)[1:]:
      log_p = np.asarray(mixture(np.eye(4), seen["logits"], t), float)
      p = np.exp(log_p).max(-1)
      odds.append(np.log(p) - np.log1p(-p))
    assert close(found[f"msp{suffix}"], detection(*odds))
  with pytest.raises(ValueError, match="'energy' cannot be had of this network: its logits"):
    ood(predictor, foreign.source, images=600, detectors=["msp", "energy"])


def test_a_bent_head_has_no_vim(foreign):
  predictor = foreign.predictor._replace(head=lambda kernel, h: jax.numpy.tanh(h @ kernel))
  found = ood(predictor, foreign.source, images=600, detectors=["msp", "react"])["ood"]
  assert found.keys() == {"msp", "react", "msp_untempered", "react_untempered"}
  with pytest.raises(ValueError, match="'vim' cannot be had of this network: its head is not aff"):
    ood(predictor, foreign.source, images=600, detectors=["vim"])


def test_a_network_that_says_the_same_of_everything_is_a_coin(foreign):
  params = jax.tree.map(np.zeros_like, foreign.predictor.params)
  predictor = foreign.predictor._replace(params=params)
  found = ood(predictor, foreign.source, images=600)
  for name, measures in found["ood"].items():
    assert measures["auroc"] == 0.5 and measures["fpr95"] == 1, name
  sweep = found["neco_by_dimension"]
  assert sweep["dimension"] == [] and sweep["rank"] == 0
  assert sweep["best"] == {"dimension": None, "auroc": None}
  assert np.isnan(found["ortho_dev"])


def test_at_a_temperature_of_one_both_are_the_same(foreign):
  one = foreign.predictor._replace(temperature=1.0)
  found = ood(one, foreign.source, images=600)["ood"]
  tempered = ood(foreign.predictor, foreign.source, images=600)["ood"]
  assert found.keys() == tempered.keys()
  for name in BOTH:
    assert found[name] == found[f"{name}_untempered"]
    for measure, value in tempered[f"{name}_untempered"].items():
      assert found[name][measure] == pytest.approx(value, abs=2e-3), (name, measure)


def test_the_same_data_twice_cannot_be_told_apart(foreign):
  found = ood(foreign.predictor, foreign.source, images=600, ood_split="test")["ood"]
  assert {measures["auroc"] for measures in found.values()} == {0.5}


def test_dimensions_are_all_and_then_fewer():
  assert dimensions(3, 9) == [1, 2, 3] and dimensions(0, 9) == []
  many = dimensions(512, 99)
  assert many[:32] == list(range(1, 33)) and {99, 512} <= set(many) and len(many) < 70


def test_mistakes_name_the_argument(foreign):
  with pytest.raises(ValueError, match="detectors: 'mps' is unknown; use msp, max_logit"):
    ood(foreign.predictor, foreign.source, detectors=["mps"])
  with pytest.raises(ValueError, match=r"detectors='msp' must be a list of names"):
    ood(foreign.predictor, foreign.source, detectors="msp")
  del foreign.source.splits["ood_test"]
  with pytest.raises(ValueError, match="split='ood_test': the data have train, test"):
    ood(foreign.predictor, foreign.source)


def test_it_is_an_evaluation_of_configs_whose_data_have_others():
  assert EVALUATIONS["ood"] is ood
  check_options({"ood": {"detectors": ["msp", "odin"]}}, {"data.name": "digits"})
  with pytest.raises(ValueError, match="detectors: 'mps' is unknown"):
    check_options({"ood": {"detectors": ["mps"]}}, {"data.name": "digits"})
  with pytest.raises(ValueError, match="evaluate.ood needs data.name a set of images"):
    check_options({"ood": {}}, {"data.name": "ptb"})
  check_splits({"ood": {}}, ["train", "test", "ood_train", "ood_test"])
  with pytest.raises(ValueError, match="evaluate.ood.ood_split='ood_test': the data have train"):
    check_splits({"ood": {}}, ["train", "test"])
  with pytest.raises(ValueError, match="evaluate.ood.fit_split='ood_train': labels of data of ano"):
    check_splits({"ood": {"fit_split": "ood_train"}}, ["train", "test", "ood_train", "ood_test"])
