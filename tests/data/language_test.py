"""Token files as lanes of windows: what is read, what a step sees, and what is refused."""

import jax
import numpy as np
import pytest

from rankbias import data
from rankbias.data import language

WORDS = [f"w{i}" for i in range(9)]
FILES = [f"ptb.{split}.txt" for split in ("train", "valid", "test")]


def text(lines, seed):
  """Lines of seven words with the frequencies of a falling law, and all of them in the first."""
  rng = np.random.default_rng(seed)
  share = 1 / np.arange(1, 10)
  rows = [WORDS, *rng.choice(WORDS, (lines, 7), p=share / share.sum())]
  return "".join(f" {' '.join(row)} \n" for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("ptb")
  for seed, (name, lines) in enumerate(zip(FILES, (40, 6, 8), strict=True)):
    (folder / name).write_text(text(lines, seed))
  return folder


@pytest.fixture(scope="module")
def source(folder):
  return data.load("ptb", dir=str(folder), window=6)


def test_the_stream_is_the_text_with_an_end_to_every_line(source, folder):
  for name, split in zip(FILES, ("train", "valid", "test"), strict=True):
    stream = source.tokens(split)
    assert stream.dtype == np.int32
    lines = (folder / name).read_text().splitlines()
    expected = [token for line in lines for token in (*line.split(), "<eos>")]
    assert [source.class_names[i] for i in stream] == expected
  assert source.num_classes == len(source.class_names) == 10
  assert "330 train, 58 valid, 74 test tokens of 10 words" in source.origin
  assert "NOT the published text, which has 929,589 train, 73,760 valid" in source.origin


def test_words_are_ordered_by_frequency_then_by_first_appearance(tmp_path):
  for name in FILES:
    (tmp_path / name).write_text("b a c c\nd a c\nb d")  # no end of the last line
  source = data.load("ptb", dir=str(tmp_path), window=2)
  assert source.class_names == ("c", "<eos>", "b", "a", "d")
  np.testing.assert_array_equal(source.tokens("test"), [2, 3, 0, 0, 1, 4, 3, 0, 1, 2, 4, 1])


def test_lanes_read_on_and_labels_are_the_following_tokens(source):
  stream = source.tokens("train")
  for step in range(source.epoch_steps(4) - 1):
    here, there = (source.indices("train", s, size=4, seed=2) for s in (step, step + 1))
    assert here.dtype == np.int32
    np.testing.assert_array_equal((here + 6) % len(stream), there)
    batch = source.batch("train", step, size=4, seed=2)
    for start, x, y in zip(here, batch["x"], batch["y"], strict=True):
      places = np.arange(start, start + 7) % len(stream)
      np.testing.assert_array_equal([*x, y[-1]], stream[places])
      np.testing.assert_array_equal(x[1:], y[:-1])


def test_an_epoch_reads_everything_once(source):
  steps, count = source.epoch_steps(4), len(source.tokens("train"))
  assert source.epoch == count // 6 and steps == -(-source.epoch // 4)
  for epoch in range(5):
    seen = np.zeros(count, int)
    for step in range(epoch * steps, (epoch + 1) * steps):
      places = source.indices("train", step, size=4, seed=0)[:, None] + np.arange(6)
      np.add.at(seen, places % count, 1)
    assert (seen <= 2).all()  # the last window of a lane may reach into the next one
    assert (seen == 1).mean() > 0.9 and (seen == 0).sum() < 4 * 6


def test_windows_begin_elsewhere_in_every_epoch_and_lanes_go_on_with_the_next_part(source):
  steps, part = source.epoch_steps(4), len(source.tokens("train")) // 4
  firsts = np.stack([source.indices("train", e * steps, size=4, seed=0) for e in range(40)])
  lanes = (np.arange(4)[None] + np.arange(40)[:, None]) % 4 * part
  shift = firsts - lanes
  assert (shift == shift[:, :1]).all()
  assert set(shift[:, 0]) == set(range(6))
  other = source.indices("train", 0, size=4, seed=1), source.indices("train", 0, size=4, seed=1)
  np.testing.assert_array_equal(*other)
  assert any((source.indices("train", 0, size=4, seed=s) != firsts[0]).any() for s in range(1, 6))


def test_what_a_device_gathers_is_the_batch(source):
  rows = source.indices("train", 13, size=4, seed=0)
  tokens, labels, weights = jax.jit(
    lambda constants, rows: source.examples(
      source.pick(constants, rows), None, 0, dtype="float32", crop=0, flip=False
    )
  )(source.constants(), rows)
  batch = source.batch("train", 13, size=4, seed=0)
  np.testing.assert_array_equal(tokens, batch["x"])
  np.testing.assert_array_equal(labels, batch["y"])
  assert weights is None and tokens.dtype == labels.dtype == np.int32


def test_splits_are_windows_whose_last_position_is_measured(source):
  for name, split in source.splits.items():
    stream, rows = source.tokens(name), len(split["x"])
    assert rows == (len(stream) - 1) // 6
    np.testing.assert_array_equal(split["x"].ravel(), stream[: 6 * rows])
    assert (split["y"][:, :-1] == -1).all()
    np.testing.assert_array_equal(split["y"][:, -1], stream[6 : 6 * rows + 1 : 6])
  x, y = source.fixed(3)
  assert x.shape == y.shape == (3, 6)
  assert source.template(5).shape == (5, 6) and source.template(5).dtype == np.int32
  valid = source.batch("valid", 1, size=2, seed=0)
  np.testing.assert_array_equal(valid["x"], source.splits["valid"]["x"][valid["index"]])


def test_a_limit_counts_windows(source):
  short = source.first(5)
  assert [len(short.splits[split]["y"]) for split in short.splits] == [5, 5, 5]
  np.testing.assert_array_equal(short.tokens("train"), source.tokens("train")[:31])
  assert short.epoch == 5 and short.class_names == source.class_names
  assert source.first(None) is source


def test_shakespeare_is_read_by_characters_and_cut_as_tfds_does(tmp_path):
  words = "to be, or not\n" * 15 + "bore"  # 214 characters: 192, 11, 11
  (tmp_path / "input.txt").write_text(words)
  source = data.load("tiny_shakespeare", dir=str(tmp_path), window=5, download=False)
  assert [len(source.tokens(split)) for split in ("train", "valid", "test")] == [192, 11, 11]
  parts = [source.tokens(split) for split in ("train", "valid", "test")]
  assert "".join(source.class_names[i] for i in np.concatenate(parts)) == words
  assert source.class_names[:2] == (" ", "o")


def test_shakespeare_may_be_fetched_and_no_other_corpus(tmp_path, monkeypatch):
  asked = []

  def fetch(url, path, *, size, sha256):
    asked.append((url, size, len(sha256)))
    path.write_text("abab" * 100)

  monkeypatch.setattr(language, "fetch", fetch)
  source = data.load("tiny_shakespeare", dir=str(tmp_path), window=5)
  again = data.load("tiny_shakespeare", dir=str(tmp_path), window=5, download=False)
  assert source.origin == again.origin
  ((url, size, digits),) = asked
  assert url.endswith("karpathy/char-rnn/master/data/tinyshakespeare/input.txt")
  assert (size, digits) == (1_115_394, 64)
  for name, hint in (("ptb", "licensed.*ptb.valid.txt"), ("wikitext2", "wikitext-2-v1.zip")):
    with pytest.raises(data.DatasetUnavailable, match=f"Nothing is downloaded for it.*{hint}"):
      data.load(name, dir=str(tmp_path))
  with pytest.raises(data.DatasetUnavailable, match="not allowed.*input.txt"):
    data.load("tiny_shakespeare", dir=str(tmp_path / "other"), download=False)


def broken(folder, tmp_path, name, content):
  """A copy of the folder in which one file has another content, or is not there."""
  for each in FILES:
    (tmp_path / each).write_bytes((folder / each).read_bytes())
  (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
  return str(tmp_path)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("ptb.valid.txt", None, "ptb is incomplete, missing ptb.valid.txt;.*licensed"),
    ("ptb.test.txt", b" \n", "ptb.test.txt: the file is empty"),
    ("ptb.train.txt", b"\xff\xfe", "ptb.train.txt: no UTF-8 text"),
    ("ptb.test.txt", b"w1 w2 zebra\n", "ptb.test.txt: the token 'zebra' is not among the 10 of"),
  ],
)
def test_damaged_files_are_refused(folder, tmp_path, name, content, message):
  with pytest.raises(data.DataFileError, match=message):
    data.load("ptb", dir=broken(folder, tmp_path, name, content))


def test_sizes_that_cannot_be_are_refused(folder, source):
  with pytest.raises(ValueError, match="data.window=0 must be at least 1"):
    data.load("ptb", dir=str(folder), window=0)
  with pytest.raises(ValueError, match="data.window=58 is too long: 'valid' of .* has 58 tokens"):
    data.load("ptb", dir=str(folder), window=58)
  with pytest.raises(ValueError, match="size=55.*below 55.0, as 330 .*Set batch_size or data.wind"):
    source.indices("train", 0, size=55, seed=0)
  with pytest.raises(ValueError, match="step=-1"):
    source.indices("train", -1, size=2, seed=0)
