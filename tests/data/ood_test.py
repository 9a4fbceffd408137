"""Data of another distribution: classes held out, and another set of which less may be there."""

import numpy as np
import pytest

from rankbias.data import DataFileError, load
from rankbias.data.facts import FACTS
from rankbias.data.images import load_other
from rankbias.data.ood import add_ood, beside, divide, hold_out
from rankbias.data.source import Source, channel_moments

PY = {name: FACTS[name].layouts[0] for name in ("cifar10", "cifar100")}


def toy(name="toy", classes=5, train=60, test=25, shape=(4, 4, 1), seed=0):
  rng = np.random.default_rng(seed)

  def split(n):
    y = rng.permutation(np.arange(n) % classes).astype(np.int32)
    return {"x": rng.integers(0, 256, (n, *shape), dtype=np.uint8), "y": y}

  names = tuple(f"{name}{c}" for c in range(classes))
  return Source(
    name, {"train": split(train), "test": split(test)}, classes, names, f"made up {name}"
  )


def write_pair(small, folder, files=("train", "test")):
  """CIFAR-10 whole, and some files of CIFAR-100, in one folder."""
  small.write("cifar10", PY["cifar10"], folder / "cifar-10-batches-py")
  place = folder / "cifar-100-python"
  place.mkdir()
  for name, data in small.files("cifar100", PY["cifar100"]).items():
    if name in files:
      (place / name).write_bytes(data)
  return str(folder)


def test_held_out_classes_move_to_splits_of_their_own():
  whole, out = toy(), [3, 1]
  s = hold_out(whole, out)
  assert list(s.splits) == ["train", "test", "ood_train", "ood_test"]
  assert (s.num_classes, s.ood_classes) == (3, 2)
  assert s.class_names == ("toy0", "toy2", "toy4")
  for name in ("train", "test"):
    x, y = (whole.splits[name][key] for key in "xy")
    for classes, split in (([0, 2, 4], name), (out, f"ood_{name}")):
      rows = np.isin(y, classes)
      np.testing.assert_array_equal(s.splits[split]["x"], x[rows])
      np.testing.assert_array_equal(s.splits[split]["y"], [classes.index(c) for c in y[rows]])
      assert s.splits[split]["y"].dtype == np.int32
  assert "held out: toy3, toy1 (24 ood_train and 10 ood_test)" in s.origin


def test_mean_and_deviation_are_those_of_the_remaining_images():
  whole = toy()
  whole.splits["train"]["x"][whole.splits["train"]["y"] == 4] //= 4  # class 4 is dark
  assert whole.mean.shape == (1,)  # cached before the classes go
  s = hold_out(whole, [4])
  mean, std = channel_moments(whole.splits["train"]["x"][whole.splits["train"]["y"] != 4])
  np.testing.assert_array_equal(s.mean, mean)
  np.testing.assert_array_equal(s.std, std)
  assert s.mean > whole.mean + 0.05


def test_digits_hold_out_and_limit_by_name():
  s = load("digits", ood={"classes": (8, 9)}, limit=50)
  assert s.class_names == tuple("01234567")
  assert {name: len(split["y"]) for name, split in s.splits.items()} == dict.fromkeys(s.splits, 50)
  assert set(s.splits["ood_test"]["y"]) == {0, 1}
  assert s.splits["train"]["y"].max() == 7
  assert "first 50 of each split" in s.origin
  plain = load("digits", ood={})
  assert plain.ood_classes == 0
  assert list(plain.splits) == ["train", "test"]


def test_test_images_are_divided_four_to_one_in_every_class():
  split = toy(classes=3, train=150)._split("train")
  split["y"] = np.sort(split["y"])[::-1].astype(np.int32)
  parts = divide(split)
  for c in range(3):
    rows = np.flatnonzero(split["y"] == c)
    np.testing.assert_array_equal(
      parts["test"]["x"][parts["test"]["y"] == c], split["x"][rows[4::5]]
    )
    kept = np.setdiff1d(rows, rows[4::5])
    np.testing.assert_array_equal(parts["train"]["x"][parts["train"]["y"] == c], split["x"][kept])


def test_another_set_brings_both_splits_or_its_test_images_alone():
  own, other = toy(), toy("other", classes=4, train=80, test=40, seed=1)
  both = beside(own, other)
  for name in ("train", "test"):
    np.testing.assert_array_equal(both.splits[f"ood_{name}"]["x"], other.splits[name]["x"])
    assert both.splits[name] is own.splits[name]
  assert (both.num_classes, both.ood_classes) == (5, 4)
  alone = beside(own, other._replace(splits={"test": other.splits["test"]}), [2, 0])
  asked = beside(own, other, [2, 0], test_only=True)
  for name, count in (("ood_train", 16), ("ood_test", 4)):
    assert len(alone.splits[name]["y"]) == count
    np.testing.assert_array_equal(np.bincount(alone.splits[name]["y"]), [count // 2] * 2)
    np.testing.assert_array_equal(alone.splits[name]["x"], asked.splits[name]["x"])
  assert "2 classes of made up other, its test images divided 4:1" in alone.origin


def test_a_folder_with_the_test_images_alone_serves_this_use_only(small, tmp_path):
  for name in ("cifar10", "cifar100"):  # 20 images of class 0 and 1 in turn: 8 of each to train on
    small.arrays[name]["test"]["y"] = np.arange(20, dtype=np.int32) % 2
  folder = write_pair(small, tmp_path, files=("test",))
  ood = {"name": "cifar100", "classes": (0, 1)}
  s = load("cifar10", dir=folder, download=False, ood=ood)
  x = small.arrays["cifar100"]["test"]["x"]
  np.testing.assert_array_equal(s.splits["ood_test"]["x"], x[[8, 9, 18, 19]])
  assert len(s.splits["ood_train"]["y"]) == 16
  assert "cifar100: 20 test images" in s.origin and "divided 4:1" in s.origin
  with pytest.raises(DataFileError, match=r"missing train\. .*but for data\.ood"):
    load("cifar100", dir=folder, download=False)


def test_a_whole_set_is_taken_whole_unless_the_config_says_otherwise(small, tmp_path):
  for split in small.arrays["cifar100"].values():
    split["y"] = np.arange(len(split["y"]), dtype=np.int32) % 2
  folder = write_pair(small, tmp_path)
  ood = {"name": "cifar100", "classes": [0, 1]}
  counts = {"ood_train": 50, "ood_test": 20}
  for more, expected in (({}, counts), ({"test_only": True}, {"ood_train": 16, "ood_test": 4})):
    s = load("cifar10", dir=folder, download=False, ood=ood | more)
    assert {name: len(s.splits[name]["y"]) for name in expected} == expected
  assert list(load_other("cifar100", dir=folder).splits) == ["train", "test"]


def load_toy(name):
  return toy(name, shape=(8, 8, 1)) if name == "large" else toy(name, test=20)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"class": [1]}, r"data\.ood\.class is unknown; use name, classes, test_only"),
    ({"classes": [1, 5]}, r"5 is no class; toy has the classes 0 to 4"),
    ({"classes": [-1]}, r"-1 is no class"),
    ({"classes": [True]}, r"True is no class"),
    ({"classes": [1, 1]}, r"\[1, 1\]: name every class once"),
    ({"classes": []}, r"must be a list of class numbers"),
    ({"classes": "89"}, r"'89' must be a list of class numbers"),
    ({"classes": 8}, r"8 must be a list of class numbers"),
    ({"classes": [0, 1, 2, 3]}, r"leave 1 of the 5 classes of toy"),
    ({"classes": [0], "test_only": True}, r"give classes to hold out, or the name"),
    ({"test_only": True}, r"give classes to hold out, or the name"),
    ({"name": "toy"}, r"'toy' is the data set itself"),
    ({"name": "large"}, r"'large' has images of shape \(8, 8, 1\), toy of \(4, 4, 1\)"),
    ({"name": "few", "classes": [9]}, r"9 is no class; few has the classes 0 to 4"),
    ({"name": "few", "test_only": True}, r"'ood_test' has no image of 5 of the 5 classes .* few"),
  ],
)
def test_what_cannot_be_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    add_ood(toy(), options, load_toy)


def test_a_class_without_images_is_named():
  s = toy()
  s.splits["test"]["y"][s.splits["test"]["y"] == 2] = 0
  with pytest.raises(ValueError, match=r"'ood_test' has no image of 1 of the 2 .*place 1 in"):
    hold_out(s, [4, 2])


def test_drawn_data_and_unknown_names_are_refused():
  with pytest.raises(
    ValueError, match=r"data\.name='dirichlet': it needs a set of labelled images"
  ):
    load("dirichlet", contexts=3, classes=4, concentration=0.1, ood={"classes": [1]})
  with pytest.raises(ValueError, match=r"data\.ood\.name='ptb' is no image set; known are digits,"):
    load("digits", ood={"name": "ptb"})
