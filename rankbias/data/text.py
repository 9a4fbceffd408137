"""Questions and answers as sequences of tokens, in batches of like length: CLRS-Text."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rankbias.data.clrs_text import ALGORITHMS, NUM_TOKENS, PAD, decode, make_clrs_text
from rankbias.data.clrs_text.splits import SIX, TEST_LENGTHS, TRAIN_LENGTHS, Lengths
from rankbias.data.source import Source, stream

NO_LABEL = -1
ROUND = 64  # steps in which the buckets come in fixed numbers, shuffled


class Form(NamedTuple):
  """What describes texts beside their tokens.

  Attributes:
    algorithms: their names; "algorithm" of a split is an index into them.
    buckets: into how many forms of a batch the training texts are sorted by length, at most.
    question_weight: of the tokens of a question in the loss, where those of an answer have 1.
    curriculum: the steps, in rounds of 64, until the longest bucket comes; the others come in one
      after the other, the shortest at once.
  """

  algorithms: tuple[str, ...]
  buckets: int
  question_weight: float
  curriculum: int

  @property
  def tasks(self) -> dict[str, str]:
    """What each algorithm asks for, by the first name of it that there is: all sorts are one."""
    first = {}
    for name, algorithm in ALGORITHMS.items():
      first.setdefault(algorithm, name)
    return {name: first[ALGORITHMS[name]] for name in self.algorithms}


class TextSource(Source):
  """Texts of a question and its answer, to be continued token by token.

  A split is what `make_clrs_text` makes, and "y" int8 [N, L]: the token that follows each position
  where it belongs to the answer or ends it, and -1 elsewhere. So the label of the first character
  of an answer stands at the last one of its question.

  Training texts are sorted into buckets of like length, of about as many texts each; a batch has
  texts of one bucket and is as wide as its longest, not as the longest of all. In every 64 steps
  the buckets come in fixed numbers, proportional to their texts, in an order that depends on the
  step alone. Each bucket is an endless stream of permutations of its own. With a curriculum only
  the shortest come at first.
  """

  @cached_property
  def widths(self) -> tuple[int, ...]:
    """The longest text of each bucket, ascending."""
    ends = self._split("train")["end"]
    places = np.ceil(np.arange(1, self.form.buckets + 1) / self.form.buckets * len(ends)) - 1
    return tuple(np.unique(np.sort(ends)[places.astype(int)]).tolist())

  @cached_property
  def buckets(self) -> list[np.ndarray]:
    """The positions of the training texts in each bucket."""
    place = np.searchsorted(self.widths, self._split("train")["end"])
    return [np.flatnonzero(place == i).astype(np.int32) for i in range(len(self.widths))]

  @cached_property
  def stages(self) -> list[tuple[int, np.ndarray]]:
    """(first round, in how many of its 64 steps each bucket comes), one bucket more each time."""
    counts = np.array([len(bucket) for bucket in self.buckets])
    last = len(counts) - 1
    rounds = self.form.curriculum // (max(last, 1) * ROUND)
    early = range(last if rounds else 0)
    some = [np.pad(shares(counts[: k + 1]), (0, last - k)) for k in early]
    return [(k * rounds, own) for k, own in enumerate([*some, shares(counts)])]

  def order(self, part: int) -> np.ndarray:
    """The buckets of steps [64 part, 64 part + 64)."""
    own = next(share for first, share in reversed(self.stages) if first <= part)
    return _order(tuple(own.tolist()), part)

  def visits(self, form: int, part: int) -> int:
    """How often a bucket came before step 64 part."""
    ends = [first for first, _ in self.stages[1:]] + [part]
    rounds = [
      max(min(end, part) - first, 0) for (first, _), end in zip(self.stages, ends, strict=True)
    ]
    return sum(n * int(own[form]) for n, (_, own) in zip(rounds, self.stages, strict=True))

  @property
  def variants(self) -> int:
    """One form of a batch for every bucket."""
    return len(self.widths)

  def variant(self, step: int) -> int:
    """Which bucket the texts of a step come from."""
    part, place = divmod(step, ROUND)
    return int(self.order(part)[place])

  def constants(self) -> dict[str, np.ndarray]:
    """Tokens and labels of the training texts."""
    return {name: self._split("train")[name] for name in ("x", "y")}

  def indices(self, split: str, step: int, *, size: int, seed: int) -> np.ndarray:
    """Returns the int32 positions in `split` that batch number `step` consists of."""
    if split != "train":
      return super().indices(split, step, size=size, seed=seed)
    if size < 1 or step < 0 or seed < 0:
      raise ValueError(
        f"size={size}, step={step}, seed={seed}: size must be at least 1, step and seed at least 0"
      )
    part, place = divmod(step, ROUND)
    order = self.order(part)
    form = order[place]
    earlier = self.visits(form, part) + int((order[:place] == form).sum())
    bucket = self.buckets[form]
    return bucket[stream(len(bucket), earlier * size, size, seed)]

  def examples(self, batch: dict[str, Any], keys, variant: int, *, dtype, crop: int, flip: bool):
    """Tokens [B, L], the tokens that follow them, and the weights of these in the loss."""
    x, y = (batch[name][:, : self.widths[variant]] for name in ("x", "y"))
    following = jnp.pad(x[:, 1:], ((0, 0), (0, 1))).astype(jnp.int32)
    asked = jnp.where(following == PAD, 0, self.form.question_weight)
    return self.inputs(x, dtype), following, jnp.where(y != NO_LABEL, 1, asked).astype(dtype)

  def inputs(self, x, dtype) -> jax.Array:
    """The tokens as integers that a table can be read with."""
    return x.astype(jnp.int32)

  def fixed(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and labels of the same training texts each time, as wide as the longest of them."""
    train = self._split("train")
    chosen = np.random.default_rng(0).permutation(len(train["y"]))[:count]
    width = train["end"][chosen].max()
    return train["x"][chosen, :width], train["y"][chosen, :width]

  def text(self, split: str, i: int) -> str:
    """Question and answer number i of a split."""
    return decode(self._split(split)["x"][i])


def shares(counts: np.ndarray) -> np.ndarray:
  """Divides the steps of a round: at least one for each bucket, and in proportion to the counts."""
  exact = (ROUND - len(counts)) * counts / counts.sum()
  parts = 1 + exact.astype(int)
  parts[np.argsort(exact.astype(int) - exact, kind="stable")[: ROUND - parts.sum()]] += 1
  return parts


@lru_cache(maxsize=64)
def _order(own: tuple[int, ...], part: int) -> np.ndarray:
  order = np.repeat(np.arange(len(own)), own)
  return np.random.default_rng((0, part)).permutation(order)


def load_clrs_text(
  *,
  dir: str | None = None,
  download: bool = True,
  algorithms: Sequence[str] = SIX,
  lengths: Lengths = TRAIN_LENGTHS,
  test_lengths: Lengths = TEST_LENGTHS,
  number: int = 100_000,
  test_number: int = 1_000,
  seed: int = 0,
  buckets: int = 4,
  question_weight: float = 0.0,
  curriculum: int = 0,
) -> TextSource:
  """Makes CLRS-Text: "train", "test" like it, and "test/16", ... of greater lengths.

  Args:
    dir, download: ignored, as the texts are generated.
    algorithms, lengths, test_lengths, number, test_number, seed: see `make_clrs_text`. All members
      of a sweep see the texts of this one seed.
    buckets, question_weight, curriculum: see `Form`.

  Raises:
    ValueError: one of these three is out of range, or what `make_clrs_text` raises.
  """
  del dir, download
  if not 1 <= buckets <= ROUND:
    raise ValueError(f"data.buckets={buckets} must lie between 1 and {ROUND}")
  if not question_weight >= 0:
    raise ValueError(f"data.question_weight={question_weight} must be at least 0")
  if curriculum < 0:
    raise ValueError(f"data.curriculum={curriculum} must be at least 0; 0 is none")
  splits = make_clrs_text(
    seed=seed,
    algorithms=algorithms,
    lengths=lengths,
    test_lengths=test_lengths,
    number=number,
    test_number=test_number,
  )
  return TextSource(
    name="clrs_text",
    splits={name: split | {"y": labels(split)} for name, split in splits.items()},
    num_classes=NUM_TOKENS,
    class_names=tuple(repr(decode(np.array([i]))) for i in range(NUM_TOKENS)),
    origin=f"clrs_text: {number} texts of {', '.join(algorithms)}, generated from seed {seed}",
    form=Form(tuple(algorithms), buckets, question_weight, curriculum),
  )


def labels(split: dict[str, np.ndarray]) -> np.ndarray:
  """The next token where it is one of the answer or ends it, -1 elsewhere; int8 [N, L]."""
  x = split["x"]
  following = np.pad(x[:, 1:], ((0, 0), (0, 1))).astype(np.int8)
  place = np.arange(1, 1 + x.shape[1])
  answer = (place >= split["start"][:, None]) & (place < split["end"][:, None])
  return np.where(answer, following, np.int8(NO_LABEL))
