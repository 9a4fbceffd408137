"""Downloads are checked, and bounded in time on every kind of broken network."""

import hashlib
import socket
import threading
import time

import pytest

from rankbias.data import fetch
from rankbias.data.errors import DownloadFailed

DATA = bytes(range(256)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()


def get(web, path, **changes):
  fetch.fetch(f"{web.url}/file", path, **({"size": len(DATA), "sha256": SHA} | changes))


def closed_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def test_downloads_once(web, tmp_path):
  web.files["/file"] = DATA
  path = tmp_path / "file"
  get(web, path)
  get(web, path)
  assert path.read_bytes() == DATA
  assert web.asked == ["/file"]
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"sha256": "0" * 64}, f"sha256 {SHA}, expected 000"),
    ({"size": len(DATA) + 1}, f"expected {len(DATA) + 1} bytes, received {len(DATA)}"),
    ({"size": 1000}, "expected 1000 bytes, received"),
  ],
)
def test_a_wrong_file_is_refused_and_removed(web, tmp_path, change, message):
  web.files["/file"] = DATA
  with pytest.raises(DownloadFailed, match=message):
    get(web, tmp_path / "file", **change)
  assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_downloaded_again(web, tmp_path):
  web.files["/file"] = DATA
  (tmp_path / "file").write_bytes(DATA[:-1] + b"x")
  get(web, tmp_path / "file")
  assert (tmp_path / "file").read_bytes() == DATA


def test_not_found(web, tmp_path):
  with pytest.raises(DownloadFailed, match="404"):
    get(web, tmp_path / "file")


def test_a_folder_that_is_not_there(web, tmp_path):
  web.files["/file"] = DATA
  with pytest.raises(DownloadFailed, match="No such file or directory.*missing/file"):
    get(web, tmp_path / "missing" / "file")


def test_stalled_network_is_given_up(web, tmp_path, monkeypatch):
  monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
  web.files["/file"], web.stall = DATA, True
  start = time.monotonic()
  with pytest.raises(DownloadFailed, match="timed out"):
    get(web, tmp_path / "file")
  assert time.monotonic() - start < 5


def test_trickling_network_is_given_up(web, tmp_path, monkeypatch):
  """A byte now and then resets every timeout of a socket, but is no progress."""
  monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
  listener = socket.create_server(("127.0.0.1", 0))

  def trickle():
    for _ in range(2):  # the probe and the download
      connection, _ = listener.accept()
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(100):
      try:
        connection.sendall(b"x")
      except OSError:
        return
      time.sleep(0.1)

  threading.Thread(target=trickle, daemon=True).start()
  start = time.monotonic()
  url = f"http://127.0.0.1:{listener.getsockname()[1]}/file"
  with pytest.raises(DownloadFailed, match=r"stalled after \d+ of 9999 bytes"):
    fetch.fetch(url, tmp_path / "file", size=9999, sha256=SHA)
  assert time.monotonic() - start < 5
  listener.close()


def test_closed_port_fails_at_once(web):
  port = closed_port()
  with pytest.raises(DownloadFailed, match=rf"no connection to 127.0.0.1:{port} within 3 s"):
    fetch.probe(f"http://127.0.0.1:{port}/x")


def test_a_hanging_resolver_is_bounded(web, monkeypatch):
  def late(*args, **kwargs):
    time.sleep(30)
    raise socket.gaierror("the thread that asked outlives the test")

  monkeypatch.setattr(socket, "getaddrinfo", late)
  start = time.monotonic()
  with pytest.raises(DownloadFailed, match=r"example.org:443 within 0.3 s \(no answer\)"):
    fetch.probe("https://example.org/x", seconds=0.3)
  assert time.monotonic() - start < 2


def test_probe_asks_the_proxy_where_there_is_one(web, monkeypatch):
  monkeypatch.setenv("https_proxy", web.url)
  fetch.probe("https://example.invalid/x")
  monkeypatch.setenv("no_proxy", "example.invalid")
  with pytest.raises(DownloadFailed, match="example.invalid:443"):
    fetch.probe("https://example.invalid/x", seconds=0.5)
