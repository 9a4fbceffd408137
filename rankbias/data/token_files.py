"""Reads the token files of a corpus for language models: one file a split, words or characters."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rankbias.data.errors import DataFileError

END = "<eos>"  # ends every line of words


class Corpus(NamedTuple):
  """What is published about a corpus.

  Attributes:
    files: {split: file name}; a single file "all" is cut into train, valid and test.
    folders: names of folders that hold the files.
    tokens: how many the published text has: of train, valid and test, and different ones.
    words: whether tokens are words, of lines that end in "<eos>", or characters.
    where: where the files are to be had, in a sentence.
    url, size, sha256: of a single file that may be downloaded.
  """

  name: str
  files: dict[str, str]
  folders: tuple[str, ...]
  tokens: tuple[int, int, int, int]
  words: bool
  where: str
  url: str = ""
  size: int = 0
  sha256: str = ""


def read_tokens(corpus: Corpus, folder: Path) -> dict[str, list[str]]:
  """Reads the splits of a corpus as lists of tokens.

  Raises:
    DataFileError: a file is missing beside the others, is empty or no UTF-8 text.
  """
  names = corpus.files.values()
  missing = [name for name in names if not (folder / name).is_file()]
  if missing:
    raise DataFileError(
      f"{folder}: {corpus.name} is incomplete, missing {', '.join(missing)}; all of "
      f"{', '.join(names)} are needed. {corpus.where}"
    )
  texts = {split: read_text(corpus, folder / name) for split, name in corpus.files.items()}
  tokens = {split: words(text) if corpus.words else text for split, text in texts.items()}
  return cut(tokens["all"]) if "all" in tokens else tokens


def read_text(corpus: Corpus, path: Path) -> str:
  """Reads a file that must hold text."""
  try:
    text = path.read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise DataFileError(f"{path}: no UTF-8 text ({error.reason}). {corpus.where}") from error
  if not text.strip():
    raise DataFileError(f"{path}: the file is empty. {corpus.where}")
  return text


def words(text: str) -> list[str]:
  """Splits at white space; "<eos>" ends every line, the last one too where it has no line end."""
  return [*text.removesuffix("\n").replace("\n", f" {END} ").split(), END]


def cut(text: Sequence[str]) -> dict[str, Sequence[str]]:
  """The first int(0.9 n) characters, half of the rest, the other half: as TFDS cuts Shakespeare."""
  first = int(len(text) * 0.9)
  second = first + int((len(text) - first) * 0.5)
  return {"train": text[:first], "valid": text[first:second], "test": text[second:]}


def vocabulary_of(tokens: Sequence[str]) -> tuple[str, ...]:
  """The distinct tokens by falling frequency; of equally frequent ones the first comes first."""
  return tuple(token for token, _ in Counter(tokens).most_common())


def numbered(
  corpus: Corpus, folder: Path, tokens: dict[str, Sequence[str]]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
  """The vocabulary of "train", and every split as int32 positions in it.

  Raises:
    DataFileError: a split has a token that the training text lacks.
  """
  vocabulary = vocabulary_of(tokens["train"])
  number = {token: i for i, token in enumerate(vocabulary)}
  streams = {}
  for split, own in tokens.items():
    if unknown := next((token for token in own if token not in number), None):
      file = corpus.files.get(split) or f"{corpus.files['all']} ({split})"
      raise DataFileError(
        f"{folder / file}: the token {unknown!r} is not among the {len(vocabulary):,} of the "
        f"training text, so it has no probability. Use files of one release. {corpus.where}"
      )
    streams[split] = np.fromiter(map(number.__getitem__, own), np.int32, len(own))
  return vocabulary, streams
