"""A run's folder: named, made, appended to, finished and read back. Knows files, not JAX.

A run is one program with one or more members. result.json is written last: without it, a run is
unfinished.
"""

from rankbias.runs.folder import (
  append,
  find,
  finish,
  is_finished,
  prepare,
  read,
  require_writable,
  trim,
)
from rankbias.runs.identity import differences, plain, run_id
from rankbias.runs.provenance import environment

__all__ = [
  "append",
  "differences",
  "environment",
  "find",
  "finish",
  "is_finished",
  "plain",
  "prepare",
  "read",
  "require_writable",
  "run_id",
  "trim",
]
