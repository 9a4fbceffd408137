"""Calibration: values of public code, bins and their edges, and the evaluation in NumPy."""

import pathlib
from functools import partial

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from rankbias import runs
from rankbias.evaluate import EVALUATIONS, check_options, check_splits
from rankbias.evaluate.calibration import calibration, ece, reliability
from rankbias.evaluate.temperature_scaling import fit_temperature

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/calibration.npz")


@pytest.mark.parametrize("bins", [10, 15])
def test_public_code_finds_the_same(bins):
  p, labels = softmax(GOLDEN["data/logits"], axis=-1), GOLDEN["data/labels"]
  for norm in ("l1", "l2", "max"):
    expected = GOLDEN[f"torchmetrics/{norm}_bins{bins}/f64/value"]
    assert ece(p, labels, bins=bins, norm=norm) == pytest.approx(float(expected), abs=1e-6)
  expected = GOLDEN[f"ece_gpleiss_bins{bins}/f64/ece"]
  assert ece(p, labels, bins=bins) == pytest.approx(float(expected[0]), abs=1e-6)


def test_confidences_on_edges_stay_below_them_in_both_precisions():
  """Public code with these bins reads logits: it finds 0.2167 and, in float32, 0.35."""
  p, labels = GOLDEN["edges/probs"], GOLDEN["edges/labels"]
  expected = float(GOLDEN["edges/ece_gpleiss_bins10_from_logp"][0])
  for wide in (False, True):
    with jax.enable_x64(wide):
      assert ece(p, labels, bins=10) == pytest.approx(expected, abs=1e-6)
  edge = np.array([[k / 10, 1 - k / 10] for k in (6, 7, 8, 9, 10)])
  table = reliability(edge, np.zeros(5, int), bins=10)
  assert table.count.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


@partial(jax.jit, static_argnums=(2, 3))
def measured(p, labels, bins, equal):
  errors = {n: ece(p, labels, bins=bins, equal=equal, norm=n) for n in ("l1", "l2", "max")}
  return reliability(p, labels, bins=bins, equal=equal), errors


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("equal", ["width", "mass"])
def test_bins_are_those_of_a_loop(bins, equal):
  rng = np.random.default_rng(bins)
  p = softmax(3 * rng.normal(size=(101, 4)), axis=-1).astype("f4")
  labels = rng.integers(0, 4, 101)
  confidence, right = p.max(-1), p.argmax(-1) == labels
  if equal == "width":
    edges = [np.float32(k / bins) for k in range(bins + 1)]
  else:
    ordered = np.sort(confidence)
    edges = [0, *(ordered[-(-k * 101 // bins) - 1] for k in range(1, bins)), 1]
  table, found = measured(p, labels, bins, equal)
  gaps = []
  for k in range(bins):
    held = (confidence > edges[k]) & (confidence <= edges[k + 1])
    assert table.count[k] == held.sum()
    gaps.append(0.0)
    if held.any():
      assert table.confidence[k] == pytest.approx(confidence[held].mean(), rel=1e-5)
      assert table.accuracy[k] == pytest.approx(right[held].mean(), rel=1e-5)
      gaps[-1] = abs(confidence[held].mean() - right[held].mean())
  weights = np.asarray(table.count) / 101
  assert found["l1"] == pytest.approx(np.sum(weights * gaps), abs=1e-6)
  assert found["l2"] == pytest.approx(np.sqrt(np.sum(weights * np.square(gaps))), abs=1e-6)
  assert found["max"] == pytest.approx(max(gaps), abs=1e-6)
  if equal == "mass":
    assert set(np.asarray(table.count)) <= {101 // bins, -(-101 // bins)}


def test_equal_confidences_share_a_bin_and_sure_ones_have_the_last():
  p = np.tile([1.0, 0.0], (8, 1))
  for equal in ("width", "mass"):
    table = reliability(p, np.array([0] * 6 + [1] * 2), bins=4, equal=equal)
    assert sorted(table.count.tolist()) == [0, 0, 0, 8]
    assert np.isfinite(table.accuracy).all()
    assert ece(p, np.array([0] * 6 + [1] * 2), bins=4, equal=equal) == 0.25


def test_what_is_calibrated_has_no_error():
  p = np.tile([0.75, 0.25], (8, 1))
  assert ece(p, np.array([0, 0, 0, 1] * 2)) == 0
  assert jax.jit(ece)(p, np.array([0, 0, 1, 1] * 2)) == 0.25


@pytest.fixture
def sure(network):
  """The network of this room at a temperature at which it is right less often than it says."""
  rng = np.random.default_rng(3)
  for split in network.source.splits.values():
    logits = network.matrices(split["x"])["logits"] / 1000
    drawn = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    split["y"] = drawn.astype(np.int32)
  network.predictor = network.predictor._replace(temperature=400.0)
  return network


def expected_numbers(network, fit, measured):
  """Of arrays of images and labels, in float64."""
  log_p = [log_softmax(network.matrices(s["x"])["logits"] / 400, axis=-1) for s in (fit, measured)]
  t = float(fit_temperature(log_p[0], fit["y"]).temperature)
  rows = np.arange(len(measured["y"]))
  found = {"t": t}
  for name, scale in (("before", 1), ("after", t)):
    after = log_softmax(log_p[1] / scale, axis=-1)
    found[name] = -after[rows, measured["y"]].mean(), float(ece(np.exp(after), measured["y"]))
  return found


def halves(split):
  return [{k: v[start::2] for k, v in split.items()} for start in (0, 1)]


def test_half_of_the_split_is_fitted_and_the_other_measured(sure):
  found = calibration(sure.predictor, sure.source, others={}, split="train", images=900)
  chosen = {k: v[:900] for k, v in sure.source.splits["train"].items()}
  expected = expected_numbers(sure, *halves(chosen))
  (name,), (found,) = found.keys(), found.values()
  assert name == "calibration" and found["fitted_on"] == "half of train" and found["converged"]
  assert (found["fit_images"], found["images"]) == (450, 450)
  assert found["relative_temperature"] == pytest.approx(expected["t"], rel=1e-4)
  assert found["relative_temperature"] == pytest.approx(1000 / 400, rel=0.25)  # as it was drawn
  for line in ("before", "after"):
    assert found[line]["loss"] == pytest.approx(expected[line][0], rel=1e-4)
    assert found[line]["ece"] == pytest.approx(expected[line][1], abs=1e-4)
    assert sum(found[line]["reliability"]["count"]) == 450
  assert found["after"]["loss"] < found["before"]["loss"]
  assert found["after"]["ece"] < found["before"]["ece"] / 2
  assert runs.plain({"calibration": found}) == {"calibration": found}


def test_a_split_of_its_own_is_taken_where_there_is_one(sure):
  sure.source.splits["valid"] = {k: v[-500:] for k, v in sure.source.splits["train"].items()}
  found = calibration(sure.predictor, sure.source, split="train", images=450)["calibration"]
  chosen = [{k: v[:450] for k, v in sure.source.splits[s].items()} for s in ("valid", "train")]
  expected = expected_numbers(sure, *chosen)
  assert (found["fitted_on"], found["fit_images"], found["images"]) == ("valid", 450, 450)
  assert found["relative_temperature"] == pytest.approx(expected["t"], rel=1e-4)
  named = calibration(sure.predictor, sure.source, fit_split="test", split="train", images=450)
  assert (named["calibration"]["fitted_on"], named["calibration"]["fit_images"]) == ("test", 70)


def test_a_mixture_is_scaled_as_it_is(sure):
  """Its log-probabilities at the temperature are not those of softmax(z / T)."""

  def log_head(kernel, features, temperature):
    logits = features @ kernel
    return jax.numpy.logaddexp(
      jax.nn.log_softmax(logits / temperature), jax.nn.log_softmax(-logits / temperature)
    ) - np.log(2)

  mixture = sure.predictor._replace(log_head=log_head)
  found = calibration(mixture, sure.source, split="train", images=900)["calibration"]
  logits = sure.matrices(sure.source.splits["train"]["x"][:900])["logits"] / 400
  log_p = np.logaddexp(log_softmax(logits, -1), log_softmax(-logits, -1)) - np.log(2)
  y = sure.source.splits["train"]["y"][:900]
  expected = fit_temperature(log_p[::2], y[::2]).temperature
  assert found["relative_temperature"] == pytest.approx(float(expected), rel=1e-3)


def test_nothing_to_fit_is_said(sure):
  """All right: the temperature is the end of the range."""
  for split in sure.source.splits.values():
    split["y"] = sure.matrices(split["x"])["logits"].argmax(-1).astype(np.int32)
  found = calibration(sure.predictor, sure.source, split="train", images=900)["calibration"]
  assert not found["converged"]
  assert found["after"]["ece"] < found["before"]["ece"]


def test_mistakes_name_the_argument(sure):
  with pytest.raises(ValueError, match="fit_split='test' is the split that is measured"):
    calibration(sure.predictor, sure.source, fit_split="test")
  with pytest.raises(ValueError, match="split='valid': the data have train, test"):
    calibration(sure.predictor, sure.source, fit_split="valid")
  with pytest.raises(ValueError, match="norm='l3' is unknown: use one of l1, l2, max"):
    ece(np.ones((2, 2)), np.zeros(2, int), norm="l3")
  with pytest.raises(ValueError, match="equal='size' is unknown: use 'width' or 'mass'"):
    ece(np.ones((2, 2)), np.zeros(2, int), equal="size")
  with pytest.raises(ValueError, match="bins=0 must be at least 1"):
    reliability(np.ones((2, 2)), np.zeros(2, int), bins=0)
  with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
    reliability(np.ones((2, 2)), np.zeros(3, int))
  sure.source.splits["test"]["y"] = np.zeros((70, 4), np.float32)
  with pytest.raises(ValueError, match=r"labels of .half of test. have shape .35, 4"):
    calibration(sure.predictor, sure.source)


def test_it_is_an_evaluation_of_configs():
  assert EVALUATIONS["calibration"] is calibration
  check_options({"calibration": {"bins": 10, "fit_split": "train"}}, {})
  with pytest.raises(ValueError, match=r"evaluate.calibration.bins=0 must be at least 1"):
    check_options({"calibration": {"bins": 0}}, {})
  check_splits({"calibration": {}}, ["train", "test"])
  with pytest.raises(ValueError, match="evaluate.calibration.fit_split='valid': the data have"):
    check_splits({"calibration": {"fit_split": "valid"}}, ["train", "test"])
