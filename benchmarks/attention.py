"""Times attention at an adaptive temperature: dense, in blocks, as a kernel, and beside jax.nn.

  python benchmarks/attention.py --out=attention.jsonl     about ten minutes on two idle cores
  python benchmarks/attention.py --lengths=8192 --kinds=forward --causal
  python benchmarks/attention.py --smoke                   seconds

Batch 1, queries, keys and values alike. `one pass` is the second pass of `stream` alone, at an
inverse temperature of 1: plain attention in blocks. The first pass repeats its product of queries
and keys, so 1.5 times it is what arithmetic allows `stream` forward. `kernel` runs where there is a
GPU. A method whose temporary memory exceeds --gigabytes is left out. Memory is what the compiler
reserves beside arguments and results.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
from timing import alternate, machine, progress, ratio, summary, write

from rankbias import ops
from rankbias.ops.attention_stream import stream_mix, stream_moments

LENGTHS = [1024, 2048, 4096, 8192, 16384]
METHODS = ["dense", "stream", "one pass", "kernel", "jax.nn"]
RATIOS = ["stream", "one pass", "jax.nn"]


def one_pass(query, key, value, *, maximum, is_causal):
  """Plain attention in blocks, the maxima of the rows known."""
  beta = jnp.ones_like(maximum)
  scale = query.shape[-1] ** -0.5
  out = stream_mix(query, key, value, beta, maximum, scale=scale, is_causal=is_causal)
  return out.astype(query.dtype)


def attention(method, arrays, is_causal):
  """Returns a function of queries, keys and values."""
  if method == "jax.nn":
    cudnn = jax.default_backend() == "gpu" and arrays[0].dtype == jnp.bfloat16
    own = {"implementation": "cudnn"} if cudnn else {}
    return partial(jax.nn.dot_product_attention, is_causal=is_causal, **own)
  if method == "one pass":
    moments = partial(stream_moments, scale=arrays[0].shape[-1] ** -0.5, is_causal=is_causal)
    return partial(one_pass, maximum=jax.jit(moments)(*arrays[:2]).maximum, is_causal=is_causal)
  adaptive = ops.adaptive_temperature_attention
  return partial(adaptive, is_causal=is_causal, implementation=method)


def program(function, kind, arrays):
  """Returns a compiled call and the bytes that it needs beside arguments and results."""

  def gradient(cotangent, *arrays):
    out, pull = jax.vjp(function, *arrays)
    return out, *pull(cotangent)

  run, arrays = (function, arrays) if kind == "forward" else (gradient, [arrays[2], *arrays])
  compiled = jax.jit(run).lower(*arrays).compile()
  return lambda: compiled(*arrays), compiled.memory_analysis().temp_size_in_bytes


def compare(length, kind, flags):
  """Returns one row a method, timed in turns."""
  keys = jax.random.split(jax.random.key(0), 3)
  shape = 1, length, flags.heads, flags.features
  arrays = [jax.random.normal(key, shape, flags.dtype) for key in keys]
  calls, rows = {}, {}
  for method in METHODS:
    if method == "kernel" and jax.default_backend() != "gpu":
      continue
    progress(f"{length}, {kind}: compiling {method}")
    call, temporary = program(attention(method, arrays, flags.causal), kind, arrays)
    if temporary > flags.gigabytes * 2**30:
      continue
    calls[method] = call
    rows[method] = {"benchmark": "attention", "method": method, "kind": kind, "length": length}
    rows[method] |= {"causal": flags.causal, "shape": list(shape), "dtype": flags.dtype}
    rows[method] |= {"scratch_bytes": temporary}
  seconds = alternate(calls, flags.repeats)
  for method, row in rows.items():
    row |= summary(seconds[method])
    row |= {"spread": (row["quartile3_s"] - row["quartile1_s"]) / row["median_s"]}
    for other in RATIOS:
      if other in seconds:
        row[f"over_{other.replace(' ', '_')}"] = ratio(seconds[other], seconds[method])
  return list(rows.values())


def show(row):
  """Prints one line of the table."""
  print(f"{row['kind']:>20} {row['length']:>7} {row['method']:>9}", end="")
  print(f" {row['median_s'] * 1e3:>9.1f} {row['spread']:>7.0%}", end="")
  for other in RATIOS:
    value = row.get(f"over_{other.replace(' ', '_')}")
    print(f" {'' if value is None else format(value, '.2f'):>9}", end="")
  print(f" {row['scratch_bytes'] / 2**20:>9.1f}", flush=True)


def parsed(arguments=None):
  """Returns the flags."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
  parser.add_argument("--kinds", default="forward,forward and backward")
  parser.add_argument("--causal", action="store_true")
  parser.add_argument("--heads", type=int, default=4)
  parser.add_argument("--features", type=int, default=64)
  parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--gigabytes", type=float, default=2, help="most temporary memory")
  parser.add_argument("--smoke", "--quick", action="store_true", help="one small length")
  flags = parser.parse_args(arguments)
  if flags.smoke:
    flags.lengths, flags.repeats, flags.heads = "256", 2, 1
  return flags


def main():
  flags = parsed()
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  print(f"{'kind':>20} {'length':>7} {'method':>9} {'ms':>9} {'spread':>7} ", end="")
  print("".join(f" {'/' + other:>9}" for other in RATIOS), f"{'MiB':>9}")
  rows = []
  for kind in flags.kinds.split(","):
    for length in map(int, flags.lengths.split(",")):
      for row in compare(length, kind, flags):
        show(row)
        rows.append(row)
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
