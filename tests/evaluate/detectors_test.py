"""Detectors: values of public code, each formula in float64 NumPy, and features without a rank."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import expit, logsumexp, softmax

from rankbias.evaluate import detectors
from rankbias.evaluate.detectors import DETECTORS

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/ood_scores.npz")
CASES = ["random", "ties", "large", "tiny", "all_negative", "single", "masked_neginf"]
KERNEL, BIAS = GOLDEN["data/W"].T, GOLDEN["data/b"]
FEATURES = {name: GOLDEN[f"data/features_{name}"] for name in ("train", "id", "ood")}


def linear(kernel, bias, features):
  return features @ kernel + bias[None, :]


def run(name, dtype, fit_on="train", **options):
  """Fits on features of the golden data; returns parameters, and scores of train, id and ood."""
  head = Partial(linear, KERNEL.astype(dtype), BIAS.astype(dtype))
  data = {k: v.astype(dtype) for k, v in FEATURES.items()}
  fit_options = {}
  if name in ("vim", "react"):
    options, fit_options = {}, options

  @jax.jit
  def scores(data):
    own = data[fit_on]
    fitted = DETECTORS[name].fit(own, head(own), head, **fit_options)
    found = {k: DETECTORS[name].score(fitted, data[k], head(data[k]), **options) for k in data}
    return {k: v for k, v in fitted.items() if k != "head"}, found

  return jax.device_get(scores(data))


@jax.jit
def scores_of(logits):
  """Of logits alone, by the names of the golden values."""
  found = {"msp": jax.nn.sigmoid(detectors.score_msp({}, None, logits))}
  found["maxlogit"] = detectors.score_max_logit({}, None, logits)
  for t in (0.5, 1, 10):
    found[f"energy_T{t}"] = detectors.score_energy({}, None, logits, temperature=t)
  for m in (3, 100):
    found[f"gen_gamma0.1_M{m}"] = detectors.score_gen({}, None, logits, largest=m)
  return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wide", [False, True])
def test_scores_of_logits_are_those_of_public_code(case, wide):
  """Float32 too is held against float64: logarithms keep what its powers lose (3e-5 of GEN)."""
  with jax.enable_x64(wide):
    logits = jnp.asarray(GOLDEN[f"x/{case}"], float)
    for name, found in jax.device_get(scores_of(logits)).items():
      assert found.dtype == logits.dtype
      expected = GOLDEN[f"{name}/{case}/f64/score"]
      tolerance = 1e-10 if wide else 2e-6
      np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dimension", [4, 8, 12])
def test_vim_is_that_of_public_code(dimension):
  key = f"vim_dim{dimension}"
  with jax.enable_x64(True):
    fitted, scores = run("vim", "f8", dimension=dimension)
  np.testing.assert_allclose(fitted["origin"], GOLDEN[f"{key}/f32/u"], rtol=1e-4, atol=1e-6)
  assert fitted["alpha"] == pytest.approx(float(GOLDEN[f"{key}/f32/alpha"]), rel=1e-4)
  projector = fitted["residual"] @ fitted["residual"].T
  np.testing.assert_allclose(projector, GOLDEN[f"{key}/f32/null_space_projector"], atol=1e-4)
  for split, score in scores.items():
    np.testing.assert_allclose(score, GOLDEN[f"{key}/{split}/f32/score"], rtol=1e-4, atol=1e-4)
  _, single = run("vim", "f4", dimension=dimension)
  for split, score in scores.items():
    np.testing.assert_allclose(single[split], score, rtol=1e-5, atol=1e-5)


def test_react_and_kl_matching_are_those_of_public_code():
  fitted, scores = run("react", "f4", fit_on="id", percentile=90.0)  # theirs: of validation data
  assert fitted["threshold"] == pytest.approx(float(GOLDEN["react_p90/f32/threshold"]), rel=1e-6)
  with jax.enable_x64(True):
    _, divergences = run("kl_matching", "f8")
  for split in ("id", "ood"):
    np.testing.assert_allclose(scores[split], GOLDEN[f"react_p90/{split}/f32/score"], rtol=1e-5)
    expected = GOLDEN[f"kl_matching/{split}/f32/score"]
    np.testing.assert_allclose(divergences[split], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dimension", [3, 8, 16])
@pytest.mark.parametrize(
  ("branch", "options"),
  [
    ("resnet", {}),
    ("vit", {"times_max_logit": True}),
    ("deit", {"times_max_logit": True, "norm": "features"}),
  ],
)
def test_neco_is_that_of_its_authors(branch, options, dimension):
  with jax.enable_x64(True):
    _, scores = run("neco_standardized", "f8", dimension=dimension, **options)
  for split in ("id", "ood"):
    expected = GOLDEN[f"neco/{branch}_dim{dimension}/f64/score_{split}"]
    np.testing.assert_allclose(scores[split], expected, rtol=1e-9)


ODIN_CASES = [(1000, 0.0014), (1, 0.0014), (1, 0.1), (10, 0)]


def test_odin_is_that_of_public_code():
  """Its network there is a linear layer on tanh of the images."""
  kernel, bias, images = (GOLDEN[f"odin/{k}"] for k in ("W", "b", "images"))
  std = GOLDEN["odin/input_std_cifar10"][:, None, None]

  def network(x):
    return jnp.tanh(x).reshape(len(x), -1) @ kernel.T + bias[None, :]

  @jax.jit
  def scores(x):
    return [detectors.score_odin(network, x, temperature=t, step=e / std) for t, e in ODIN_CASES]

  with jax.enable_x64(True):  # the step is divided by std in float32 there
    for (t, noise), score in zip(ODIN_CASES, jax.device_get(scores(images)), strict=True):
      np.testing.assert_allclose(expit(score), GOLDEN[f"odin/T{t}_noise{noise}/f64/score"], 5e-8)


def test_odin_finds_its_way_where_the_probability_is_one():
  """And leaves alone what has no influence."""
  kernel = np.array([[300.0, 0, 0], [0, 200.0, 0], [0, 0, 0]], np.float32)
  x = np.array([[1.0, -1.0, 5.0], [0.5, 0.75, 5.0]], np.float32)
  moved = detectors.odin_step(lambda v: v @ kernel, x, temperature=1.0, step=0.25)
  np.testing.assert_allclose(moved, [[1.25, -1.0, 5.0], [0.75, 0.5, 5.0]])
  assert (softmax(x @ kernel, axis=-1).max(-1) == 1).any()


def formulas(train, x, kernel, bias, *, neighbours=50):
  """Every detector in float64 NumPy, by its formula, with its default options."""
  z_train, z = train @ kernel + bias, x @ kernel + bias
  p_train, p = softmax(z_train, -1), softmax(z, -1)
  classes, width = z.shape[1], x.shape[1]
  top = p.max(-1)
  found = {"msp": np.log(top / (1 - top)), "max_logit": z.max(-1), "energy": logsumexp(z, -1)}
  found["gen"] = -np.sum((p * (1 - p)) ** 0.1, -1)
  means = [p_train[p_train.argmax(-1) == c].mean(0) for c in set(p_train.argmax(-1))]
  found["kl_matching"] = -np.min([np.sum(p * np.log(p / q), -1) for q in means], 0)
  clipped = np.minimum(x, np.percentile(train, 90))
  found["react"] = logsumexp(clipped @ kernel + bias, -1)
  origin = -np.linalg.pinv(kernel.T) @ bias
  _, _, axes = np.linalg.svd(train - origin)
  rest, rest_train = (
    np.linalg.norm((v - origin) @ axes[width // 2 :].T, axis=-1) for v in (x, train)
  )
  found["vim"] = logsumexp(z, -1) - z_train.max(-1).mean() / rest_train.mean() * rest
  unit, known = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, train))
  distances = np.linalg.norm(unit[:, None] - known[None], axis=-1)
  found["knn"] = -np.sort(distances, -1)[:, min(neighbours, len(train)) - 1]
  scaled, scaled_x = ((v - train.mean(0)) / train.std(0) for v in (train, x))
  for name, a, b in (("neco", train - train.mean(0), x), ("neco_standardized", scaled, scaled_x)):
    axes = np.linalg.svd(a)[2][: classes - 1]
    found[name] = np.linalg.norm(b @ axes.T, axis=-1) / np.linalg.norm(b, axis=-1)
  return found | {"neco_max_logit": found["neco_standardized"] * z.max(-1)}


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


@pytest.mark.parametrize("wide", [False, True])
def test_every_detector_is_its_formula(wide):
  """On rectified features, of which some are always zero, through jit."""
  rng = np.random.default_rng(0)
  mix = rng.normal(size=(6, 12))
  train, x = (np.maximum(rng.normal(size=(n, 6)) @ mix + s, 0.0) for n, s in ((1500, 1), (37, -1)))
  kernel, bias = rng.normal(size=(12, 4)), rng.normal(size=4)
  expected = formulas(train, x, kernel, bias)
  dtype = "f8" if wide else "f4"
  with jax.enable_x64(wide):
    found = fit_and_score(*(a.astype(dtype) for a in (train, x, kernel, bias)))
  assert found.keys() == expected.keys() == DETECTORS.keys()
  for name, score in found.items():
    assert score.dtype == dtype and score.shape == (37,)
    tolerance = 1e-8 if wide else 3e-4
    np.testing.assert_allclose(score, expected[name], tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_table_says_for_which_a_temperature_of_training_matters(name):
  rng = np.random.default_rng(1)
  train, x, kernel = (rng.normal(size=s) for s in ((200, 8), (150, 8), (8, 5)))
  zero = np.zeros(5)
  with jax.enable_x64(True):
    raw = fit_and_score(train, x, kernel, zero, (name,))[name]
    tempered = fit_and_score(train, x, kernel / 30, zero, (name,))[name]
  same = (np.argsort(raw) == np.argsort(tempered)).all()
  assert same != DETECTORS[name].scale_matters
