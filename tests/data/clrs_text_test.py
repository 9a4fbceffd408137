"""CLRS-Text against the benchmark's own strings, its tokens, and the arrays made of them."""

import json
import pathlib
import zlib

import numpy as np
import pytest

from rankbias.data.clrs_text import (
  ALGORITHMS,
  END,
  NUM_TOKENS,
  PAD,
  decode,
  encode,
  make_clrs_text,
  sample,
  solve,
)
from rankbias.data.clrs_text.algorithms import write_question
from rankbias.data.clrs_text.splits import SIX, held_out
from rankbias.data.clrs_text.text import read_question
from rankbias.data.clrs_text.tokens import CHARACTERS

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/clrs_text.jsonl"
EXAMPLES = [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def golden(name):
  return [example for example in EXAMPLES if example["algo_name"] == name]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_strings_are_those_of_the_benchmark(name):
  examples = golden(name)
  assert {4, 5, 10, 11} <= {example["length"] for example in examples}
  for example in examples:
    read, inputs = read_question(example["question"])
    assert read == name
    assert write_question(name, inputs, ALGORITHMS[name].outputs) == example["question"]
    assert solve(example["question"]) == example["answer"]
    assert len(inputs.get("key", inputs.get("A"))) == example["length"]


def test_equal_numbers_are_among_the_golden_strings():
  tied = [
    example
    for name in ("quickselect", "minimum")
    for example in golden(name)
    if len(set(key := read_question(example["question"])[1]["key"])) < len(key)
  ]
  assert len(tied) >= 3


@pytest.mark.parametrize("name", ["minimum", "binary_search", "find_maximum_subarray_kadane"])
def test_numbers_are_drawn_as_in_the_benchmark(name):
  """The golden strings begin with the first example of each length, which had seed 0."""
  for length in (4, 5, 10, 11, 12):
    first = next(example for example in golden(name) if example["length"] == length)
    inputs = ALGORITHMS[name].draw(length, np.random.RandomState(0))
    assert write_question(name, inputs, ALGORITHMS[name].outputs) == first["question"]


def test_graphs_have_the_densities_of_the_benchmark():
  rng = np.random.default_rng(0)
  off = ~np.eye(12, dtype=bool)
  draws = {
    name: np.array([ALGORITHMS[name].draw(12, rng)["A"] for _ in range(500)])
    for name in ("bfs", "dfs", "topological_sort")
  }
  for name, edges, loops in (("bfs", 0.25, 0.5), ("dfs", 0.5, 0.5), ("topological_sort", 0.25, 0)):
    assert draws[name][:, off].mean() == pytest.approx(edges, abs=0.01)  # five standard errors
    assert draws[name][:, ~off].mean() == pytest.approx(loops, abs=0.04)
  np.testing.assert_array_equal(draws["bfs"], draws["bfs"].transpose(0, 2, 1))
  assert not np.linalg.matrix_power(draws["topological_sort"][0], 12).any()
  assert np.tril(draws["topological_sort"]).any()


def test_needles_are_found_and_sources_are_anywhere():
  rng = np.random.default_rng(0)
  answers = {int(sample("kmp_matcher", 12, rng).answer) for _ in range(300)}
  assert answers == set(range(8))  # a haystack of 10 letters, a needle of 2
  sources = [ALGORITHMS["bfs"].draw(5, rng)["s"] for _ in range(100)]
  assert set(sources) == set(range(5))


def test_a_needle_that_is_not_there():
  question = "kmp_matcher:\nstring: [0 0 0 1], key: [0 1 2 3]\nmatch:\n"
  assert solve(question) == "3\n\n"


def test_sample_is_a_function_of_the_state_of_the_generator():
  example = sample("minimum", 4, np.random.default_rng(0))
  assert example.question == "minimum:\nkey: [0.636 0.269 0.04 0.016]\nmin:\n"
  assert example.answer == "3\n\n"
  assert (example.algorithm, example.length) == ("minimum", 4)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("length", [4, 7, 48])
def test_questions_can_be_read_and_encoded_at_any_length(name, length):
  example = sample(name, length, np.random.default_rng(length))
  text = example.question + example.answer
  assert decode(encode(text)) == text
  assert solve(example.question) == example.answer


def test_tokens_are_fixed():
  assert (PAD, END, NUM_TOKENS) == (0, 1, 48)
  np.testing.assert_array_equal(encode(CHARACTERS), np.arange(2, 48))
  assert encode("0").dtype == np.uint8
  np.testing.assert_array_equal(encode("[0]"), [20, 7, 21])
  np.testing.assert_array_equal(encode("y"), [47])


def test_decode_ends_at_the_first_end_token():
  assert decode(np.array([7, PAD, 8, END, 9, PAD])) == "01"
  assert decode(np.array([], np.uint8)) == ""


PINNED = 3192789265  # of the arrays below: changes with the format, a distribution or the split
SMALL = {"algorithms": SIX, "test_lengths": (16, 24), "number": 270, "test_number": 108}


@pytest.fixture(scope="module")
def splits():
  return make_clrs_text(seed=0, **SMALL)


def texts(split):
  rows = zip(split["x"], split["start"], split["end"], strict=True)
  return [(decode(x[:start]), decode(x[start:end])) for x, start, end in rows]


def test_rows_are_a_question_an_answer_an_end_and_padding(splits):
  assert list(splits) == ["train", "test", "test/16", "test/24"]
  for split in splits.values():
    assert split["x"].dtype == np.uint8
    assert {split[key].dtype for key in ("start", "end", "algorithm", "length")} == {
      np.dtype(np.int32)
    }
    assert split["x"].shape == (len(split["start"]), split["end"].max())
    for row, end in zip(split["x"], split["end"], strict=True):
      assert row[end - 1] == END
      assert not row[end:].any()
      assert (row[: end - 1] > END).all()
    for (question, answer), index in zip(texts(split), split["algorithm"], strict=True):
      assert question.startswith(SIX[index] + ":\n")
      assert solve(question) == answer


def test_algorithms_and_lengths_take_turns(splits):
  for name, lengths in (("train", range(4, 13)), ("test", range(4, 13)), ("test/16", [16])):
    pairs = list(zip(splits[name]["algorithm"], splits[name]["length"], strict=True))
    counts = {pair: pairs.count(pair) for pair in pairs}
    assert counts == dict.fromkeys(
      [(i, n) for i in range(6) for n in lengths], len(pairs) // (6 * len(lengths))
    )


def test_splits_share_no_question_whatever_the_seed(splits):
  other = make_clrs_text(seed=1, **SMALL)
  train = {question for question, _ in texts(splits["train"]) + texts(other["train"])}
  for name in ("test", "test/16", "test/24"):
    questions = {question for question, _ in texts(splits[name]) + texts(other[name])}
    assert not train & questions
    assert all(map(held_out, questions))
  assert not any(map(held_out, train))
  assert set(texts(splits["test"])) != set(texts(other["test"]))


def test_a_task_without_test_questions_fails(monkeypatch):
  monkeypatch.setattr("rankbias.data.clrs_text.splits.held_out", lambda question: False)
  with pytest.raises(ValueError, match="'minimum' of length 4 has too few different questions"):
    make_clrs_text(algorithms=["minimum"], number=1)


def test_an_eighth_of_the_questions_is_held_out_of_the_smallest_task_too():
  rng = np.random.default_rng(0)
  questions = {sample("lcs_length", 4, rng).question for _ in range(4000)}
  assert len(questions) == 256
  assert 16 <= sum(map(held_out, questions)) <= 48


def test_the_data_set_is_a_pure_function_of_its_arguments(splits):
  again = make_clrs_text(seed=0, **SMALL)
  fewer = make_clrs_text(seed=0, **{**SMALL, "number": 100})["train"]
  for name, split in splits.items():
    for key, array in split.items():
      np.testing.assert_array_equal(array, again[name][key])
  width = fewer["x"].shape[1]
  np.testing.assert_array_equal(fewer["x"], splits["train"]["x"][:100, :width])
  assert zlib.crc32(b"".join(split["x"].tobytes() for split in splits.values())) == PINNED


def test_lengths_by_algorithm():
  made = make_clrs_text(
    algorithms=["minimum", "bfs"],
    lengths={"minimum": (4, 9), "bfs": (4,)},
    test_lengths={"minimum": (16, 48), "bfs": (16,)},
    number=6,
    test_number=4,
  )
  assert list(made) == ["train", "test", "test/16", "test/48"]
  assert made["train"]["length"].tolist() == [4, 9, 4] * 2
  assert made["train"]["algorithm"].tolist() == [0, 0, 1] * 2
  assert made["test/48"]["algorithm"].tolist() == [0] * 4
  assert made["test/48"]["x"].shape[1] < 330


def test_failures_name_the_value():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match=r"'insertionsort' is unknown; .* mean 'insertion_sort'\?"):
    sample("insertionsort", 4, rng)
  with pytest.raises(ValueError, match=r"'dijkstra' is unknown"):
    make_clrs_text(algorithms=["dijkstra"])
  with pytest.raises(ValueError, match="length=3: must be at least 4"):
    sample("bfs", 3, rng)
  with pytest.raises(ValueError, match="number=0: must be at least 1"):
    make_clrs_text(number=0)
  with pytest.raises(ValueError, match="there is no example to draw"):
    make_clrs_text(lengths=())
  with pytest.raises(ValueError, match=r"test_lengths is for \['bsf'\]: must be for \['bfs'\]"):
    make_clrs_text(algorithms=["bfs"], test_lengths={"bsf": [16]})


@pytest.mark.parametrize(
  ("question", "message"),
  [
    ("minimum: key: [0.1]", "must be three lines"),
    ("minimum:\nkey [0.1]\nmin:\n", "no input of the form 'name: value' at 'key"),
    ("minimum:\nkey: [0.1 0.x]\nmin:\n", "'0.x' is neither an integer nor a decimal number"),
    ("minimum:\nkey: [0.10]\nmin:\n", r"would be written 'minimum:\\nkey: \[0.1\]"),
    ("minimum:\nkay: [0.1]\nmin:\n", "the inputs of minimum must be key"),
    ("minimun:\nkey: [0.1]\nmin:\n", r"Did you mean 'minimum'\?"),
  ],
)
def test_what_is_no_question(question, message):
  with pytest.raises(ValueError, match=message):
    solve(question)


def test_characters_and_tokens_outside_the_table():
  with pytest.raises(ValueError, match="character 'Z' at position 2 has no token"):
    encode("0 Z")
  with pytest.raises(ValueError, match="character '→' at position 0"):
    encode("→")
  with pytest.raises(ValueError, match="token 48 is no character"):
    decode(np.array([7, 48]))
