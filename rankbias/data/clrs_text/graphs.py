"""Algorithms on graphs: breadth-first and depth-first search, topological order; random inputs.

Graphs are adjacency matrices A of 0 and 1. Their distributions are inferred from a sample of the
benchmark's examples; the tests check the densities of edges and self-loops.
"""

from itertools import pairwise

import numpy as np

from rankbias.data.clrs_text.text import Value

Matrix = list[list[int]]


def draw_undirected(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws a source s and a symmetric graph: edges with probability 1/4, self-loops with 1/2.

  The matrix is a fair coin for each entry times its transpose, hence the two probabilities.
  """
  coins = rng.integers(0, 2, (length, length))
  return {"s": int(rng.integers(0, length)), "A": (coins * coins.T).tolist()}


def draw_directed(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws a directed graph: every entry of the matrix, self-loops too, with probability 1/2."""
  return {"A": rng.integers(0, 2, (length, length)).tolist()}


def draw_acyclic(length: int, rng: np.random.Generator) -> dict[str, Value]:
  """Draws a directed graph without cycles: a coin for each pair i < j, then nodes shuffled."""
  coins = np.triu(rng.integers(0, 2, (length, length)), k=1)
  order = rng.permutation(length)
  return {"A": coins[order][:, order].tolist()}


def breadth_first(s: int, A: Matrix) -> tuple[Value, ...]:
  """The parent of each node in the breadth-first tree from s.

  It is the neighbour of smallest number in the previous level; s and the nodes that cannot be
  reached are their own parents.
  """
  parent, reached, level = list(range(len(A))), {s}, [s]
  while level:
    following = []
    for i in sorted(level):
      for j, edge in enumerate(A[i]):
        if edge and j not in reached:
          parent[j] = i
          reached.add(j)
          following.append(j)
    level = following
  return (parent,)


def depth_first(A: Matrix) -> tuple[Value, ...]:
  """The parent of each node in the depth-first forest; a root is its own parent.

  Roots and successors are tried in the order of their numbers.
  """
  return (_forest(A)[0],)


def topological_order(A: Matrix) -> tuple[Value, ...]:
  """The order as pointers: for each node the next one (the last points to itself), and the head.

  A node comes before all that depth-first search finished earlier.
  """
  order = _forest(A)[1][::-1]
  following = list(range(len(A)))
  for node, after in pairwise(order):
    following[node] = after
  return following, order[0]


def _forest(A: Matrix) -> tuple[list[int], list[int]]:
  """The parents of depth-first search, and the nodes in the order in which they are finished."""
  parent, seen, finished = list(range(len(A))), set(), []
  for root in range(len(A)):
    if root in seen:
      continue
    seen.add(root)
    path = [(root, enumerate(A[root]))]
    while path:
      node, row = path[-1]
      child = next((j for j, edge in row if edge and j not in seen), None)
      if child is None:
        finished.append(node)
        path.pop()
      else:
        parent[child] = node
        seen.add(child)
        path.append((child, enumerate(A[child])))
  return parent, finished
