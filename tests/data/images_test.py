"""The order in which images are looked for, and what is said when there are none."""

import socket
import subprocess
import sys
import time

import pytest

from rankbias.data import DATASETS, DataFileError, DatasetUnavailable, facts, fetch, load, prepare
from rankbias.data.language import CORPORA


def closed_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


@pytest.fixture
def dead_network(small, web, monkeypatch):
  port = closed_port()
  for name, entry in facts.FACTS.items():
    monkeypatch.setitem(
      facts.FACTS, name, entry._replace(urls=(f"http://127.0.0.1:{port}/x.tar.gz",))
    )


def test_the_folder_comes_before_the_download(published, small, web, tmp_path):
  small.write("cifar10", facts.CIFAR10_PY, tmp_path / "cifar-10-batches-py")
  small.assert_equal(load("cifar10", dir=str(tmp_path)), "cifar10")
  assert web.asked == []


def test_the_download_goes_to_the_folder_and_is_not_repeated(published, small, web, tmp_path):
  load("cifar10", dir=str(tmp_path))
  small.assert_equal(load("cifar10", dir=str(tmp_path)), "cifar10")
  assert web.asked == ["/cifar10/cifar-10-binary.tar.gz"]
  assert (tmp_path / "downloads/manual/cifar10/cifar-10-binary.tar.gz").is_file()


def test_tfds_data_dir_is_honoured_and_an_explicit_folder_wins(small, tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
  small.write("cifar10", facts.CIFAR10_BIN, tmp_path / "env" / "cifar-10-batches-bin")
  assert str(tmp_path / "env") in load("cifar10", download=False).origin
  with pytest.raises(DatasetUnavailable, match=str(tmp_path / "given")):
    load("cifar10", dir=str(tmp_path / "given"), download=False)


@pytest.mark.parametrize("name", list(facts.FACTS))
def test_dead_network_is_bounded_and_explained(dead_network, tmp_path, name):
  start = time.monotonic()
  with pytest.raises(DatasetUnavailable) as caught:
    load(name, dir=str(tmp_path))
  assert time.monotonic() - start < 10
  text = str(caught.value)
  original = (
    facts.FACTS[name].layouts[0].archives or facts.FACTS[name].layouts[0].parts["test"][0]
  )[0]
  for part in (str(tmp_path), "no connection to 127.0.0.1", original, "--config.data.dir=DIR"):
    assert part in text
  assert caught.value.name == name
  assert "no connection" in caught.value.reason


def test_stalled_network_is_bounded_and_explained(published, web, tmp_path, monkeypatch):
  monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
  web.stall = True
  start = time.monotonic()
  with pytest.raises(DatasetUnavailable, match=r"download failed: .*binary.tar.gz: timed out"):
    load("cifar10", dir=str(tmp_path))
  assert time.monotonic() - start < 10


def test_a_forbidden_download_is_not_tried(published, web, tmp_path):
  with pytest.raises(DatasetUnavailable, match=r"not allowed \(config.data.download=False\)"):
    load("mnist", dir=str(tmp_path), download=False)
  assert web.asked == []


def test_a_changed_file_upstream_is_refused(published, web, tmp_path):
  path = "/cifar10/cifar-10-binary.tar.gz"
  web.files[path] = web.files[path][:-1] + b"x"
  with pytest.raises(DatasetUnavailable, match="sha256"):
    load("cifar10", dir=str(tmp_path))


def test_a_folder_that_is_a_file(published, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(DatasetUnavailable, match=r"is no folder.*download failed: cannot write to"):
    load("cifar10", dir=str(tmp_path / "file"))


def test_an_incomplete_folder_is_no_reason_to_download(published, small, web, tmp_path):
  folder = small.write("mnist", facts.FACTS["mnist"].layouts[0], tmp_path / "mnist")
  (folder / "t10k-labels-idx1-ubyte.gz").unlink()
  with pytest.raises(DataFileError, match="mnist is incomplete, missing t10k-labels"):
    load("mnist", dir=str(tmp_path))
  assert web.asked == []


def test_unknown_name():
  with pytest.raises(ValueError, match=r"'cifar-10' is unknown; known are digits.*mean 'cifar10'"):
    load("cifar-10")


def test_every_published_set_has_a_loader():
  others = {"digits", "max_retrieval", "clrs_text", "dirichlet", *CORPORA}
  assert set(DATASETS) == others | set(facts.FACTS)


def test_published_facts_are_consistent():
  for entry in facts.FACTS.values():
    for layout in entry.layouts:
      for split, parts in layout.parts.items():
        assert entry.counts[split] % len(parts) == 0
        assert all(name in entry.sizes for part in parts for name in part)


def test_tfds_knows_every_file_that_is_downloaded():
  """TFDS has the address of each file, and the same size that messages about it state."""
  tfds = pytest.importorskip("tensorflow_datasets")
  for entry in facts.FACTS.values():
    known = prepare.url_infos(tfds, entry)
    for url in entry.urls:
      assert int(known[url].size) == entry.sizes[known[url].filename]


def test_a_download_that_was_cut_short_goes_on(published, small, web, tmp_path):
  """Two of four files are there, the third cannot be had; the next attempt fetches the rest."""
  third = "/mnist/t10k-images-idx3-ubyte.gz"
  data = web.files.pop(third)
  with pytest.raises(DatasetUnavailable, match="t10k-images.*404"):
    load("mnist", dir=str(tmp_path))
  web.files[third] = data
  before = len(web.asked)
  small.assert_equal(load("mnist", dir=str(tmp_path)), "mnist")
  assert web.asked[before:] == [third, "/mnist/t10k-labels-idx1-ubyte.gz"]


def test_what_was_downloaded_is_used_where_tfds_fails(
  published, small, tmp_path, monkeypatch, capfd
):
  def fail(*args):
    raise RuntimeError("no space left")

  monkeypatch.setattr(prepare, "_build", fail)
  small.assert_equal(load("cifar10", dir=str(tmp_path)), "cifar10")
  assert "preparation by TFDS failed: RuntimeError('no space left')" in capfd.readouterr().err


def test_importing_the_room_is_light():
  heavy = "{'tensorflow_datasets', 'sklearn', 'PIL', 'flax'}"
  code = f"import sys, rankbias.data; print(sorted({heavy} & set(sys.modules)))"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout == "[]\n"
