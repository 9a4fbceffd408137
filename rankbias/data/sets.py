"""Max retrieval: name the class of the largest of n items. Sets are drawn, never stored."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.data.source import Source

SPLITS = {"test": 1, "heldout": 2}  # seeds; training draws from the keys of its members
TEST_SETS = 2048


class Form(NamedTuple):
  """What sets consist of: the sizes n that training draws, and the number of classes C."""

  sizes: tuple[int, ...]
  classes: int


class MaxRetrieval(Source):
  """Sets of n items with a priority and a class; the label is the class of the largest priority.

  Item i is [rho_i; onehot(c_i)], rho_i ~ U(0, 1) and c_i uniform over C classes; a query ~ U(0, 1)
  says nothing about the answer. One example is an array [1 + n, 1 + C] whose row 0 holds the query
  in its first column and zeros, and whose further rows are the items, in no order.

  Every training step draws new sets, all of one size n, uniform over `form.sizes`. The size is a
  function of the step alone, hence the same for all members of a sweep; what the sets hold depends
  on the member's key. "test" is a fixed draw of sets of the largest training size.

  Source: Velickovic et al. 2024, arXiv:2410.01104, appendix A.
  """

  @property
  def variants(self) -> int:
    """One form of a batch for every size."""
    return len(self.form.sizes)

  def variant(self, step: int) -> int:
    """Which of `form.sizes` the sets of a step have."""
    return int(np.random.default_rng((0, step)).integers(self.variants))

  @property
  def epoch(self) -> None:
    """There is none: every step draws new sets."""
    return None

  def constants(self) -> dict[str, np.ndarray]:
    """Nothing: sets are drawn inside the step."""
    return {}

  def indices(self, split: str, step: int, *, size: int, seed: int) -> np.ndarray:
    """Zeros: there is nothing to gather."""
    return np.zeros(size, np.int32)

  def examples(self, batch, keys, variant: int, *, dtype, crop: int, flip: bool):
    """Draws one set for every key; returns (sets, labels, None)."""
    x, y = jax.vmap(partial(draw_set, n=self.form.sizes[variant], classes=self.form.classes))(keys)
    return x.astype(dtype), y, None

  def inputs(self, x, dtype) -> jax.Array:
    """The sets as they are."""
    return x.astype(dtype)

  def fixed(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first sets of "test"."""
    test = self.splits["test"]
    return test["x"][:count], test["y"][:count]

  def draw(self, split: str, part: int, *, count: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Draws `count` sets of `n` items, float32 [count, 1 + n, 1 + C], and their labels [count].

    The draw is a pure function of the arguments.

    Args:
      split: "test", or "heldout" for what is chosen before the test.
      part: which of the endlessly many draws.
    """
    if split not in SPLITS or n < 1 or count < 1:
      raise ValueError(
        f"split={split!r}, count={count}, n={n}: use one of {sorted(SPLITS)}, and at least one set "
        "of one item"
      )
    return _draw(SPLITS[split], part, count=count, n=n, classes=self.form.classes)


@partial(jax.jit, static_argnames=("count", "n", "classes"))
def _draw(seed, part, *, count, n, classes):
  key = jax.random.fold_in(jax.random.key(seed), part)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
  return jax.vmap(partial(draw_set, n=n, classes=classes))(keys)


def draw_set(key: jax.Array, n: int, classes: int) -> tuple[jax.Array, jax.Array]:
  """One set as float32 [1 + n, 1 + classes], and its label."""
  number_key, class_key = jax.random.split(key)
  numbers = jax.random.uniform(number_key, (1 + n,))
  kinds = jax.random.randint(class_key, (n,), 0, classes)
  hot = jnp.concatenate([jnp.zeros((1, classes)), jax.nn.one_hot(kinds, classes)])
  return jnp.concatenate([numbers[:, None], hot], 1), kinds[jnp.argmax(numbers[1:])]


def load_max_retrieval(
  *,
  dir: str | None = None,
  download: bool = True,
  sizes: tuple[int, int] = (5, 16),
  classes: int = 10,
) -> MaxRetrieval:
  """Makes the task of max retrieval.

  Args:
    dir, download: ignored, as nothing is stored.
    sizes: the smallest and the largest number of items of a training set.

  Raises:
    ValueError: sizes or classes with which there is nothing to learn.
  """
  del dir, download
  least, most = sizes
  if not 1 <= least <= most:
    raise ValueError(f"data.sizes={tuple(sizes)} must be (smallest, largest) with 1 <= smallest")
  if classes < 2:
    raise ValueError(f"data.classes={classes} must be at least 2")
  empty = MaxRetrieval(
    name="max_retrieval",
    splits={},
    num_classes=classes,
    class_names=tuple(map(str, range(classes))),
    origin=f"max_retrieval: sets of {least} to {most} items of {classes} classes, drawn",
    form=Form(tuple(range(least, most + 1)), classes),
  )
  x, y = jax.device_get(empty.draw("test", 0, count=TEST_SETS, n=most))
  return empty._replace(splits={"test": {"x": x, "y": y}})
