"""Times the singular values of rankbias.rank against jnp.linalg.svd and numpy.linalg.svd.

  python benchmarks/rank.py --out=rank.jsonl     about two minutes on two idle cores
  python benchmarks/rank.py --quick              seconds

The first table compares speed and error (the largest, over sigma_1, against NumPy in float64), the
second the memory of a streamed spectrum with that of the whole matrix as its rows grow.
"""

import argparse
import resource
import sys

import jax
import jax.numpy as jnp
import numpy as np
from timing import alternate, machine, progress, ratio, summary, write

from rankbias import rank

SIZES = ["20000x512", "512x256", "4000x1024", "512x4096"]
QUICK_SIZES = ["2000x128"]


def graded(n, d):
  """Returns a float32 matrix with singular values from 1 to 1e-6."""
  k = min(n, d)
  rng = np.random.default_rng(0)
  left, right = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (n, d))
  return ((left * np.geomspace(1, 1e-6, k)) @ right.T).astype(np.float32)


def time_methods(n, d, repeats):
  """Returns one row per method at one size."""
  progress(f"{n} x {d}: making the matrix")
  host = graded(n, d)
  truth = np.linalg.svd(host.astype(np.float64), compute_uv=False)
  x = jnp.asarray(host)
  peer = jax.jit(lambda x: jnp.linalg.svd(x, compute_uv=False))
  functions = {
    f"default ({rank.default_method()})": lambda: rank.singular_values(x),
    **{m: lambda m=m: rank.singular_values(x, method=m) for m in ("gram", "qr", "svd")},
    "jnp.linalg.svd": lambda: peer(x),
    "numpy.linalg.svd": lambda: np.linalg.svd(host, compute_uv=False),
  }
  seconds = alternate(functions, repeats)
  exact = rank.singular_values(x, dtype=np.float64)
  rows = []
  for name, function in functions.items():
    values = np.asarray(exact if "gram" in name else function())
    rows.append(
      {
        "benchmark": "singular_values",
        "n": n,
        "d": d,
        "method": name,
        **summary(seconds[name]),
        "jnp_over_this": ratio(seconds[name], seconds["jnp.linalg.svd"]),
        "numpy_over_this": ratio(seconds[name], seconds["numpy.linalg.svd"]),
        "error": float(np.abs(values - truth).max() / truth[0]),
      }
    )
  return rows


def streamed(d, batch):
  """Returns a compiled program: number of batches -> spectrum of as many random rows."""

  def run(batches):
    def step(i, state):
      rows = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (batch, d))
      return rank.spectrum_update(state, rows)

    return rank.spectrum_finish(jax.lax.fori_loop(0, batches, step, rank.spectrum_init(d)))

  return jax.jit(run).lower(1).compile()


def measure_memory(d, batch, batches):
  """Returns one row per number of rows; the first one warms up."""
  program = streamed(d, batch)
  scratch = program.memory_analysis().temp_size_in_bytes
  rows = []
  for count in batches:
    progress(f"streaming {count * batch} rows")
    jax.block_until_ready(program(count))
    whole = jax.ShapeDtypeStruct((count * batch, d), jnp.float32)
    # Without full_matrices=False the program reserves n x n numbers that it never uses.
    svd = jax.jit(lambda x: jnp.linalg.svd(x, full_matrices=False, compute_uv=False))
    memory = svd.lower(whole).compile().memory_analysis()
    rows.append(
      {
        "benchmark": "streamed_memory",
        "n": count * batch,
        "d": d,
        "scratch_bytes": scratch,
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * peak_unit(),
        "whole_matrix_svd_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
      }
    )
  progress("")
  return rows


def peak_unit():
  return 1 if sys.platform == "darwin" else 1024


def print_speed(rows):
  print(f"{'size':>12} {'method':>18} {'median ms':>10} {'quartiles':>15}", end="")
  print(f" {'fastest':>8} {'jnp/this':>9} {'numpy/this':>10} {'error':>8}")
  for r in rows:
    quartiles = f"{r['quartile1_s'] * 1e3:.1f}-{r['quartile3_s'] * 1e3:.1f}"
    print(f"{r['n']:>7}x{r['d']:<4} {r['method']:>18} {r['median_s'] * 1e3:10.1f}", end="")
    print(f" {quartiles:>15} {r['min_s'] * 1e3:8.1f} {r['jnp_over_this']:9.2f}", end="")
    print(f" {r['numpy_over_this']:10.2f} {r['error']:8.0e}")


def print_memory(rows):
  print(f"\n{'rows':>9} {'scratch MB':>11} {'process peak MB':>16} {'whole-matrix svd MB':>20}")
  for r in rows:
    sizes = [r[k] / 1e6 for k in ("scratch_bytes", "process_peak_bytes", "whole_matrix_svd_bytes")]
    print(f"{r['n']:>9} {sizes[0]:11.1f} {sizes[1]:16.1f} {sizes[2]:20.1f}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--sizes", nargs="+", help="matrices, such as 20000x512", metavar="NxD")
  parser.add_argument("--repeats", type=int, help="timings of each function (11; 3 with --quick)")
  parser.add_argument("--quick", action="store_true", help="one small size and little data")
  flags = parser.parse_args()
  sizes = flags.sizes or (QUICK_SIZES if flags.quick else SIZES)
  repeats = flags.repeats or (3 if flags.quick else 11)
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  # Memory first: a process's peak never falls, and the large matrices would hide the stream.
  d, batch, batches = (64, 256, (1, 4, 16)) if flags.quick else (512, 1000, (10, 20, 80, 160))
  memory = measure_memory(d, batch, batches)
  speed = []
  for size in sizes:
    speed += time_methods(*map(int, size.split("x")), repeats)
  print_speed(speed)
  print_memory(memory)
  write(flags.out, [{**row, **machine()} for row in speed + memory])


if __name__ == "__main__":
  main()
