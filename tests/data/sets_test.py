"""Sets for max retrieval: what is drawn, from what, and what is refused."""

import jax
import numpy as np
import pytest

from rankbias import data


@pytest.fixture(scope="module")
def source():
  return data.load("max_retrieval", sizes=(5, 16), classes=10)


def test_the_label_is_the_class_of_the_largest_priority(source):
  x, y = jax.device_get(source.draw("test", 0, count=512, n=9))
  assert x.shape == (512, 10, 11)
  items = x[:, 1:]
  assert (items[:, :, 1:].sum(-1) == 1).all()
  assert (items[:, :, 1:].argmax(-1)[np.arange(512), items[:, :, 0].argmax(1)] == y).all()
  assert (x[:, 0, 1:] == 0).all()


def test_priorities_classes_and_queries_are_uniform_and_independent(source):
  x, y = jax.device_get(source.draw("test", 1, count=4096, n=8))
  numbers, kinds = x[:, :, 0], x[:, 1:, 1:].argmax(-1)
  assert (numbers >= 0).all() and (numbers < 1).all()
  np.testing.assert_allclose(numbers.mean(0), 0.5, atol=5 / np.sqrt(12 * 4096))
  np.testing.assert_allclose(np.bincount(kinds.ravel()) / kinds.size, 0.1, atol=0.01)
  correlation = np.corrcoef(np.c_[numbers, kinds, y].T) - np.eye(18)
  assert np.abs(correlation[:17, :17]).max() < 5 / np.sqrt(4096)
  assert abs(correlation[0, 17]) < 5 / np.sqrt(4096)  # the query says nothing about the label


def test_draws_are_a_function_of_their_arguments(source):
  first, again = (source.draw("test", 3, count=4, n=5)[0] for _ in range(2))
  np.testing.assert_array_equal(first, again)
  for split, part in (("test", 4), ("heldout", 3)):
    assert not np.array_equal(first, source.draw(split, part, count=4, n=5)[0])


def test_a_step_has_one_size_for_all_and_all_sizes_come(source):
  forms = [source.variant(step) for step in range(600)]
  assert forms == [source.variant(step) for step in range(600)]
  assert set(forms) == set(range(12))
  counts = np.bincount(forms)
  np.testing.assert_allclose(counts, 50, atol=5 * np.sqrt(50))
  keys = jax.random.split(jax.random.key(0), 3)
  for form in (0, 11):
    x, y, weights = source.examples({}, keys, form, dtype="float32", crop=0, flip=False)
    assert x.shape == (3, 1 + 5 + form, 11)
    assert y.shape == (3,)
    assert weights is None


def test_an_example_depends_on_its_key_alone(source):
  keys = jax.random.split(jax.random.key(0), 4)
  whole = source.examples({}, keys, 2, dtype="float32", crop=0, flip=False)[0]
  part = source.examples({}, keys[2:], 2, dtype="float32", crop=0, flip=False)[0]
  np.testing.assert_array_equal(whole[2:], part)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"sizes": (6, 5)}, r"data.sizes=\(6, 5\) must be \(smallest, largest\)"),
    ({"sizes": (0, 5)}, r"data.sizes=\(0, 5\)"),
    ({"classes": 1}, "data.classes=1 must be at least 2"),
    ({"size": 3}, "data set 'max_retrieval' has no option 'size'; it takes classes, sizes"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    data.load("max_retrieval", **options)


def test_no_set_of_no_items(source):
  with pytest.raises(ValueError, match="n=0: use one of .*heldout.*, and at least one set of one"):
    source.draw("test", 0, count=1, n=0)
  with pytest.raises(ValueError, match="split='train'"):
    source.draw("train", 0, count=1, n=1)
