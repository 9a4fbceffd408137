"""Probes of every layer of a network written by hand, in and out of distribution."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from rankbias import runs
from rankbias.evaluate import EVALUATIONS, Predictor, check_layers, check_options, check_splits
from rankbias.evaluate.linear_probes import (
  HELD_OUT,
  fit_ridge,
  fit_ridges,
  make_view,
  make_views,
)
from rankbias.evaluate.probe import STRENGTHS, probe, probe_members

SHAPE, WIDTH = (2, 3, 1), 6
LAYERS = ["wide", "narrow", "dead", "again"]  # forward order, which is not the alphabetical one


def apply(params, x, *, key=None):
  """Keeps the image, keeps two of its directions, keeps nothing, and returns to the image."""
  h = jnp.reshape(x, (len(x), WIDTH)) / 255
  acts = {"wide": h.reshape(len(x), 2, 3), "narrow": h @ params, "dead": h @ params * 0 + 2}
  acts["again"] = h @ params * 3
  return acts["again"], acts


def head(weights, features):
  return features @ weights


def matrices(params, x):
  h = x.reshape(len(x), WIDTH) / 255
  narrow = h @ params.astype(float)
  return {"wide": h, "narrow": narrow, "dead": narrow * 0 + 2, "again": 3 * narrow}


def split(rng, count, classes, noise):
  """Each class a corner of the cube of pixels, with noise."""
  y = rng.permutation(np.arange(count) % classes).astype(np.int32)
  corners = 60 + 130 * np.eye(WIDTH)[:classes]
  pixels = corners[y] + rng.normal(size=(count, WIDTH)) * noise
  return {"x": np.clip(pixels, 0, 255).astype(np.uint8).reshape(-1, *SHAPE), "y": y}


def make_source(noise=10.0, other=True):
  rng = np.random.default_rng(0)
  splits = {"train": split(rng, 600, 4, noise), "test": split(rng, 200, 4, noise)}
  if other:
    splits |= {"ood_train": split(rng, 130, 3, noise), "ood_test": split(rng, 70, 3, noise)}
  return SimpleNamespace(splits=splits, num_classes=4, ood_classes=3 if other else 0)


@pytest.fixture(scope="module")
def predictor():
  rng = np.random.default_rng(1)
  params = (rng.normal(size=(WIDTH, 2)) @ rng.normal(size=(2, WIDTH))).astype("f4")
  kernel = rng.normal(size=(WIDTH, 4)).astype("f4")
  return Predictor(apply, params, head, kernel)


def ridge_by_hand(train, test, classes):
  """Accuracies on both and the strength, of {"x": [n, d], "y"}."""

  def answers(x, y, strength, on):
    unit = np.sum((x - x.mean(0)) ** 2) / x.shape[1]
    fit = Ridge(alpha=strength * unit + (unit == 0), solver="svd").fit(x, np.eye(classes)[y])
    return fit.predict(on["x"])

  def fault(strength):
    """Wrong answers on the held-out rows, then the squared error."""
    z = answers(kept["x"], kept["y"], strength, own)
    wrong = np.mean(z.argmax(1) != own["y"])
    return wrong, np.sum((z - np.eye(classes)[own["y"]]) ** 2)

  def right(on):
    return np.mean(answers(train["x"], train["y"], best, on).argmax(1) == on["y"])

  held = np.zeros(len(train["y"]), bool)
  held[np.random.default_rng(0).permutation(len(held))[::HELD_OUT]] = True
  own, kept = ({key: a[rows] for key, a in train.items()} for rows in (held, ~held))
  best = min(sorted(STRENGTHS), key=fault)
  return [right(train), right(test)], best


def test_a_ridge_is_that_of_scikit_learn_on_every_layer(predictor):
  source = make_source(noise=45.0)
  found = probe(predictor, source)["probe"]
  assert found["layers"] == list(found["id"]) == list(found["ood"]) == [*LAYERS, "logits"]
  for task, (train, test), classes in (
    ("id", ("train", "test"), 4),
    ("ood", ("ood_train", "ood_test"), 3),
  ):
    both = [source.splits[name] for name in (train, test)]
    for layer in LAYERS:
      rows = [{"x": matrices(predictor.params, s["x"])[layer], "y": s["y"]} for s in both]
      expected, strength = ridge_by_hand(*rows, classes)
      own = found[task][layer]
      assert [own["train"], own["test"]] == pytest.approx(expected, abs=1e-9), (task, layer)
      assert own["strength"] == strength
  assert 0.5 < found["id"]["wide"]["test"] < 1


@pytest.mark.parametrize("method", ["ridge", "adam"])
def test_both_methods_separate_what_can_be_separated(predictor, method):
  """Where nothing is left the most frequent class is the best answer: all are equally frequent."""
  options = {"learning_rate": 0.05} if method == "adam" else {}
  found = probe(predictor, make_source(), method=method, **options)["probe"]
  for task, chance in (("id", 0.25), ("ood", 1 / 3)):
    for kind in ("train", "test"):
      assert found[task]["wide"][kind] == 1
      assert found[task]["dead"][kind] == pytest.approx(chance, abs=0.01)
      for layer in ("narrow", "again"):
        assert chance + 0.1 < found[task][layer][kind] <= 1
  assert found["effective_depth"] == {"0.95": 0.25, "0.99": 0.25}
  assert found["best_layer"] == "wide"
  assert found["ood_drop"] == pytest.approx(1 - found["ood"]["again"]["test"])
  assert found["method"] == method
  assert all(("strength" in entry) == (method == "ridge") for entry in found["id"].values())
  assert runs.plain(found) == found


def test_chosen_layers_are_probed_in_forward_order_and_the_last_of_them_is_the_reference(predictor):
  found = probe(predictor, make_source(other=False), layers=["logits", "dead", "wide"])["probe"]
  assert found["layers"] == list(found["id"]) == ["wide", "dead", "logits"]
  assert found["effective_depth"] == {"0.95": 0.5, "0.99": 0.5}
  assert found["ood"] is found["ood_drop"] is found["best_layer"] is None


def test_only_the_first_images_count(predictor):
  source = make_source(other=False)
  for name in ("train", "test"):
    source.splits[name]["y"][100:] = 0
  found = probe(predictor, source, images=100, layers=["wide"])["probe"]["id"]["wide"]
  assert found["train"] == found["test"] == 1


def test_wide_layers_are_represented_by_a_part(predictor):
  source = make_source(other=False)
  part = probe(predictor, source, max_features=2, layers=["wide"])["probe"]["id"]["wide"]
  assert 0.3 < part["test"] < 0.9  # two pixels tell two of four classes from the others


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"layers": ["wide", "deep"]},
      r"layer 'deep' does not exist; .* wide, narrow, dead, again, lo",
    ),
    ({"layers": ["logits"]}, r"name at least one"),
    ({"method": "lasso"}, r"method='lasso' is unknown; use ridge or adam"),
    ({"strengths": (1.0, 0.0)}, r"strengths=\[1.0, 0.0\]: give numbers above 0"),
    ({"strengths": ()}, r"strengths=\[\]: give numbers above 0"),
  ],
)
def test_bad_options_are_named(predictor, options, message):
  with pytest.raises(ValueError, match=message):
    probe(predictor, make_source(), **options)


@pytest.mark.parametrize("name", ["train", "test", "ood_train", "ood_test"])
def test_a_class_missing_from_a_split_is_named(predictor, name):
  source = make_source()
  y = source.splits[name]["y"]
  y[y == 1] = 2
  with pytest.raises(ValueError, match=rf"'{name}' has no image of 1 of . classes \(1\) among its"):
    probe(predictor, source, layers=["wide"])


def test_sequences_are_refused(predictor):
  source = make_source()
  source.splits["train"]["y"] = np.zeros((600, 3), np.int32)
  with pytest.raises(ValueError, match=r"labels of 'train' have shape \(600, 3\)"):
    probe(predictor, source)


def test_a_config_is_refused_before_training():
  assert EVALUATIONS["probe"] is probe
  for options, data, message in (
    ({"method": "sgd"}, "digits", "method='sgd' is unknown"),
    ({"epoch": 3}, "digits", r"evaluate\.probe\.epoch is unknown; use method, layers"),
    ({"images": 0}, "digits", "must be at least 1"),
    ({"learning_rate": -0.1}, "digits", r"learning_rate=-0\.1 must be above 0"),
    ({}, "ptb", r"evaluate\.probe needs data\.name a set of images, and it is ptb"),
  ):
    with pytest.raises(ValueError, match=message):
      check_options({"probe": options}, {"data.name": data})
  with pytest.raises(
    ValueError, match=r"probe\.layers: 'x' does not exist; the network has a, log"
  ):
    check_layers({"accuracy": {}, "probe": {"layers": ("a", "logits", "x")}}, ("a",))
  with pytest.raises(ValueError, match=r"uncertainty\.split='ood_test': labels of data of another"):
    check_splits({"uncertainty": {"split": "ood_test"}}, ("train", "test", "ood_test"))
  check_splits({"spectra": {"split": "ood_test"}}, ("train", "ood_test"))


def members():
  """Networks of one form with other weights; what they keep has rank 1, 2 and 3."""
  rng = np.random.default_rng(2)
  for used in (1, 2, 3):
    params = (rng.normal(size=(WIDTH, used)) @ rng.normal(size=(used, WIDTH))).astype("f4")
    yield Predictor(apply, params, head, rng.normal(size=(WIDTH, 4)).astype("f4"), 10.0**used)


@pytest.mark.parametrize("method", ["ridge", "adam"])
def test_members_together_are_as_one_by_one(method):
  """Rounding alone differs, which moves an example or two."""
  networks, source = list(members()), make_source(other=False, noise=30.0)
  options = {"method": method, "layers": ["wide", "again"], "epochs": 5}
  together = probe_members(networks, source, **options)
  alone = [probe(predictor, source, **options) for predictor in networks]
  accuracies = []
  for found, expected in zip(together, alone, strict=True):
    found, expected = found["probe"], expected["probe"]
    assert list(found) == list(expected) and found["layers"] == expected["layers"]
    assert list(found["id"]) == list(expected["id"]) == ["wide", "again"]
    for layer, entry in expected["id"].items():
      assert found["id"][layer] == pytest.approx(entry, abs=2.1 / 200), layer
    accuracies.append(found["id"]["again"]["test"])
  assert np.ptp(accuracies) > 0.05  # each has its own


def test_answers_of_members_together_are_those_of_each_to_rounding():
  """Of the answers, because a weight along a direction of rounding is rounding over the ridge."""
  networks, source = list(members()), make_source(other=False, noise=30.0)
  train, own = source.splits["train"], {"classes": 4, "strengths": (1e-2, 1e-1)}
  together, best = fit_ridges(make_views(networks, ["again"], 100), train, **own)
  for m, predictor in enumerate(networks):
    alone, chosen = fit_ridge(make_view(predictor, ["again"], 100), train, **own)
    assert best["again"][m] == chosen["again"]
    x = matrices(predictor.params, train["x"])["again"]
    found, expected = (
      (x - np.asarray(mean)) @ np.asarray(kernel) + np.asarray(bias)
      for mean, kernel, bias in ([leaf[m] for leaf in together["again"]], alone["again"])
    )
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_networks_with_other_functions_do_not_go_together(predictor):
  other = predictor._replace(head=lambda weights, features: features @ weights)
  with pytest.raises(ValueError, match=r"2 predictors with 2 different sets of functions: give at"):
    probe_members([predictor, other], make_source())
