"""Texts in batches of like length: which are drawn, how they are cut, what is to be learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data
from rankbias.data.clrs_text import END, PAD, encode, solve
from rankbias.data.source import stream
from rankbias.data.text import ROUND

OPTIONS = {
  "algorithms": ("minimum", "kmp_matcher"),
  "lengths": (4, 5, 9),
  "test_lengths": (16,),
  "number": 300,
  "test_number": 20,
  "buckets": 3,
}


@pytest.fixture(scope="module")
def source():
  return data.load("clrs_text", **OPTIONS)


def batch_of(source, step, seed=0, size=8):
  """The examples of a step, as a device makes them."""
  rows = source.indices("train", step, size=size, seed=seed)
  constants = jax.tree.map(jnp.asarray, source.constants())
  keys = jax.random.split(jax.random.key(0), size)
  options = {"dtype": "float32", "crop": 0, "flip": False}
  batch = source.pick(constants, rows)
  return rows, *source.examples(batch, keys, source.variant(step), **options)


def test_what_is_to_be_learned_is_the_answer_and_its_end(source):
  for step in range(4):
    rows, x, following, weights = batch_of(source, step)
    for row, tokens, labels, weight in zip(rows, x, following, weights, strict=True):
      question, _, answer = source.text("train", row).rpartition(":\n")
      asked = np.asarray(labels)[np.asarray(weight) == 1]
      np.testing.assert_array_equal(asked, [*encode(solve(question + ":\n")), END])
      assert answer == solve(question + ":\n")
      (places,) = np.nonzero(np.asarray(weight))
      assert places[0] == len(question + ":\n") - 1  # read from the last token of the question
      np.testing.assert_array_equal(labels[:-1], tokens[1:])
      assert weight.sum() == len(asked)


def test_a_batch_is_as_wide_as_the_longest_text_of_its_bucket(source):
  ends = source.splits["train"]["end"]
  assert source.variants == len(source.widths) == 3
  assert source.widths[-1] == ends.max() == source.splits["train"]["x"].shape[1]
  assert sorted(np.concatenate(source.buckets)) == list(range(300))
  below = 0
  for width, bucket in zip(source.widths, source.buckets, strict=True):
    assert below < ends[bucket].min() and ends[bucket].max() == width
    below = width
  for step in range(8):
    rows, x, *_ = batch_of(source, step)
    assert set(rows) <= set(source.buckets[source.variant(step)])
    assert x.shape == (8, source.widths[source.variant(step)])
    assert (np.asarray(x) != PAD).sum(1).tolist() == ends[rows].tolist()


def test_buckets_come_in_proportion_to_their_texts(source):
  sizes = np.array([len(bucket) for bucket in source.buckets])
  for part in range(3):
    forms = [source.variant(part * ROUND + i) for i in range(ROUND)]
    np.testing.assert_allclose(np.bincount(forms), ROUND * sizes / 300, atol=1.5)
  assert forms != [source.variant(i) for i in range(ROUND)]


def test_every_bucket_is_a_stream_of_permutations_of_its_own(source):
  seen = {form: [] for form in range(3)}
  for step in range(3 * ROUND):
    seen[source.variant(step)].extend(source.indices("train", step, size=7, seed=5))
  for form, rows in seen.items():
    count = len(source.buckets[form])
    assert len(rows) > 2 * count
    for epoch in range(len(rows) // count):
      own = rows[epoch * count : (epoch + 1) * count]
      assert sorted(own) == sorted(source.buckets[form])


def test_a_curriculum_begins_with_the_shortest_and_skips_no_text():
  source = data.load("clrs_text", **OPTIONS, curriculum=4 * ROUND)
  forms = [[source.variant(part * ROUND + i) for i in range(ROUND)] for part in range(6)]
  assert [sorted(set(part)) for part in forms] == [[0], [0], [0, 1], [0, 1], [0, 1, 2], [0, 1, 2]]
  plain = data.load("clrs_text", **OPTIONS)
  assert forms[4] == [plain.variant(4 * ROUND + i) for i in range(ROUND)]
  seen = {form: [] for form in range(3)}
  for step in range(6 * ROUND):
    seen[source.variant(step)].extend(source.indices("train", step, size=3, seed=5))
  for form, rows in seen.items():
    own = source.buckets[form]
    assert sorted(rows[: len(own)]) == sorted(own)
    expected = own[stream(len(own), 0, len(rows), 5)]
    np.testing.assert_array_equal(rows, expected)


def test_order_depends_on_the_seed_and_texts_do_not(source):
  rows = [source.indices("train", 9, size=8, seed=seed) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(rows[0], rows[1])
  assert not np.array_equal(rows[0], rows[2])
  again = data.load("clrs_text", **OPTIONS)
  other = data.load("clrs_text", **OPTIONS, seed=1)
  np.testing.assert_array_equal(source.splits["train"]["x"], again.splits["train"]["x"])
  assert source.text("train", 0) != other.text("train", 0)


def test_tokens_of_the_question_can_be_learned_too():
  weighted = data.load("clrs_text", **OPTIONS, question_weight=0.25)
  _, _, following, weights = batch_of(weighted, 0)
  expected = np.where(np.asarray(following) == PAD, 0, 0.25)
  plain = batch_of(data.load("clrs_text", **OPTIONS), 0)[3]
  np.testing.assert_array_equal(weights, np.where(np.asarray(plain) == 1, 1, expected))


def test_texts_on_which_a_network_is_measured_are_fixed_and_narrow(source):
  x, y = source.fixed(10)
  np.testing.assert_array_equal(x, source.fixed(10)[0])
  assert x.shape == y.shape and (x[:, -1] != PAD).any()
  assert ((y >= 0).sum(1) >= 4).all()


def test_names_of_one_task_are_known_as_such(source):
  assert source.form.tasks == {"minimum": "minimum", "kmp_matcher": "naive_string_matcher"}
  both = source.form._replace(algorithms=("bfs", "naive_string_matcher", "heapsort")).tasks
  assert list(both.values()) == ["bfs", "naive_string_matcher", "insertion_sort"]


def test_fewer_texts_have_buckets_of_their_own(source):
  few = source.first(30)
  assert len(np.concatenate(few.buckets)) == 30
  assert few.splits["test/16"]["y"].shape[0] == 20
  alike = data.load("clrs_text", **OPTIONS | {"lengths": (4,), "algorithms": ("kmp_matcher",)})
  assert alike.variants == 1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"buckets": 0}, "data.buckets=0 must lie between 1 and 64"),
    ({"question_weight": -1.0}, "data.question_weight=-1.0 must be at least 0"),
    ({"curriculum": -1}, "data.curriculum=-1 must be at least 0"),
    ({"algorithms": ("minimun",)}, "'minimun' is unknown"),
    ({"letters": 3}, "data set 'clrs_text' has no option 'letters'; it takes algorithms, buckets"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    data.load("clrs_text", **options)


def test_refused_steps(source):
  with pytest.raises(ValueError, match="step=-1"):
    source.indices("train", -1, size=1, seed=0)
