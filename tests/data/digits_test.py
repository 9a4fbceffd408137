"""The digits inside scikit-learn: values, split and order."""

import numpy as np
from sklearn import datasets

from rankbias.data import load


def test_the_split_is_a_stratified_partition():
  s = load("digits")
  train, test = s.splits["train"], s.splits["test"]
  assert train["x"].shape == (1437, 8, 8, 1)
  assert test["x"].shape == (360, 8, 8, 1)
  assert train["x"].dtype == np.uint8
  share = np.bincount(test["y"]) / np.bincount(np.concatenate([train["y"], test["y"]]))
  assert share.shape == (10,)
  assert np.all(abs(share - 0.2) < 0.006)


def test_grey_values_are_kept():
  s = load("digits")
  bunch = datasets.load_digits()
  back = np.concatenate([s.splits[k]["x"][..., 0] * 16.0 / 255 for k in ("train", "test")])
  assert set(np.unique(np.round(back))) == set(range(17))
  assert abs(back - np.round(back)).max() < 0.04
  order = np.lexsort(np.round(back).reshape(len(back), -1).T)
  original = bunch.images.reshape(len(back), -1)
  reference = np.lexsort(original.T)
  np.testing.assert_array_equal(np.round(back).reshape(len(back), -1)[order], original[reference])


def test_labels_belong_to_their_images():
  """The first image is a 0 and the second a 1, as in scikit-learn; a mean image tells classes."""
  s = load("digits")
  train, test = s.splits["train"], s.splits["test"]
  means = np.stack([train["x"][train["y"] == c].mean(0) for c in range(10)])
  distance = ((test["x"][:, None] - means[None]) ** 2).sum((2, 3, 4))
  assert (distance.argmin(1) == test["y"]).mean() > 0.85


def test_it_is_the_same_every_time():
  a, b = load("digits"), load("digits", dir="/nonexistent", download=False)
  np.testing.assert_array_equal(a.splits["train"]["x"], b.splits["train"]["x"])
  assert a.class_names == tuple("0123456789")
