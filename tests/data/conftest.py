"""Small image sets, written in every published layout, in place of the downloads."""

import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy as np
import pytest
import scipy.io

from rankbias.data import facts, prepare

COUNTS = {"train": 50, "test": 20}


def _images(name):
  """Random images and labels of the shape of a data set, each class present, mnist unbalanced."""
  entry = facts.FACTS[name]
  rng = np.random.default_rng(sum(map(ord, name)))
  arrays = {}
  for split, count in COUNTS.items():
    labels = np.arange(count) % len(entry.class_names)
    if name == "mnist":
      labels[0] = 1
    arrays[split] = {
      "x": rng.integers(0, 256, (count, *entry.shape), dtype=np.uint8),
      "y": rng.permutation(labels).astype(np.int32),
    }
  return arrays


def _planar(x):
  return x.transpose(0, 3, 1, 2).reshape(len(x), 3072)


def _python2(content):
  """The opcodes that Python 2 wrote: text keys and array bytes as 8-bit strings."""
  return pickle.dumps({k.encode(): v for k, v in content.items()}, protocol=2)


def _cifar_pickle(name, x, y):
  if name == "cifar100":
    return _python2(
      {"fine_labels": y.tolist(), "coarse_labels": (y % 20).tolist(), "data": _planar(x)}
    )
  return _python2({"labels": y.tolist(), "data": _planar(x), "batch_label": b"training batch"})


def _cifar_binary(name, x, y):
  columns = [y[:, None] % 20, y[:, None]] if name == "cifar100" else [y[:, None]]
  return np.hstack([*(c.astype(np.uint8) for c in columns), _planar(x)]).tobytes()


def _idx(x, y):
  def head(magic, *dims):
    return np.array([magic, *dims], ">i4").tobytes()

  images = head(0x803, *x.shape[:3]) + x.tobytes()
  labels = head(0x801, len(y)) + y.astype(np.uint8).tobytes()
  return gzip.compress(images), gzip.compress(labels)


def _mat(x, y):
  file = io.BytesIO()
  labels = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
  scipy.io.savemat(file, {"X": x.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
  return file.getvalue()


def _part_bytes(name, layout, x, y):
  if name in ("mnist", "fashion_mnist"):
    return _idx(x, y)
  if name == "svhn":
    return (_mat(x, y),)
  pickled = layout.read is facts.formats.read_cifar_pickle
  return (_cifar_pickle(name, x, y) if pickled else _cifar_binary(name, x, y),)


def _layout_files(name, layout, arrays):
  """The files of a layout: {file name: bytes}."""
  files = {}
  for split, parts in layout.parts.items():
    xs = np.split(arrays[split]["x"], len(parts))
    ys = np.split(arrays[split]["y"], len(parts))
    for part, x, y in zip(parts, xs, ys, strict=True):
      files |= dict(zip(part, _part_bytes(name, layout, x, y), strict=True))
  return files


def _tar(folder, files):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
    for name, data in files.items():
      member = tarfile.TarInfo(f"{folder}/{name}")
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return buffer.getvalue()


class Small:
  """The five sets with 50 train and 20 test images; `arrays[name]` is what readers must return."""

  COUNTS = COUNTS
  tar = staticmethod(_tar)

  def __init__(self):
    self.arrays = {name: _images(name) for name in facts.FACTS}

  def files(self, name, layout):
    return _layout_files(name, layout, self.arrays[name])

  def write(self, name, layout, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in self.files(name, layout).items():
      (folder / file).write_bytes(data)
    return folder

  def downloads(self, name):
    """What the URLs of a data set serve: {file name: bytes}."""
    entry = facts.FACTS[name]
    names = [url.rpartition("/")[2] for url in entry.urls]
    layout = next(x for x in entry.layouts if not x.archives or names[0] in x.archives)
    files = self.files(name, layout)
    return {names[0]: _tar(layout.folders[0], files)} if layout.archives else files

  def assert_equal(self, source, name):
    for split, arrays in self.arrays[name].items():
      for key in "xy":
        np.testing.assert_array_equal(source.splits[split][key], arrays[key])
        assert source.splits[split][key].dtype == arrays[key].dtype


@pytest.fixture
def small(monkeypatch):
  """Lowers the published counts to those of the small sets, and hides the user's own data."""
  for name, entry in facts.FACTS.items():
    counts = {k: COUNTS[k] for k in entry.counts}
    monkeypatch.setitem(facts.FACTS, name, entry._replace(counts=counts))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return Small()


class Web:
  """A web server on this machine; `files` maps paths to bytes, `stall` sends a head and no body."""

  def __init__(self):
    web = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        web.asked.append(self.path)
        data = web.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        self.end_headers()
        if web.stall:
          self.wfile.flush()
          web.stalled.wait(20)
        elif data is not None:
          self.wfile.write(data)

      def log_message(self, *args):
        pass

    self.files, self.asked, self.stall, self.stalled = {}, [], False, threading.Event()
    self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self.url = f"http://127.0.0.1:{self.server.server_port}"
    threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

  def close(self):
    self.stalled.set()
    self.server.shutdown()
    self.server.server_close()


@pytest.fixture
def web(monkeypatch):
  for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    monkeypatch.delenv(name, raising=False)
  server = Web()
  yield server
  server.close()


@pytest.fixture
def published(small, web, monkeypatch):
  """The small sets as downloads: URLs on this machine, with the checksums that TFDS would know."""
  tfds = pytest.importorskip("tensorflow_datasets")
  known = {}
  for name, entry in facts.FACTS.items():
    served = small.downloads(name)
    urls = tuple(f"{web.url}/{name}/{url.rpartition('/')[2]}" for url in entry.urls)
    for url in urls:
      file = url.rpartition("/")[2]
      web.files[f"/{name}/{file}"] = served[file]
      checksum = hashlib.sha256(served[file]).hexdigest()
      known[url] = tfds.core.download.checksums.UrlInfo(len(served[file]), checksum, file)
    monkeypatch.setitem(facts.FACTS, name, entry._replace(urls=urls))
  monkeypatch.setattr(prepare, "url_infos", lambda tfds, facts: known)
  return known
