"""Classes and examples that evaluations need, asked of the data before anything is trained."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from rankbias import experiment
from rankbias.config import base
from rankbias.evaluate import check_examples
from rankbias.evaluate.labels import check_labels
from rankbias.evaluate.ood import ood

NEEDING = {  # of each evaluation, the splits whose classes it needs
  "probe": {"train", "test", "ood_train", "ood_test"},
  "collapse": {"train"},
  "ood": {"train"},
  "compress": {"train"},
}
OPTIONS = {"compress": {"cuts": True}}


def make_source(lacking=None):
  """Four classes and three others; one split lacks the second class."""
  splits = {}
  for name, classes in (("train", 4), ("test", 4), ("ood_train", 3), ("ood_test", 3)):
    y = np.arange(24, dtype=np.int32) % classes
    splits[name] = {"x": np.zeros((24, 2, 2, 1), np.uint8), "y": np.where(y == 1, 2, y)}
    if name != lacking:
      splits[name]["y"] = y
  return SimpleNamespace(splits=splits, num_classes=4, ood_classes=3)


@pytest.mark.parametrize("name", NEEDING)
@pytest.mark.parametrize("split", ["train", "test", "ood_train", "ood_test"])
def test_a_missing_class_is_an_error_where_it_is_needed(name, split):
  chosen, source = {name: OPTIONS.get(name, {})}, make_source(split)
  check_examples(chosen, make_source())
  if split not in NEEDING[name]:
    check_examples(chosen, source)
    return
  classes = 3 if split.startswith("ood") else 4
  message = (
    f"evaluate.{name}: '{split}' has no image of 1 of {classes} classes (1) among its first 24; "
    f"raise evaluate.{name}.images or data.limit, or choose"
  )
  with pytest.raises(ValueError, match=re.escape(message)):
    check_examples(chosen, source)


def test_only_the_images_that_are_seen_count():
  source = make_source()
  for name in ("probe", "collapse", "ood"):
    check_examples({name: {"images": 4}}, source)
    with pytest.raises(
      ValueError, match=rf"evaluate\.{name}: '.*' has no image of 1 of 4 classes \(3"
    ):
      check_examples({name: {"images": 3}}, source)
  check_examples({"collapse": {"images": 4, "split": "test"}, "accuracy": {}}, source)


def test_nothing_is_asked_of_what_needs_no_class():
  source = make_source("train")
  check_examples({"compress": {}, "calibration": {}, "accuracy": {}, "cka": {}}, source)


def test_calibration_needs_images_to_fit_and_to_measure():
  source = make_source()
  check_examples({"calibration": {"images": 2}}, source)
  with pytest.raises(
    ValueError, match=r"evaluate\.calibration: 'half of test' has no image; raise"
  ):
    check_examples({"calibration": {"images": 1}}, source)
  source.splits["valid"] = {"y": np.zeros(0, np.int32)}
  with pytest.raises(ValueError, match=r"evaluate\.calibration: 'valid' has no image"):
    check_examples({"calibration": {}}, source)


@pytest.mark.parametrize("name", ["probe", "collapse", "ood", "calibration"])
def test_labels_that_are_no_classes_are_refused(name):
  source = make_source()
  for split in source.splits.values():
    split["y"] = np.zeros((24, 5), np.float32)
  with pytest.raises(
    ValueError, match=r"have shape \(.*, 5\) and type float32; it needs one class"
  ):
    check_examples({name: {}}, source)


def test_a_split_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match="split='valid': the data have train, test, ood_train"):
    check_examples({"collapse": {"split": "valid"}}, make_source())


def test_many_missing_classes_are_cut_short():
  with pytest.raises(
    ValueError, match=r"no image of 99 of 100 classes \(1, 2, 3, 4, 5, \.\.\.\) am"
  ):
    check_labels("probe", "train", np.zeros(3, np.int32), 100)


def test_detection_itself_refuses(network):
  source = network.source
  source.splits["ood_test"] = source.splits["test"]
  y = source.splits["train"]["y"]
  source.splits["train"]["y"] = np.where(y == 3, 0, y)
  with pytest.raises(
    ValueError, match=r"evaluate\.ood: 'train' has no image of 1 of 4 classes \(3"
  ):
    ood(network.predictor, source, images=600)


def test_an_experiment_asks_before_it_trains():
  config = base("tiny")
  config.evaluate = {"ood": {}}
  source = make_source("train")
  with pytest.raises(ValueError, match=r"evaluate\.ood: 'train' has no image"):
    experiment.check_data(config, source)
