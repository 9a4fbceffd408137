"""Algorithms on sequences of numbers: sorting, searching, selecting; with their random inputs.

The distributions are inferred from a sample of the benchmark's examples. With the random numbers of
its generator (NumPy's legacy seed 0) they give its first question of `minimum`, `binary_search` and
`find_maximum_subarray_kadane` at each of five lengths, which the tests check. Numbers are cut, not
rounded, to three decimals BEFORE the algorithm runs, so a question determines its answer, and equal
numbers do occur.
"""

from bisect import bisect_left

import numpy as np

from rankbias.data.clrs_text.text import Value


def draw_numbers(length: int, rng: np.random.Generator, low: float = 0.0) -> list[float]:
  """Draws numbers uniform on [low, 1), cut to three decimals (towards zero, so -0.0 exists)."""
  return (np.trunc(rng.uniform(low, 1.0, length) * 1000) / 1000).tolist()


def draw_key(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws `length` numbers uniform on [0, 1)."""
  return {"key": draw_numbers(length, rng)}


def draw_signed_key(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws `length` numbers uniform on [-1, 1)."""
  return {"key": draw_numbers(length, rng, low=-1.0)}


def draw_search(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws `length` numbers in ascending order, and a target that is rarely among them."""
  return {"key": sorted(draw_numbers(length, rng)), "target": draw_numbers(1, rng)[0]}


def sort(key: list[float]) -> tuple[Value, ...]:
  """The numbers in ascending order; equal numbers look alike, so every sort answers this."""
  return (sorted(key),)


def minimum(key: list[float]) -> tuple[Value, ...]:
  """The position of the smallest number, the first one of several."""
  return (key.index(min(key)),)


def binary_search(key: list[float], target: float) -> tuple[Value, ...]:
  """The first position whose number is at least the target; the last position if none is."""
  return (min(bisect_left(key, target), len(key) - 1),)


def quickselect(key: list[float]) -> tuple[Value, ...]:
  """The position of the median, the number of rank n // 2 counted from 0.

  Which one of several equal numbers is answered depends on the partitions, so they are those of the
  textbook: the last number is the pivot, and numbers up to and including it move to the front.
  """
  order = list(range(len(key)))
  low, high, rank = 0, len(key) - 1, len(key) // 2
  while True:
    pivot, i = key[order[high]], low
    for j in range(low, high):
      if key[order[j]] <= pivot:
        order[i], order[j] = order[j], order[i]
        i += 1
    order[i], order[high] = order[high], order[i]
    if i == rank:
      return (order[i],)
    low, high = (low, i - 1) if rank < i else (i + 1, high)


def maximum_subarray(key: list[float]) -> tuple[Value, ...]:
  """First and last position of the run with the largest sum (Kadane), the earliest of several.

  A run goes on while sum + x >= x, in float64: exactly this comparison decides near-ties.
  """
  best = total = key[0]
  first, low, high = 0, 0, 0
  for j, x in enumerate(key[1:], 1):
    if total + x >= x:
      total += x
    else:
      first, total = j, x
    if total > best:
      best, low, high = total, first, j
  return low, high
