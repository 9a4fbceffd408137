"""Max retrieval against the size of the set, on heads whose answers are known."""

import math
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, ops
from rankbias.evaluate import EVALUATIONS, Predictor, check_options, check_splits
from rankbias.evaluate.retrieval import passes, retrieval

REMEDIES = {
  "adaptive": {"name": "adaptive_temperature_softmax"},
  "hard_max": {"name": "topk_softmax", "k": 1},
  "uniform": {"name": "softmax", "temperature": 1e9},
}


@pytest.fixture(scope="module")
def source():
  return data.load("max_retrieval", classes=4)


def apply(params, x, *, normalizer=ops.softmax):
  """Logits params * priority; the features are the weighted votes for the classes."""
  logits = params * x[:, 1:, 0]
  weights = normalizer(logits, axis=-1)
  features = jnp.einsum("bn,bnc->bc", weights, x[:, 1:, 1:])
  return features, {"attention/logits": logits, "attention/weights": weights}


def head(params, features):
  return features


def measured(source, slope, **options):
  predictor = Predictor(apply, slope, head, None)
  return retrieval(predictor, source, **{"sizes": (8, 64), "sets": 300, **options})


def test_a_head_in_the_right_order_reaches_the_ceiling_with_a_hard_maximum(source):
  found = measured(source, 30.0, remedies=REMEDIES)["retrieval"]
  assert found["ceiling"] == [1, 1]
  assert found["accuracy"]["hard_max"] == [1, 1]
  assert found["max_weight"]["hard_max"] == [1, 1]
  np.testing.assert_allclose(found["entropy"]["hard_max"], 0, atol=1e-6)
  np.testing.assert_allclose(found["entropy"]["uniform"], np.log([8, 64]), rtol=1e-5)
  np.testing.assert_allclose(found["max_weight"]["uniform"], [1 / 8, 1 / 64], rtol=1e-5)
  # n priorities spread over (n - 1) / (n + 1) on average.
  np.testing.assert_allclose(found["spread"], [30 * 7 / 9, 30 * 63 / 65], rtol=0.02)
  for kind, better in (("accuracy", 1), ("max_weight", 1), ("entropy", -1)):
    gain = better * (np.array(found[kind]["adaptive"]) - found[kind]["as_trained"])
    assert (gain >= 0).all() and gain[1] > 0


def test_a_head_in_the_wrong_order_has_a_low_ceiling(source):
  found = measured(source, -30.0, remedies=REMEDIES)["retrieval"]
  assert found["ceiling"] == [0, 0]
  assert max(found["accuracy"]["hard_max"]) < 0.5  # the class of the smallest item, by luck 1/4


def test_means_do_not_depend_on_how_the_sets_are_drawn_in_passes(source, monkeypatch):
  """A later pass draws other sets; the number that counts is exact."""
  monkeypatch.setattr(sys.modules[retrieval.__module__], "ITEMS", 64 * 70)
  assert [used for _, _, used in passes(64, 300)] == [70, 70, 70, 70, 20]
  found = measured(source, 5.0, sizes=(64,))
  expected = []
  for part, _, used in passes(64, 300):
    x, y = source.draw("test", part, count=70, n=64)
    votes = apply(5.0, x)[0]
    expected.append((np.argmax(votes, -1) == np.asarray(y))[:used])
  np.testing.assert_allclose(
    found["retrieval"]["accuracy"]["as_trained"], [np.concatenate(expected).mean()], rtol=1e-6
  )


def test_sizes_beyond_4096_take_fewer_sets(source):
  found = measured(source, 5.0, sizes=(16, 8192), sets=24, large_sets=4)["retrieval"]
  assert found["sets"] == [24, 4]


def test_weights_to_be_shown_are_those_of_the_largest_items_in_ascending_order(source):
  weights = measured(source, 30.0, remedies=REMEDIES)["weights"]
  assert set(weights) == {f"{c}/{n}" for c in ("as_trained", *REMEDIES) for n in (8, 64)}
  assert weights["as_trained/64"].shape == (32, 16)
  assert weights["as_trained/8"].shape == (32, 8)
  assert (np.diff(weights["as_trained/64"]) >= 0).all()
  np.testing.assert_array_equal(weights["hard_max/64"][:, -1], 1)


def test_a_fitted_curve_is_a_column_and_is_written_down(source):
  found = measured(source, 5.0, fit={"sizes": (8, 64), "sets": 200, "bins": 4})["retrieval"]
  assert set(found["fitted"]) == {"entropies", "values"}
  assert min(found["fitted"]["values"]) >= 1
  # The order is right, so the sharper the better, to the end of the grid.
  assert min(found["accuracy"]["fitted"]) > 0.98 > found["accuracy"]["as_trained"][1]
  assert measured(source, 5.0)["retrieval"]["fitted"] is None


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"remedies": {"cold": {"temperature": 0.5}}}, "remedy 'cold' = .* needs a name; use one of"),
    ({"remedies": {"cold": {"name": "softmin"}}}, "'softmin' is unknown: did you mean 'softmax'"),
    ({"remedies": {"cold": {"name": "softmax", "theta": 1}}}, "it takes .*'temperature'"),
    ({"set": 1}, "evaluate.retrieval.set is unknown; use sizes, sets"),
    ({"sets": 0}, "evaluate.retrieval.sets=0 must be at least 1"),
    ({"sizes": (16, 0)}, r"retrieval.sizes=\(16, 0\) must be a list of numbers of at least 1"),
    ({"sizes": ()}, r"retrieval.sizes=\(\) must be a list"),
    ({"sizes": 16}, "retrieval.sizes=16 must be a list"),
    ({"fit": {"sizes": (0,)}}, r"fit.sizes=\(0,\) must be a list of numbers of at least 1"),
    ({"fit": {"sets": 0}}, "retrieval.fit.sets=0 must be at least 1"),
    ({"fit": {"steps": 3}}, "retrieval.fit.steps is unknown; use sizes, sets, grid, bins"),
    ({"fit": {"grid": (2.0, 1.0)}}, "retrieval.fit: grid = .* that increase"),
    ({"fit": {"bins": 0}}, "retrieval.fit.bins=0 must be at least 1"),
    (
      {"fit": {"sizes": (16,), "sets": 99, "bins": 13}},
      "retrieval.fit: bins = 13 leaves a bin with 7 of 99 rows and each needs 8",
    ),
    ({"fit": {"bins": (2.0, 1.0)}}, "retrieval.fit: bins = .* two or more edges that increase"),
  ],
)
def test_refusals_come_before_training(options, message):
  with pytest.raises(ValueError, match=message):
    check_options({"retrieval": options}, {"model.name": "set_attention"})


@pytest.mark.parametrize("bins", [12, (0.0, 0.1, 6.0)])
def test_what_can_be_fitted_is_not_refused(bins):
  fit = {"sizes": (16,), "sets": 96, "grid": (0.5, 1.0), "bins": bins}
  check_options({"retrieval": {"fit": fit}}, {"model.name": "set_attention"})


def test_a_split_that_the_data_do_not_have_is_refused(source):
  check_splits({"retrieval": {}, "spectra": {"split": "test"}}, source.splits)
  with pytest.raises(ValueError, match="evaluate.spectra.split='tset': the data have test"):
    check_splits({"spectra": {"split": "tset"}}, source.splits)
  with pytest.raises(ValueError, match="evaluate.spectra.split='train'"):  # the default
    check_splits({"spectra": {}}, source.splits)


def test_another_model_is_refused():
  message = re.escape("evaluate.retrieval needs model.name 'set_attention', and it is mlp")
  with pytest.raises(ValueError, match=message):
    check_options({"retrieval": {}}, {"model.name": "mlp"})


def test_slope_and_size_predict_the_sharpness(source):
  """For logits s rho and n >> s: the largest weight is about s / n, the entropy 1 + log(n / s)."""
  found = EVALUATIONS["retrieval"](
    Predictor(apply, 50.0, head, None), source, sizes=(4096,), sets=64
  )["retrieval"]
  np.testing.assert_allclose(found["max_weight"]["as_trained"], 50 / 4096, rtol=0.05)
  np.testing.assert_allclose(found["entropy"]["as_trained"], 1 + math.log(4096 / 50), rtol=0.01)
