"""Where a run's numbers come from: versions, commit, machine, command."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from rankbias import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "matplotlib")


def environment(devices: Sequence = ()) -> dict[str, Any]:
  """Describes what ran: versions, commit, host, command; `devices` is the caller's to list."""
  versions = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = None

  return {
    "versions": versions | {"rankbias": __version__},
    "git": _git(),
    "host": platform.node(),
    "platform": platform.platform(),
    "cpus": os.cpu_count(),
    "devices": [str(device) for device in devices],
    "command": shlex.join([pathlib.Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
    "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
  }


def _git() -> dict[str, Any] | None:
  """The commit of the checkout this file lies in and whether it is modified; None outside one."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / ".git").exists():
    return None

  def git(*arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout

  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(changed.strip())}
  except (OSError, subprocess.SubprocessError):
    return None
