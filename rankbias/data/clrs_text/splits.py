"""CLRS-Text as arrays of tokens: a training split, a test split like it, and longer test splits."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from rankbias.data.clrs_text.algorithms import Example, ask, check_names, solve
from rankbias.data.clrs_text.tokens import END, encode

SIX = ("insertion_sort", "minimum", "binary_search", "bfs", "lcs_length", "quickselect")
TRAIN_LENGTHS, TEST_LENGTHS = tuple(range(4, 13)), (16, 24, 32, 48)

Lengths = Sequence[int] | Mapping[str, Sequence[int]]
Cell = tuple[str, int]  # an algorithm and a length

_TRIES = 1000  # a test question comes once in 8 draws; none in so many means that there is none


def make_clrs_text(
  *,
  seed: int = 0,
  algorithms: Sequence[str] = SIX,
  lengths: Lengths = TRAIN_LENGTHS,
  test_lengths: Lengths = TEST_LENGTHS,
  number: int = 100_000,
  test_number: int = 1_000,
) -> dict[str, dict[str, np.ndarray]]:
  """Makes the data set, a pure function of its arguments.

  The splits are "train", "test" (the same algorithms and lengths) and "test/16", "test/24", ...
  Each is {"x": uint8 [N, L] tokens, padded with 0 to the longest text of the split; "start":
  int32 [N] position of the first token of the answer; "end": int32 [N] one past its last token,
  which is the end token; "algorithm": int32 [N] index into `algorithms`; "length": int32 [N]}.
  So x[i, :start[i]] is the question and x[i, start[i]:end[i]] the answer that is asked for.

  The pairs (algorithm, length) of a split take turns, so that each has N / pairs examples, up to
  one, and a smaller `number` gives the first examples of a larger one. No question of "train" is
  in any other split, with whatever seeds and numbers both were made: an eighth of all questions,
  chosen by a hash of the text, is kept for the tests, and the rest is for training. Within a split
  small tasks do repeat, as in the benchmark (two strings of two letters make 256 questions).

  An example of length n has about 6 n + 25 to 7 n + 50 tokens where numbers are searched, 4 n + 50
  where strings are matched, 12 n + 30 for sorting, 2 n^2 + 6 n for graphs and 2.75 n^2 + 8 n for
  lcs_length: at n = 12 up to 140, 100, 180, 400 and 516, at n = 48 up to 380, 250, 610, 4,940 and
  6,708. So the splits of long lengths are best made without the last two kinds.

  Args:
    lengths: for all algorithms, or by algorithm, such as {"minimum": range(4, 13), "bfs": [4, 5]}.
    test_lengths: likewise; {"minimum": (16, 48), "bfs": (16,)} puts minimum alone in "test/48".
    number, test_number: examples in "train", and in each of the other splits.

  Raises:
    ValueError: an algorithm is unknown, a number is out of its range, or there is nothing to draw.

  Example: make_clrs_text(algorithms=["minimum"], number=9, test_number=9)["train"]["length"] is
    [4, 5, 6, 7, 8, 9, 10, 11, 12].
  """
  check_names(algorithms)
  for name, value, least in (
    ("seed", seed, 0),
    ("number", number, 1),
    ("test_number", test_number, 1),
  ):
    if value < least:
      raise ValueError(f"{name}={value}: must be at least {least}")
  trained = _cells("lengths", algorithms, lengths)
  tested = _cells("test_lengths", algorithms, test_lengths)
  if not trained:
    raise ValueError(f"algorithms={algorithms}, lengths={lengths}: there is no example to draw")
  splits = {"train": (trained, number, (seed, 0)), "test": (trained, test_number, (seed, 1))}
  for length in sorted({length for _, length in tested}):
    cells = [cell for cell in tested if cell[1] == length]
    splits[f"test/{length}"] = (cells, test_number, (seed, 2, length))
  return {
    split: _arrays(_examples(cells, count, key, split != "train"), algorithms)
    for split, (cells, count, key) in splits.items()
  }


def held_out(question: str) -> bool:
  """Whether a question is kept for the tests: true for an eighth of all, by a hash of its text."""
  return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] < 32


def _cells(argument: str, algorithms: Sequence[str], lengths: Lengths) -> list[Cell]:
  if isinstance(lengths, Mapping):
    if set(lengths) != set(algorithms):
      raise ValueError(f"{argument} is for {sorted(lengths)}: must be for {sorted(algorithms)}")
  else:
    lengths = dict.fromkeys(algorithms, lengths)
  return [(name, int(length)) for name in algorithms for length in lengths[name]]


def _examples(cells: list[Cell], count: int, key: tuple[int, ...], test: bool) -> list[Example]:
  """Draws `count` examples, each cell in turn, from the questions of the tests or the others."""
  rng = np.random.default_rng(key)
  examples = []
  for i in range(count):
    name, length = cells[i % len(cells)]
    question = _ask(name, length, rng, test)
    examples.append(Example(question, solve(question), name, length))
  return examples


def _ask(name: str, length: int, rng: np.random.Generator, test: bool) -> str:
  for _ in range(_TRIES):
    question = ask(name, length, rng)
    if held_out(question) == test:
      return question
  raise ValueError(f"{name!r} of length {length} has too few different questions for a test split")


def _arrays(examples: list[Example], algorithms: Sequence[str]) -> dict[str, np.ndarray]:
  texts = [encode(example.question + example.answer) for example in examples]
  start = np.array([len(example.question) for example in examples], np.int32)
  end = np.array([len(text) + 1 for text in texts], np.int32)
  x = np.zeros((len(texts), end.max()), np.uint8)  # the pad token is 0
  for row, text in zip(x, texts, strict=True):
    row[: len(text)] = text
    row[len(text)] = END
  number = {name: i for i, name in enumerate(algorithms)}
  return {
    "x": x,
    "start": start,
    "end": end,
    "algorithm": np.array([number[example.algorithm] for example in examples], np.int32),
    "length": np.array([example.length for example in examples], np.int32),
  }
