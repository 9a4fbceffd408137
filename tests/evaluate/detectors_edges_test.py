"""Detectors at their edges: features without a rank, sure predictions, blocks, members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import log_softmax, softmax

from rankbias.evaluate import detectors
from rankbias.evaluate.detectors import DETECTORS


def linear(kernel, bias, features):
  return features @ kernel + bias[None, :]


def fit_and_score(train, x, kernel, bias, names=tuple(DETECTORS)):
  head = Partial(linear, kernel, bias)

  @jax.jit
  def scores(train, x, head):
    found = {}
    for name in names:
      fitted = DETECTORS[name].fit(train, head(train), head)
      found[name] = DETECTORS[name].score(fitted, x, head(x))
    return found

  return jax.device_get(scores(train, x, head))


@pytest.mark.parametrize("kind", ["rank 1", "constant", "zero"])
def test_features_that_have_collapsed_have_finite_scores(kind):
  rng = np.random.default_rng(2)
  amount = {"rank 1": rng.random((60, 1)) + 0.5, "constant": 1.0, "zero": 0.0}[kind]
  train = (amount * np.tile(np.arange(1, 9.0), (60, 1))).astype("f4")
  x = np.concatenate([train[:3], rng.normal(size=(2, 8)), np.zeros((2, 8))]).astype("f4")
  kernel = rng.normal(size=(8, 3)).astype("f4")
  found = fit_and_score(train, x, kernel, np.ones(3, "f4"))
  for name, score in found.items():
    assert np.isfinite(score).all(), name
  if kind == "rank 1":
    np.testing.assert_allclose(found["neco"][:3], 1, rtol=1e-6)  # one axis, though two were wanted
    assert (found["neco"][3:] < 0.999).all()
    assert (found["knn"][:3] > found["knn"][3:].max()).all()


def test_neco_has_no_more_dimensions_than_the_features():
  """Beyond the rank the axes are arbitrary, and would let anything in."""
  rng = np.random.default_rng(3)
  basis = np.linalg.qr(rng.normal(size=(10, 10)))[0][:, :3]
  train = (rng.normal(size=(400, 3)) @ basis.T).astype("f4")
  x = np.concatenate([train[:5], rng.normal(size=(5, 10))]).astype("f4")
  fitted = jax.jit(detectors.fit_neco)(train, None)
  assert fitted["rank"] == 3
  ratios = np.asarray(detectors.neco_ratios(fitted, x))
  np.testing.assert_allclose(ratios[:5, 2], 1, rtol=1e-5)
  assert (ratios[:, 3:] == ratios[:, 2:3]).all()
  direct = np.linalg.norm(x @ basis, axis=-1) / np.linalg.norm(x, axis=-1)
  np.testing.assert_allclose(ratios[:, 9], direct, rtol=1e-4)
  logits = np.zeros((10, 10), "f4")
  for k in (1, 2, 3):
    found = detectors.score_neco(fitted, x, logits, dimension=k)
    np.testing.assert_array_equal(found, ratios[:, k - 1])
  message = r"dimension=4: the numerical rank of the features is 3, .*; give 1 to 3, or None"
  with pytest.raises(ValueError, match=message):
    detectors.score_neco(fitted, x, logits, dimension=4)
  default = detectors.score_neco(fitted, x, logits)  # 9 of 10 classes, lowered
  np.testing.assert_array_equal(default, ratios[:, 2])
  assert (
    int(detectors.dimension_of(fitted, 10)) == 3 and int(detectors.dimension_of(fitted, 3)) == 2
  )
  compiled = jax.jit(lambda p: detectors.score_neco(p, x, logits, dimension=9))(fitted)
  np.testing.assert_array_equal(compiled, ratios[:, 2])


def test_features_of_zeros_leave_no_dimension():
  x, z = np.zeros((4, 3), "f4"), np.zeros((4, 5), "f4")
  with pytest.raises(ValueError, match=r"dimension=1: .* is 0, .*; give None for the default"):
    detectors.score_neco(detectors.fit_neco(x, z), x, z, dimension=1)


def test_vim_keeps_a_direction_that_features_fill():
  rng = np.random.default_rng(4)
  train = np.zeros((300, 10), "f4")
  train[:, :3] = rng.normal(size=(300, 3)) * [9, 3, 1]
  head = Partial(linear, rng.normal(size=(10, 4)).astype("f4"), np.zeros(4, "f4"))
  fitted = detectors.fit_vim(train, head(train), head)
  assert fitted["dimension"] == 2  # where half of the width is 5, and the rank 3
  assert 0 < fitted["alpha"] < 100
  assert detectors.fit_vim(train, head(train), head, dimension=2)["dimension"] == 2
  for wrong in (3, -1):
    message = rf"dimension={wrong}: one less than the numerical rank .* is 2, .*; give 0 to 2, or N"
    with pytest.raises(ValueError, match=message):
      detectors.fit_vim(train, head(train), head, dimension=wrong)
  compiled = jax.jit(lambda x: detectors.fit_vim(x, head(x), head, dimension=7))(train)
  assert compiled["dimension"] == 2 and detectors.dimension_of(compiled, 4) == 2
  assert detectors.dimension_of({}, 4) is None


@pytest.mark.parametrize(("n", "k"), [(2500, 50), (1024, 1), (30, 50)])
def test_neighbours_are_those_of_all_distances(n, k):
  """Of more, as many, and fewer training examples than a block; of some that are equal."""
  rng = np.random.default_rng(n)
  train = np.maximum(rng.normal(size=(n, 7)), 0) + 0.1
  train[1] = train[0]
  x = np.concatenate([train[:2], rng.normal(size=(1100, 7))])
  unit, known = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, train))
  squares = np.maximum(2 - 2 * unit @ known.T, 0)
  expected = -np.sqrt(np.sort(squares, -1)[:, min(k, n) - 1])
  with jax.enable_x64(True):
    fitted = detectors.fit_knn(train, None)
    found = jax.jit(lambda p, x: detectors.score_knn(p, x, None, neighbours=k))(fitted, x)
  np.testing.assert_allclose(found, expected, atol=1e-7)


def test_sure_predictions_stay_in_order_in_single_precision():
  """Their probabilities are all 1; public code ties them."""
  logits = np.array([[20.0, 0, 0], [40, 0, 0], [90, 0, 0], [300, 0, 0]], np.float32)
  assert (softmax(logits, axis=-1).max(-1) == 1).sum() >= 3
  for name in ("msp", "gen"):
    score = np.asarray(DETECTORS[name].score({}, None, logits))
    assert (np.diff(score) > 0).all(), name
  log_p = log_softmax(logits.astype("f8"), axis=-1)
  expected = log_p[:, 0] - np.log(2) - log_p[:, 1]
  np.testing.assert_allclose(DETECTORS["msp"].score({}, None, logits), expected, rtol=1e-6)


def test_a_class_that_is_never_predicted_is_no_template():
  logits = np.array([[9.0, 0, 0], [0, 9, 0], [5, 0, 0]], np.float32)
  fitted = DETECTORS["kl_matching"].fit(None, logits, None)
  assert fitted["used"].tolist() == [True, True, False]
  score = np.asarray(DETECTORS["kl_matching"].score(fitted, None, logits[:, ::-1]))
  assert np.isfinite(score).all() and score[1] == pytest.approx(0, abs=1e-6) and score[0] < -1


def test_members_may_be_vmapped():
  rng = np.random.default_rng(5)
  train, kernel = (rng.normal(size=s).astype("f4") for s in ((2, 90, 6), (2, 6, 4)))
  names = ("vim", "knn")

  def scores(train, kernel):
    head = Partial(linear, kernel, jnp.zeros(4, kernel.dtype))
    found = {}
    for name in names:
      fitted = DETECTORS[name].fit(train, head(train), head)
      found[name] = DETECTORS[name].score(fitted, train[:9], head(train[:9]))
    return found

  together = jax.device_get(jax.jit(jax.vmap(scores))(train, kernel))
  for m in range(2):
    alone = fit_and_score(train[m], train[m, :9], kernel[m], np.zeros(4, "f4"), names)
    for name in names:
      np.testing.assert_allclose(together[name][m], alone[name], 1e-4, 1e-4, err_msg=name)


def test_mistakes_name_the_argument():
  x, z = np.ones((4, 3), "f4"), np.ones((4, 5), "f4")
  fitted = detectors.fit_neco(x, z)
  assert detectors.score_neco(fitted, x, z).shape == (4,)  # C - 1 is more than there are features
  with pytest.raises(ValueError, match="dimension=4 must be between 1 and 3"):
    detectors.score_neco(fitted, x, z, dimension=4)
  with pytest.raises(ValueError, match="norm='raw' is unknown"):
    detectors.score_neco(fitted, x, z, norm="raw")
  with pytest.raises(ValueError, match="percentile=900.0 must be between 0"):
    detectors.fit_react(x, z, lambda h: h, percentile=900.0)
  with pytest.raises(ValueError, match="neighbours=0 must be at least 1"):
    detectors.score_knn(detectors.fit_knn(x, z), x, z, neighbours=0)
