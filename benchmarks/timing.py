"""Times functions side by side in one run: in turns, so that a busy moment meets all of them."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import jax


def alternate(
  functions: dict[str, Callable], repeats: int, settle: float = 0.05
) -> dict[str, list[float]]:
  """Returns the seconds of `repeats` calls of each function, in turns.

  A call counts once its function has run alone for `settle` seconds: by then the caches hold its
  own numbers, and the waiting threads of the library before it (PyTorch's spin on a CPU for some
  20 ms, in which ours took twice as long) have gone to sleep.
  """
  for function in functions.values():
    jax.block_until_ready(function())
  seconds = {name: [] for name in functions}
  for repeat in range(repeats):
    progress(f"round {repeat + 1} of {repeats}")
    # Every other round backwards: nobody is always after the same neighbour.
    for name, function in list(functions.items())[:: 1 if repeat % 2 else -1]:
      settled = time.perf_counter() + settle
      while time.perf_counter() < settled:
        jax.block_until_ready(function())
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - start)
  progress("")
  return seconds


def summary(seconds: list[float]) -> dict[str, float]:
  """Returns the median, the fastest and the quartiles of some timings."""
  low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
  return {"median_s": middle, "min_s": min(seconds), "quartile1_s": low, "quartile3_s": high}


def ratio(ours: list[float], theirs: list[float]) -> float:
  """Returns how many times slower theirs is: the median of the ratios of the same round."""
  return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def machine() -> dict[str, object]:
  """Describes where the numbers come from."""
  return {
    "device": jax.devices()[0].device_kind,
    "platform": jax.default_backend(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "load": round(os.getloadavg()[0], 1),
    "jax": jax.__version__,
    "python": platform.python_version(),
  }


def write(path: str | None, rows: list[dict]) -> None:
  """Writes one JSON object per row."""
  if path:
    with open(path, "w") as file:
      file.writelines(json.dumps(row) + "\n" for row in rows)
    print(f"{len(rows)} rows in {path}")


def progress(text: str) -> None:
  """Shows where the run is, on a terminal only."""
  if sys.stderr.isatty():
    print(f"\r{text:<40}", end="", file=sys.stderr, flush=True)
