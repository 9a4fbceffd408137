"""Which classes of a linear classifier can be the argmax: not all, in few dimensions."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Real

from rankbias.rank.halfspaces import SMALLEST_RADIUS, largest_ball

ArgmaxMethod = Literal["search+linear_program", "search", "linear_program"]
METHODS = ("search+linear_program", "search", "linear_program")
BATCH_ENTRIES = 2**22  # logits computed at a time
FIRST_STEPS = (8, 32)  # most witnesses are found in a few steps; the others go on in fewer batches


class Argmaxable(NamedTuple):
  """What `argmaxable` found; NumPy arrays in float64."""

  argmaxable: Bool[np.ndarray, "V"]
  witness: Float[np.ndarray, "V d"]  # an x whose strict argmax is the class, or NaN
  radius: Float[np.ndarray, "V"]  # of the largest ball of such x around it; NaN after a search
  decided_by: np.ndarray  # "search", "linear_program" or "nothing", for every class


def argmaxable(
  kernel: Real[ArrayLike, "d V"],
  bias: Real[ArrayLike, "V"] | None = None,
  *,
  method: ArgmaxMethod = "search+linear_program",
  patience: int = 100,
  box: float = 100.0,
) -> Argmaxable:
  """Tells which classes some x makes the strict argmax of x W + b, with such an x for each.

  Class i is argmaxable where (w_j - w_i) x < b_i - b_j for all j has a solution; without a bias,
  where w_i is a vertex of the convex hull of all columns. More than d + 1 classes are needed for
  one not to be. Columns that are equal, with equal biases, are never a strict argmax.

  "search" reflects x at the boundary to the class that wins until the wanted one does, for many
  classes at once (Motzkin & Schoenberg's relaxation); a witness is confirmed in float64, with a
  margin above rounding. "linear_program" finds the largest ball of solutions: argmaxable from a
  radius of 1e-8. By default a linear program decides what the search leaves open.

  Args:
    method: of "search" alone, a True is proven and a False means that no witness was found.
    patience: steps of the search for a class.
    box: x must satisfy |x_i| <= box. Without a bias, x has any scale and this changes the radius
      alone.

  Raises:
    ValueError: the method is unknown, or an entry is not finite.
    RuntimeError: the solver of the linear programs failed.

  Example: argmaxable([[-1., 0., 1.]]).argmaxable is [True, False, True].
  Source: Demeter, Kimmel & Downey 2020, arXiv:2005.02433; Grivas, Bogoychev & Lopez 2022,
  arXiv:2203.06462; Motzkin & Schoenberg 1954, Canadian Journal of Mathematics 6.
  """
  checked_method(method)
  kernel = finite("kernel", kernel)
  d, v = kernel.shape
  bias = np.zeros(v) if bias is None else finite("bias", bias)
  result = Argmaxable(
    np.zeros(v, bool), np.full((v, d), np.nan), np.full(v, np.nan), np.full(v, "nothing", "U14")
  )
  if method != "linear_program":
    _search(kernel, bias, result, patience, box)
  if method != "search":
    _solve(kernel, bias, result, box)
  return result


def checked_method(method: str) -> str:
  """Returns the method; raises where it is unknown."""
  if method not in METHODS:
    raise ValueError(f"method = {method!r} is unknown: use one of {', '.join(METHODS)}.")
  return method


def finite(name: str, value) -> np.ndarray:
  """Returns an array in float64; raises where an entry is not finite."""
  value = np.asarray(value, np.float64)
  if not np.isfinite(value).all():
    raise ValueError(f"{name} has entries that are not finite: a diverged layer has no argmax.")
  return value


def _solve(kernel, bias, result, box):
  """Decides by linear programs what is undecided, into the result."""
  columns = kernel.T
  for i in np.flatnonzero(result.decided_by == "nothing"):
    others = np.arange(len(columns)) != i
    start = np.clip(columns[i] - columns.mean(0), -box, box)
    x, radius = largest_ball(
      columns[others] - columns[i], bias[i] - bias[others], box=box, start=start
    )
    result.decided_by[i] = "linear_program"
    if radius >= SMALLEST_RADIUS:
      result.argmaxable[i], result.witness[i], result.radius[i] = True, x, radius


def _search(kernel, bias, result, patience, box):
  """Searches a witness for every class, into the result."""
  rows = np.vstack([kernel, bias]) if np.ptp(bias) > 0 else kernel
  rows = rows - rows.mean(1, keepdims=True)  # moves all logits alike
  whiten = _whitening(rows)
  points = (whiten.T @ rows).T.astype(np.float32)
  columns = jnp.asarray(points.T)
  # With a bias the search is for (x, t) with t > 0 and logits x W + t b, a witness x / t.
  last = jnp.asarray(whiten[-1], jnp.float32) if len(rows) > len(kernel) else None
  batch = int(np.clip(BATCH_ENTRIES // kernel.shape[1], 8, max(8, min(512, kernel.shape[1]))))
  spent = 0
  for steps in (*FIRST_STEPS, patience):
    steps = min(steps, patience) - spent
    open_classes = np.flatnonzero(~result.argmaxable)
    for some in np.split(open_classes, range(batch, len(open_classes), batch)):
      if steps <= 0 or not some.size:
        continue
      some = np.resize(some, batch)  # the last batch repeats itself: one shape, one compilation
      points[some] = _reflect(columns, last, points[some], some, steps)
      _confirm(kernel, bias, points[some] @ whiten.T, some, box, result)
    spent += max(steps, 0)


def _whitening(rows):
  """Returns A with orthonormal rows A^T W: x = A x' spreads the half-spaces of x' evenly."""
  values, vectors = np.linalg.eigh(rows @ rows.T)
  keep = values > 1e-12 * max(values[-1], np.finfo(np.float64).tiny)
  return vectors[:, keep] / np.sqrt(values[keep])


@jax.jit
def _reflect(columns, last, points, classes, steps):
  """Reflects points [B, r] at the boundary to the class that wins, until their own class does."""
  own = columns.T[classes]

  def look(points):
    logits = jnp.matmul(points, columns, precision=jax.lax.Precision.HIGHEST)
    logits = logits.at[jnp.arange(classes.size), classes].set(-jnp.inf)
    best = jnp.max(logits, 1, keepdims=True)
    # Not jnp.argmax, which a CPU computes six times slower than a maximum and its place.
    place = jnp.max(jnp.where(logits == best, jnp.arange(columns.shape[1])[None, :], 0), 1)
    normal = columns.T[place] - own
    excess = jnp.sum(normal * points, 1)
    if last is not None:
      behind = (excess < 0) & (jnp.sum(last[None, :] * points, 1) <= 0)
      normal = jnp.where(behind[:, None], -last[None, :], normal)
      excess = jnp.sum(normal * points, 1)
    return normal, excess

  def step(state):
    count, points, (normal, excess) = state
    size = jnp.maximum(jnp.sum(normal**2, 1), jnp.finfo(points.dtype).tiny)
    # A little further than the mirror image, so that a tie is left behind too.
    push = 1e-3 * jnp.sqrt(size * jnp.sum(points**2, 1))
    move = jnp.where(excess >= 0, (2 * excess + push) / size, 0)
    points = points - move[:, None] * normal
    return count + 1, points, look(points)

  def undecided(state):
    return (state[0] < steps) & jnp.any(state[2][1] >= 0)

  return jax.lax.while_loop(undecided, step, (0, points, look(points)))[1]


def _confirm(kernel, bias, points, classes, box, result):
  """Keeps the points whose strict argmax is their class beyond doubt of rounding."""
  if points.shape[1] > kernel.shape[0]:
    points, scale = points[:, :-1], points[:, -1:]
    scale = np.where(scale > 0, scale, np.nan)  # behind the boundary t = 0: no witness
  else:
    scale = np.maximum(np.abs(points).max(1, keepdims=True), np.finfo(float).tiny)
  points = points / scale
  logits = points @ kernel + bias
  mine = (np.arange(len(classes)), classes)
  own = logits[mine]
  logits[mine] = -np.inf
  sizes = np.abs(points) @ np.abs(kernel).max(1, initial=0) + np.abs(bias).max(initial=0)
  rounding = 4 * (kernel.shape[0] + 2) * np.finfo(np.float64).eps * sizes
  good = (own - logits.max(1) > rounding) & (np.abs(points).max(1, initial=0) <= box)
  kept = classes[good]
  result.argmaxable[kept], result.witness[kept] = True, points[good]
  result.decided_by[kept] = "search"
