"""Times output layers with their cross-entropy, forward and backward, beside the dense softmax.

  python benchmarks/output_layers.py --out=output_layers.jsonl
  python benchmarks/output_layers.py --tokens=1024 --classes=8000
  python benchmarks/output_layers.py --quick                       seconds

`dense` forms all logits and takes optax's cross-entropy. A layer whose temporaries exceed
--gigabytes is timed on fewer tokens, which its row says; time and memory are scaled to all of them.
`chunked` is ops.linear_cross_entropy with a cotangent for every token, `mean` with the gradients
formed in the forward pass, and the rows below it are the same with a map on the logits. Memory is
what the compiler reserves beside arguments and results, that is, beside parameters and gradients.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax
from timing import alternate, machine, ratio, summary, write

from rankbias import ops


def dense(features, kernel, labels, own):
  """Losses from the matrix of logits."""
  del own
  wide = jnp.matmul(features, kernel, preferred_element_type=jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(wide, labels)


def chunked(features, kernel, labels, own, *, logit_map=None, reduction=None):
  """Losses without that matrix; logit_map(own) makes the map of its parameters."""
  function = None if logit_map is None else logit_map(own)
  options = {"logit_map": function, "reduction": reduction}
  return ops.linear_cross_entropy(features, kernel, labels, **options)[0]


def plif(own):
  return ops.plif_map(own, bound=20.0)


def knots(count):
  return lambda key: ops.plif_init(key, count, scale=1.0)


def nothing(key):
  del key
  return jnp.zeros(0)


MAPS = {
  "sigsoftmax": (lambda own: ops.sigsoftmax_logits, nothing),
  "tanh cap 30": (lambda own: partial(ops.tanh_cap, cap=30.0), nothing),
  "PLIF 1000": (plif, knots(1000)),
  "PLIF 100000": (plif, knots(100_000)),
}
# name: loss(features, kernel, labels, own) -> one a token or the mean, and own parameters from a
# key. A layer of another kind, such as a mixture, is one more entry.
LAYERS = {
  "dense": (dense, nothing),
  "chunked": (chunked, nothing),
  **{name: (partial(chunked, logit_map=f), own) for name, (f, own) in MAPS.items()},
  "chunked, mean": (partial(chunked, reduction="mean"), nothing),
  **{
    f"{name}, mean": (partial(chunked, logit_map=f, reduction="mean"), own)
    for name, (f, own) in MAPS.items()
  },
}


def arrays(tokens, features, classes, dtype):
  """Features, a kernel that makes logits of standard deviation 2, labels and cotangents."""
  keys = jax.random.split(jax.random.key(0), 4)
  h = jax.random.normal(keys[0], (tokens, features))
  w = jax.random.normal(keys[1], (features, classes)) * 2 / features**0.5
  labels = jax.random.randint(keys[2], (tokens,), 0, classes)
  cotangents = jax.random.uniform(keys[3], (tokens,), minval=0.5) / tokens
  return h.astype(dtype), w.astype(dtype), labels, cotangents


def program(name, arguments):
  """Returns a compiled call of loss and gradients, its temporary bytes, and the compile time."""
  loss, start = LAYERS[name]
  own = start(jax.random.key(1))

  def run(h, w, own, labels, cotangents):
    value, pull = jax.vjp(lambda h, w, own: loss(h, w, labels, own), h, w, own)
    return value, pull(cotangents if value.ndim else jnp.ones_like(value))

  h, w, labels, cotangents = arguments
  before = time.perf_counter()
  compiled = jax.jit(run).lower(h, w, own, labels, cotangents).compile()
  seconds = time.perf_counter() - before
  memory = compiled.memory_analysis().temp_size_in_bytes
  return (lambda: compiled(h, w, own, labels, cotangents)), memory, seconds


def fitting(name, arguments, limit):
  """Returns the program on as many tokens as its memory allows, and their number."""
  h, w, labels, cotangents = arguments
  while True:
    call, memory, seconds = program(name, (h, w, labels, cotangents))
    if memory <= limit or len(h) == 1:
      return call, memory, seconds, len(h)
    h, labels, cotangents = (x[: len(x) // 2] for x in (h, labels, cotangents))


def compare(names, tokens, features, classes, repeats, gigabytes, dtype):
  """Returns a row for every layer."""
  arguments = arrays(tokens, features, classes, dtype)
  programs = {name: fitting(name, arguments, gigabytes * 1e9) for name in names}
  taken = alternate({name: p[0] for name, p in programs.items()}, repeats)
  scaled = {name: [t * tokens / programs[name][3] for t in taken[name]] for name in names}
  rows = []
  for name, (_, memory, seconds, used) in programs.items():
    row = {"layer": name, "tokens": tokens, "features": features, "classes": classes}
    row |= {"dtype": dtype, "timed_tokens": used, "compile_s": seconds}
    row |= summary(scaled[name]) | {"scratch_bytes": memory * tokens // used}
    same = "chunked, mean" if name.endswith("mean") else "chunked"
    for other, key in (("dense", "over_dense"), (same, "over_chunked")):
      row[key] = ratio(scaled[other], scaled[name]) if other in names else None
    rows.append(row)
  return rows


def show(row):
  """Prints one line of the table."""
  print(f"{row['layer']:>18} {row['tokens']:>6} {row['classes']:>7}", end="")
  print(f" {row['median_s'] * 1e3:>10.1f}", end="")
  for key in ("over_dense", "over_chunked"):
    print(f" {'' if row[key] is None else format(row[key], '.2f'):>9}", end="")
  print(f" {row['scratch_bytes'] / 1e6:>9.1f} {row['compile_s']:>9.1f}", end="")
  used = row["timed_tokens"]
  print("" if used == row["tokens"] else f"  scaled from {used} tokens", flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--layers", default=";".join(LAYERS), help="names, separated by semicolons")
  parser.add_argument("--tokens", type=int, default=8192)
  parser.add_argument("--features", type=int, default=512)
  parser.add_argument("--classes", type=int, nargs="+", default=[32_000, 128_000])
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--gigabytes", type=float, default=14, help="most temporaries of a layer")
  parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
  parser.add_argument("--quick", action="store_true", help="one small shape")
  flags = parser.parse_args()
  if flags.quick:
    flags.tokens, flags.features, flags.classes = 256, 32, [1000]
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  print(
    f"{'layer':>18} {'tokens':>6} {'classes':>7} {'ms':>10} {'/dense':>9} {'/chunked':>9}", end=""
  )
  print(f" {'MB':>9} {'compile s':>9}")
  rows, names = [], flags.layers.split(";")
  for classes in flags.classes:
    limits = flags.repeats, flags.gigabytes, flags.dtype
    for row in compare(names, flags.tokens, flags.features, classes, *limits):
      show(row)
      rows.append(row)
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
