"""The largest ball inside an intersection of half-spaces, by linear programs that grow."""

import numpy as np

# A ball smaller than this does not count: it is what rounding makes of an empty interior.
SMALLEST_RADIUS = 1e-8
# Slack of the linear programs; the smallest that HiGHS accepts.
TOLERANCE = 1e-10


def largest_ball(
  normals: np.ndarray, offsets: np.ndarray, *, box: float, start: np.ndarray
) -> tuple[np.ndarray, float]:
  """Returns centre and radius of the largest ball with  normals x <= offsets,  |x_i| <= box.

  The box holds the centre alone. A linear program on the few half-spaces that matter grows by the
  most violated others: a program on some of them bounds the radius from above, so that the search
  ends early, with a radius below SMALLEST_RADIUS, where a few already leave no room.

  Args:
    normals: [m, d]; a half-space of normal zero holds everywhere or nowhere.
    start: the half-spaces most violated here are taken first.

  Raises:
    RuntimeError: the solver failed.
  """
  sizes = np.linalg.norm(normals, axis=1)
  empty = sizes == 0
  if np.any(offsets[empty] <= 0):
    return start, -np.inf
  normals, offsets = normals[~empty] / sizes[~empty, None], offsets[~empty] / sizes[~empty]
  x, radius = start, np.inf
  used = np.zeros(len(offsets), bool)
  while not used.all():
    excess = np.where(used, -np.inf, normals @ x - offsets)
    if radius < SMALLEST_RADIUS or excess.max() + radius <= 10 * TOLERANCE:
      break
    worst = np.argsort(-excess)[: 2 * x.size + 2]
    used[worst] = True
    x, radius = _solve(normals[used], offsets[used], box)
  return x, float(np.min(offsets - normals @ x, initial=np.inf))


def _solve(normals, offsets, box):
  """Maximises r over (x, r) with normals x + r <= offsets for unit normals."""
  from scipy.optimize import linprog  # only here: most who import the package need no solver

  m, d = normals.shape
  result = linprog(
    np.append(np.zeros(d), -1.0),
    A_ub=np.hstack([normals, np.ones((m, 1))]),
    b_ub=offsets,
    bounds=[(-box, box)] * d + [(None, None)],
    method="highs",
    options={"primal_feasibility_tolerance": TOLERANCE, "dual_feasibility_tolerance": TOLERANCE},
  )
  if result.status != 0:  # the program always has a solution, so this is the solver's failure
    raise RuntimeError(
      f"HiGHS found no largest ball of {m} half-spaces in {d} dimensions: {result.message} "
      "Rescale the kernel so that its largest entries are about 1."
    )
  return result.x[:-1], result.x[-1]
