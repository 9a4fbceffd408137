"""Decoded images beside a prepared set: used while the set is the same, never when it changed."""

import os

import numpy as np
import pytest

from rankbias.data import DataFileError
from rankbias.data.cache import cached


@pytest.fixture
def version(tmp_path):
  folder = tmp_path / "cifar10" / "3.0.2"
  folder.mkdir(parents=True)
  (folder / "records").write_bytes(b"12345")
  return folder


class Reader:
  """Returns other arrays at each call, and counts the calls."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    x = np.full((2, 3, 3, 1), self.calls, np.uint8)
    return {split: {"x": x, "y": np.array([0, 1], np.int32)} for split in ("train", "test")}


def caches(version):
  return list(version.parent.glob(".rankbias-*"))


def test_reads_once(version):
  reader = Reader()
  first, second = cached(version, reader), cached(version, reader)
  assert reader.calls == 1
  for split in ("train", "test"):
    for key in "xy":
      np.testing.assert_array_equal(first[split][key], second[split][key])
      assert first[split][key].dtype == second[split][key].dtype


@pytest.mark.parametrize("change", ["size", "time", "more", "name"])
def test_a_set_that_changed_is_read_afresh(version, change):
  reader, file = Reader(), version / "records"
  cached(version, reader)
  if change == "size":
    stat = file.stat()
    file.write_bytes(b"1234")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  elif change == "time":
    os.utime(file, ns=(0, 0))
  elif change == "more":
    (version / "more").write_text("")
  else:
    file.rename(version / "other")
  assert cached(version, reader)["train"]["x"].max() == 2
  assert cached(version, reader)["train"]["x"].max() == 2
  assert reader.calls == 2
  assert len(caches(version)) == 1


def test_a_folder_that_cannot_be_written_is_read_each_time(version, monkeypatch):
  monkeypatch.setattr(os, "access", lambda *args: False)
  reader = Reader()
  cached(version, reader)
  cached(version, reader)
  assert reader.calls == 2
  assert caches(version) == []


def test_a_full_disk_is_no_reason_to_stop(version, monkeypatch, capsys):
  def full(file, **arrays):
    file.write(b"some")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  assert cached(version, Reader())["train"]["x"].max() == 1
  assert "not cached: [Errno 28]" in capsys.readouterr().err
  assert caches(version) == []


def test_a_damaged_cache_is_named(version):
  cached(version, Reader())
  (cache,) = caches(version)
  cache.write_bytes(cache.read_bytes()[:100])
  with pytest.raises(DataFileError, match=rf"{cache.name}: damaged .*Delete this file"):
    cached(version, Reader())
