"""Rows of a random matrix of probabilities: what a context says about the next class."""

from typing import NamedTuple

import jax
import numpy as np

from rankbias.data.source import Source, stream


class Form(NamedTuple):
  """How many contexts a draw has, and how many draws there are."""

  contexts: int
  draws: int


class DirichletRows(Source):
  """Contexts with distributions as labels: x = the index of a context, y ~ Dirichlet(a, ..., a).

  Every draw is a matrix of N rows and M columns, and the seed of a member chooses one: draw number
  seed mod draws. So members of one program differ in their targets, not in their start alone. There
  is nothing but "train", as the question is what an output layer can fit: {"x": int32 [draws N],
  "y": float32 [draws N, M]}, one draw after the other.
  """

  @property
  def epoch(self) -> int:
    """The contexts of one draw."""
    return self.form.contexts

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one example: it is a number."""
    return ()

  def template(self, count: int) -> jax.ShapeDtypeStruct:
    """The shape and dtype of `count` contexts."""
    return jax.ShapeDtypeStruct((count,), np.int32)

  def indices(self, split: str, step: int, *, size: int, seed: int) -> np.ndarray:
    """The rows that batch number `step` consists of, of the draw that belongs to the seed."""
    n = self.form.contexts
    return (seed % self.form.draws) * n + stream(n, step * size, size, seed)

  def seen_by(self, seed: int) -> "DirichletRows":
    """The draw that belongs to the seed, alone."""
    n, first = self.form.contexts, (seed % self.form.draws) * self.form.contexts
    rows = {name: array[first : first + n] for name, array in self.splits["train"].items()}
    return self._replace(splits={"train": rows}, form=Form(n, 1))

  def examples(self, batch, keys, variant: int, *, dtype, crop: int, flip: bool):
    """The contexts and their distributions; nothing is random."""
    return batch["x"], batch["y"].astype(dtype), None

  def inputs(self, x, dtype) -> jax.Array:
    """The indices as they are."""
    return x

  def fixed(self, count: int):
    """Refuses: no examples are the same for all members."""
    raise ValueError(
      f"measure.count must be 0 with data {self.name!r}: every member has targets of its own, and "
      "they are measured at the end, by evaluate.bottleneck."
    )

  def first(self, limit: int | None) -> Source:
    """Refuses a limit."""
    if limit is not None:
      raise ValueError(f"data.limit={limit}: set data.contexts to have fewer of {self.name!r}")
    return self


def load_dirichlet(
  *,
  dir: str | None = None,
  download: bool = True,
  contexts: int = 200,
  classes: int = 200,
  concentration: float = 0.1,
  draws: int = 3,
) -> DirichletRows:
  """Draws the targets; the same arguments give the same ones.

  Args:
    dir, download: ignored, as nothing is stored.
    concentration: a of Dirichlet(a, ..., a). Far below 1 a row has few large entries, at 1 it is
      uniform over the simplex, far above 1 nearly flat.
    draws: how many matrices of targets; seeds beyond start again from the first.

  Raises:
    ValueError: there is nothing to draw, or the concentration is not positive.
  """
  del dir, download
  for name, value, least in (
    ("contexts", contexts, 1),
    ("classes", classes, 2),
    ("draws", draws, 1),
  ):
    if value < least:
      raise ValueError(f"data.{name}={value} must be at least {least}")
  if not 0 < concentration < np.inf:
    raise ValueError(f"data.concentration={concentration} must be a finite number > 0")
  alphas = np.full(classes, float(concentration))
  y = [np.random.default_rng((0, i)).dirichlet(alphas, contexts) for i in range(draws)]
  rows = {
    "x": np.tile(np.arange(contexts, dtype=np.int32), draws),
    "y": np.concatenate(y).astype(np.float32),
  }
  return DirichletRows(
    name="dirichlet",
    splits={"train": rows},
    num_classes=classes,
    class_names=tuple(map(str, range(classes))),
    origin=f"dirichlet: {draws} draws of {contexts} contexts over {classes} classes, "
    f"concentration {concentration:g}",
    form=Form(contexts, draws),
  )
