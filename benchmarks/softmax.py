"""Times rankbias.ops.softmax against jax.nn.softmax, forward and with its gradient.

python benchmarks/softmax.py --out=softmax.jsonl
python benchmarks/softmax.py --quick
"""

import argparse

import jax
import jax.numpy as jnp
from timing import alternate, machine, ratio, summary, write

from rankbias import ops

SHAPES = [(128, 10), (2048, 1000), (64, 50_000)]


def gradient(softmax):
  return jax.jit(jax.grad(lambda z: jnp.sum(softmax(z) ** 2)))


def compare(shape, dtype, repeats):
  """Returns one row per function at one shape; `ratio` is its time over that of jax.nn.softmax."""
  z = jax.random.normal(jax.random.key(0), shape, dtype)
  mask = z > -1
  pairs = {
    "softmax": (ops.softmax, jax.nn.softmax),
    "softmax, T = 3": (lambda z: ops.softmax(z, temperature=3.0), lambda z: jax.nn.softmax(z / 3)),
    "softmax, masked": (
      lambda z: ops.softmax(z, where=mask),
      lambda z: jax.nn.softmax(z, where=mask),
    ),
  }
  rows = []
  for name, (ours, theirs) in pairs.items():
    for kind, wrap in (("forward", jax.jit), ("gradient", gradient)):
      mine, peer = wrap(ours), wrap(theirs)
      seconds = alternate({"mine": lambda f=mine: f(z), "peer": lambda f=peer: f(z)}, repeats)
      row = {"benchmark": name, "kind": kind, "shape": list(shape), "dtype": jnp.dtype(dtype).name}
      rows.append(
        {**row, **summary(seconds["mine"]), "ratio": ratio(seconds["peer"], seconds["mine"])}
      )
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--quick", action="store_true", help="one small shape")
  flags = parser.parse_args()
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  rows = []
  for shape in SHAPES[:1] if flags.quick else SHAPES:
    for dtype in (jnp.float32, jnp.bfloat16):
      rows += compare(shape, dtype, 5 if flags.quick else 51)
  print(f"{'shape':>14} {'dtype':>9} {'function':>16} {'kind':>9} {'median ms':>10} {'ratio':>6}")
  for r in rows:
    shape = "x".join(map(str, r["shape"]))
    print(f"{shape:>14} {r['dtype']:>9} {r['benchmark']:>16} {r['kind']:>9}", end="")
    print(f" {r['median_s'] * 1e3:10.3f} {r['ratio']:6.2f}")
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
