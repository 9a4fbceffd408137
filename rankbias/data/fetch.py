"""Downloads one file in bounded time: a probe first, and no waiting on a stalled network."""

import hashlib
import http.client
import os
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from rankbias.data.errors import DownloadFailed

PROBE_SECONDS = 3.0
STALL_SECONDS = 15.0
CHUNK = 1 << 18


def probe(url: str, seconds: float | None = None) -> None:
  """Opens a TCP connection to the host of `url`, or to the proxy that serves it, and closes it.

  Looking up the name counts as part of the time, since a dead resolver alone can take a minute.

  Raises:
    DownloadFailed: there is no connection within `seconds` (3 by default).
  """
  seconds = PROBE_SECONDS if seconds is None else seconds
  host, port = _endpoint(url)
  failures: list[str] = ["no answer"]

  def connect():
    try:
      socket.create_connection((host, port), timeout=seconds).close()
      failures.clear()
    except OSError as error:
      failures[:] = [str(error)]

  thread = threading.Thread(target=connect, daemon=True)
  thread.start()
  thread.join(seconds)
  if failures:
    raise DownloadFailed(f"no connection to {host}:{port} within {seconds:g} s ({failures[0]})")


def _endpoint(url: str) -> tuple[str, int]:
  """Host and port to connect to for a URL, taking HTTP_PROXY and its relatives into account."""
  parts = urllib.parse.urlsplit(url)
  proxy = urllib.request.getproxies().get(parts.scheme)
  if proxy and not urllib.request.proxy_bypass(parts.netloc):
    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
  return parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)


def fetch(url: str, path: Path, *, size: int, sha256: str) -> None:
  """Downloads `url` to `path`, which appears only once it is complete and its checksum is right.

  A connection that brings less than one chunk in 15 s is given up, so a network that accepts and
  then stalls, or trickles, is as bounded as a dead one. A complete `path` is not downloaded again.

  Raises:
    DownloadFailed: the network, the size or the checksum.
  """
  if path.is_file() and path.stat().st_size == size and _sha256(path) == sha256:
    return
  probe(url)
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  try:
    found = _receive(url, part, size)
    if found != sha256:
      raise DownloadFailed(f"{url}: sha256 {found}, expected {sha256}")
    os.replace(part, path)
  except (OSError, http.client.HTTPException) as error:
    raise DownloadFailed(f"{url}: {error}") from error
  finally:
    if part.is_file():
      part.unlink()


def _receive(url: str, part: Path, size: int) -> str:
  """Writes what `url` sends into `part`; returns its sha256."""
  digest, received, mark, since = hashlib.sha256(), 0, 0, time.monotonic()
  print(f"downloading {url} ({size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
  with urllib.request.urlopen(url, timeout=STALL_SECONDS) as response, part.open("wb") as out:
    while block := response.read1(CHUNK):
      out.write(block)
      digest.update(block)
      received += len(block)
      if received > size:
        break
      if received - mark >= CHUNK:
        mark, since = received, time.monotonic()
      elif time.monotonic() - since > STALL_SECONDS:
        raise DownloadFailed(f"{url}: stalled after {received} of {size} bytes")
  if received != size:
    raise DownloadFailed(f"{url}: expected {size} bytes, received {received}")
  return digest.hexdigest()


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
