"""Running text for language models: lanes of windows out of one long stream of tokens."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rankbias.data import layouts
from rankbias.data.errors import DatasetUnavailable, DownloadFailed
from rankbias.data.fetch import fetch
from rankbias.data.images import data_folder
from rankbias.data.source import Source
from rankbias.data.token_files import Corpus, numbered, read_tokens

NO_LABEL = -1

CORPORA = {
  "ptb": Corpus(
    name="ptb",
    files={split: f"ptb.{split}.txt" for split in ("train", "valid", "test")},
    folders=("ptb", "simple-examples/data"),
    tokens=(929_589, 73_760, 82_430, 10_000),
    words=True,
    where=(
      "The text of the Penn Treebank is licensed by the Linguistic Data Consortium and is not "
      "downloaded: supply ptb.train.txt, ptb.valid.txt and ptb.test.txt in Mikolov's preparation "
      "(the folder data of his archive simple-examples.tgz)."
    ),
  ),
  "wikitext2": Corpus(
    name="wikitext2",
    files={split: f"wiki.{split}.tokens" for split in ("train", "valid", "test")},
    folders=("wikitext-2", "wikitext-2-v1"),
    tokens=(2_088_628, 217_646, 245_569, 33_278),
    words=True,
    where=(
      "Unpack the public archive wikitext-2-v1.zip (words with <unk>, not the raw one), which "
      "holds wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens."
    ),
  ),
  "tiny_shakespeare": Corpus(
    name="tiny_shakespeare",
    files={"all": "input.txt"},
    folders=("tinyshakespeare",),
    tokens=(1_003_854, 55_770, 55_770, 65),
    words=False,
    where="It is data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn.",
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
  ),
}


class Form(NamedTuple):
  """What describes running text: the tokens of every split in order, and those a step reads."""

  streams: dict[str, np.ndarray]
  window: int


class TokenStream(Source):
  """A text as one stream of tokens, in windows whose labels are the tokens that follow.

  Training reads the stream, closed to a circle of N tokens, in `size` lanes that start N // size
  apart. A step takes `window` tokens further in every lane, so that a state carried from one step
  to the next continues the text. After `epoch_steps` steps the lanes have read everything once:
  each goes on with the part after its own, shifted by 0 .. window - 1 tokens, drawn from (seed,
  epoch), so that windows begin elsewhere in every epoch. All of this is a function of the step.

  A split holds "x" int32 [rows, window], the stream cut into windows, and "y" int32 [rows, window],
  the following token at the last position and -1 before: what is measured of a window is where the
  network has seen all of it. The whole text of a split, for perplexity, is `tokens(split)`.

  `num_classes` is the size of the vocabulary and `class_names` are its tokens, by falling frequency
  in the training text.
  """

  def tokens(self, split: str) -> np.ndarray:
    """The whole stream of a split, int32 [N]."""
    self._split(split)
    return self.form.streams[split]

  @property
  def epoch(self) -> int:
    """The windows in the training stream."""
    return len(self.form.streams["train"]) // self.form.window

  def epoch_steps(self, size: int) -> int:
    """Steps of `size` lanes in an epoch."""
    return -(-self.epoch // size)

  def constants(self) -> dict[str, np.ndarray]:
    """The training stream."""
    return {"tokens": self.form.streams["train"]}

  def pick(self, constants: dict[str, Any], rows) -> dict[str, Any]:
    """The window that starts at each row, and the token after it: [B, window + 1]."""
    stream = constants["tokens"]
    place = rows[:, None] + np.arange(self.form.window + 1, dtype=np.int32)[None]
    return {"tokens": stream[place % len(stream)]}

  def examples(self, batch: dict[str, Any], keys, variant: int, *, dtype, crop: int, flip: bool):
    """Tokens [B, window], the tokens that follow them, and no weights."""
    return batch["tokens"][:, :-1], batch["tokens"][:, 1:], None

  def inputs(self, x, dtype):
    """The tokens as they are."""
    return x

  def indices(self, split: str, step: int, *, size: int, seed: int) -> np.ndarray:
    """Where the lanes of a step start in "train", int32 [size]; of another split, which rows."""
    if split != "train":
      return super().indices(split, step, size=size, seed=seed)
    count, window = len(self.form.streams["train"]), self.form.window
    if size < 1 or step < 0 or seed < 0 or size * window >= count:
      raise ValueError(
        f"size={size}, step={step}, seed={seed}: step and seed must be at least 0, and the size, "
        f"the lanes of a batch, at least 1 and below {count / window:.1f}, as {count} training "
        f"tokens are read in windows of {window}. Set batch_size or data.window."
      )
    epoch, place = divmod(step, self.epoch_steps(size))
    shift = np.random.default_rng((seed, epoch)).integers(window)
    lanes = (np.arange(size) + epoch) % size * (count // size)
    return ((lanes + shift + place * window) % count).astype(np.int32)

  def batch(self, split: str, step: int, *, size: int, seed: int) -> dict[str, np.ndarray]:
    """Batch number `step`: "x" and "y", int32 [size, window], and "index"."""
    if split != "train":
      return super().batch(split, step, size=size, seed=seed)
    index = self.indices(split, step, size=size, seed=seed)
    tokens = self.pick(self.constants(), index)["tokens"]
    return {"x": tokens[:, :-1], "y": tokens[:, 1:], "index": index}

  def first(self, limit: int | None) -> "TokenStream":
    """Keeps the first `limit` windows of every split; all of them when `limit` is None."""
    cut = super().first(limit)
    if limit is None:
      return cut
    streams = {k: s[: limit * self.form.window + 1] for k, s in self.form.streams.items()}
    return cut._replace(form=self.form._replace(streams=streams))


def load_language(
  name: str, *, dir: str | None = None, download: bool = True, window: int = 70
) -> TokenStream:
  """Loads a corpus of `CORPORA` from its standard token files.

  Words are split at white space and every line ends in "<eos>", which gives the published numbers
  of tokens: Penn Treebank 929,589 / 73,760 / 82,430 of 10,000 words, WikiText-2 2,088,628 /
  217,646 / 245,569 of 33,278. Tiny Shakespeare is read by characters, 1,003,854 / 55,770 / 55,770
  of 65, cut as TFDS cuts it: the first int(0.9 n), then int(0.5) of the rest, then what is left.

  The origin of a text that has others says so.

  Args:
    dir: the folder with the files, or one that holds it under the name of the corpus; by default
      that of TFDS_DATA_DIR, else ~/tensorflow_datasets.
    download: fetch tiny Shakespeare where it is not there; nothing is fetched for the others.
    window: tokens of each lane that a step reads, over which gradients flow.

  Raises:
    DatasetUnavailable: no file of the corpus is there.
    DataFileError: some are, but not all, or one is empty, damaged or of another vocabulary.
    ValueError: a window below 1, or longer than the shortest split.
  """
  corpus = CORPORA[name]
  if window < 1:
    raise ValueError(f"data.window={window} must be at least 1: it counts tokens")
  folder = find_folder(corpus, data_folder(dir), download)
  vocabulary, streams = numbered(corpus, folder, read_tokens(corpus, folder))
  shortest = min(streams, key=lambda split: len(streams[split]))
  if window >= len(streams[shortest]):
    raise ValueError(
      f"data.window={window} is too long: {shortest!r} of {folder} has {len(streams[shortest])} "
      "tokens, and the last of a window must have one after it"
    )
  found = *map(len, streams.values()), len(vocabulary)
  return TokenStream(
    name=name,
    splits={split: windows(stream, window) for split, stream in streams.items()},
    num_classes=len(vocabulary),
    class_names=vocabulary,
    origin=f"{name}: {_counted(corpus, found)}, from {folder}{_otherwise(corpus, found)}",
    form=Form(streams, window),
  )


def _counted(corpus: Corpus, tokens: tuple[int, ...]) -> str:
  kind = "words" if corpus.words else "characters"
  return "{:,} train, {:,} valid, {:,} test tokens of {:,} ".format(*tokens) + kind


def _otherwise(corpus: Corpus, found: tuple[int, ...]) -> str:
  """What to say of files that are cut, or of another text under the same names."""
  if found == corpus.tokens:
    return ""
  return f": NOT the published text, which has {_counted(corpus, corpus.tokens)}"


def windows(stream: np.ndarray, window: int) -> dict[str, np.ndarray]:
  """The stream cut into windows, and labels at their last positions; see `TokenStream`."""
  rows = (len(stream) - 1) // window
  y = np.full((rows, window), NO_LABEL, np.int32)
  y[:, -1] = stream[window : rows * window + 1 : window]
  return {"x": stream[: rows * window].reshape(rows, window), "y": y}


def find_folder(corpus: Corpus, folder: Path, download: bool) -> Path:
  """The folder with files of the corpus, at or below `folder`; fetches them where that may be."""
  roots = layouts.roots(folder, corpus.name)
  places = [*roots, *(root / inner for root in roots for inner in corpus.folders)]
  for place in places:
    if any((place / name).is_file() for name in corpus.files.values()):
      return place
  names = ", ".join(corpus.files.values())
  if not corpus.url:
    reason = "Nothing is downloaded for it."
  elif not download:
    reason = "A download was not allowed (config.data.download=False)."
  else:
    target = folder / "downloads" / "manual" / corpus.name
    try:
      target.mkdir(parents=True, exist_ok=True)
      fetch(corpus.url, target / "input.txt", size=corpus.size, sha256=corpus.sha256)
      return target
    except (DownloadFailed, OSError) as error:
      reason = f"The download failed: {error}."
  raise DatasetUnavailable(
    corpus.name,
    folder=f"{folder} (which has none of {names})",
    reason=reason,
    remedies=f"{corpus.where} Put it into a folder DIR and pass --config.data.dir=DIR.",
  )
