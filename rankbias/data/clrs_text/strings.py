"""Algorithms on strings over four letters: longest common subsequence, matching; random inputs.

A question holds two strings one after the other in `key`, and in `string` a 0 for every letter of
the first and a 1 for every letter of the second; `length` counts both. The distributions are
inferred from a sample of the benchmark's examples, whose answers the tests check; they are not held
against the random numbers of its generator.
"""

import numpy as np

from rankbias.data.clrs_text.text import Value

LETTERS = 4


def draw_pair(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws two strings of uniform letters, the second of floor(length / 2) letters."""
  second = length // 2
  letters = rng.integers(0, LETTERS, length).tolist()
  return {"string": [0] * (length - second) + [1] * second, "key": letters}


def draw_needle(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws a haystack and a needle that it contains.

  The needle has max(1, floor(length / 5)) letters. It is written over the haystack at a uniform
  position, from the first to the last but one of those where it fits, so that it ends the haystack
  by chance only.
  """
  size = max(1, length // 5)
  rest = length - size
  needle = rng.integers(0, LETTERS, size).tolist()
  haystack = rng.integers(0, LETTERS, rest).tolist()
  position = int(rng.integers(0, rest - size))
  haystack[position : position + size] = needle
  return {"string": [0] * rest + [1] * size, "key": haystack + needle}


def common_subsequence(string: list[int], key: list[int]) -> tuple[Value, ...]:
  """The table b of the longest common subsequence: 0 diagonal, 1 up, 2 left; -1 elsewhere.

  With c the length for prefixes (0 outside), b[i, j] = 0 where the letters agree, else 1 where
  c[i-1, j] >= c[i, j-1], else 2. Rows and columns of b stand for the letters of both strings, and
  only first x second is filled.
  """
  split, size = string.index(1), len(key)
  first, second = key[:split], key[split:]
  blank, above, table = [-1] * split, [0] * (size - split + 1), []
  for letter in first:
    row, moves = [0], []
    for j, other in enumerate(second):
      if letter == other:
        move, best = 0, above[j] + 1
      elif above[j + 1] >= row[j]:
        move, best = 1, above[j + 1]
      else:
        move, best = 2, row[j]
      moves.append(move)
      row.append(best)
    above = row
    table.append(blank + moves)
  return (table + [[-1] * size] * (size - split),)


def match(string: list[int], key: list[int]) -> tuple[Value, ...]:
  """The first position of the needle in the haystack; the haystack's length if it is nowhere."""
  split = string.index(1)
  found = bytes(key[:split]).find(bytes(key[split:]))
  return (split if found < 0 else found,)
