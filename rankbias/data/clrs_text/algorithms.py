"""The algorithms of CLRS-Text that are built here, and examples of them: draw inputs, solve."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from rankbias.data.clrs_text import graphs, sequences, strings
from rankbias.data.clrs_text.text import Value, read_question, write_answer, write_question

SHORTEST = 4  # as in the benchmark; shorter strings and graphs leave almost nothing to ask


class Algorithm(NamedTuple):
  """One algorithm: what it is asked, what it is called with, what it answers.

  Fields:
    draw: (length, rng) -> inputs by name, in the order in which the question states them.
    solve: inputs by name -> the results, in the order of `outputs`.
    outputs: the names of the results, as the question states them.
  """

  draw: Callable[[int, np.random.Generator], dict[str, Value]]
  solve: Callable[..., tuple[Value, ...]]
  outputs: str


class Example(NamedTuple):
  """A question and its answer; their concatenation is the text that a model is trained on."""

  question: str
  answer: str
  algorithm: str
  length: int


_SORT = Algorithm(sequences.draw_key, sequences.sort, "pred")
_MATCH = Algorithm(strings.draw_needle, strings.match, "match")

ALGORITHMS: dict[str, Algorithm] = {
  "insertion_sort": _SORT,
  "bubble_sort": _SORT,
  "heapsort": _SORT,
  "quicksort": _SORT,
  "minimum": Algorithm(sequences.draw_key, sequences.minimum, "min"),
  "quickselect": Algorithm(sequences.draw_key, sequences.quickselect, "median"),
  "binary_search": Algorithm(sequences.draw_search, sequences.binary_search, "return"),
  "find_maximum_subarray_kadane": Algorithm(
    sequences.draw_signed_key, sequences.maximum_subarray, "start, end"
  ),
  "lcs_length": Algorithm(strings.draw_pair, strings.common_subsequence, "b"),
  "naive_string_matcher": _MATCH,
  "kmp_matcher": _MATCH,
  "bfs": Algorithm(graphs.draw_undirected, graphs.breadth_first, "pi"),
  "dfs": Algorithm(graphs.draw_directed, graphs.depth_first, "pi"),
  "topological_sort": Algorithm(graphs.draw_acyclic, graphs.topological_order, "topo, topo_head"),
}


def check_names(names: Iterable[str]) -> None:
  """Raises a ValueError with the nearest spelling unless all are names of algorithms."""
  for name in names:
    if name not in ALGORITHMS:
      near = difflib.get_close_matches(name, ALGORITHMS, n=1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(f"algorithm {name!r} is unknown; known are {', '.join(ALGORITHMS)}.{hint}")


def ask(name: str, length: int, rng: np.random.Generator) -> str:
  """Draws a question about an algorithm with inputs of a length; see `sample`."""
  check_names([name])
  if length < SHORTEST:
    raise ValueError(f"length={length}: must be at least {SHORTEST}, as in the benchmark")
  algorithm = ALGORITHMS[name]
  return write_question(name, algorithm.draw(length, rng), algorithm.outputs)


def solve(question: str) -> str:
  r"""Returns the answer to a question, whoever wrote it, by running the algorithm on its inputs.

  Raises:
    ValueError: the text is no question, or none about an algorithm that is built here, or it has
      other inputs than the algorithm.

  Example: solve("minimum:\nkey: [0.5 0.29]\nmin:\n") is "1\n\n".
  """
  name, inputs = read_question(question)
  check_names([name])
  algorithm = ALGORITHMS[name]
  expected = write_question(name, inputs, algorithm.outputs)
  if question != expected:
    raise ValueError(f"question={question!r}: it would be written {expected!r}")
  needed = list(inspect.signature(algorithm.solve).parameters)
  if list(inputs) != needed:
    raise ValueError(f"question={question!r}: the inputs of {name} must be {', '.join(needed)}")
  return write_answer(algorithm.solve(**inputs))


def sample(name: str, length: int, rng: np.random.Generator) -> Example:
  r"""Draws one example.

  Args:
    length: the number of items, letters (of both strings together) or nodes; at least 4.
    rng: the only source of randomness: the same state gives the same example.

  Raises:
    ValueError: the algorithm is unknown, or the length below 4.

  Example: sample("minimum", 4, np.random.default_rng(0)).question is
    "minimum:\nkey: [0.636 0.269 0.04 0.016]\nmin:\n", and its answer is "3\n\n".
  """
  question = ask(name, length, rng)
  return Example(question, solve(question), name, length)
