"""Times every map of rankbias.ops against jax.nn.softmax, and sparse ones against PyTorch's entmax.

python benchmarks/normalizers.py --out=normalizers.jsonl
python benchmarks/normalizers.py --quick --maps="entmax15;softmax"

The peers come with `pip install -e ".[bench]"`; without them their columns stay empty.
"""

import argparse
import importlib.metadata
import importlib.util
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import alternate, machine, ratio, summary, write

from rankbias import ops

SHAPES = [(2048, 1000), (64, 32_000)]
KNOTS = jnp.array([0.0, 1.0, -1.0, 2.0]), jnp.array([0.1, 0.1, 0.05, 0.05])
MAPS = {
  "softmax": ops.softmax,
  "softmax, T = 3": partial(ops.softmax, temperature=3.0),
  "softmax, masked": ops.softmax,
  "softmax, T = 3, masked": partial(ops.softmax, temperature=3.0),
  "log_softmax": ops.log_softmax,
  "adaptive_temperature_softmax": ops.adaptive_temperature_softmax,
  "scalable_softmax": ops.scalable_softmax,
  "sparsemax": ops.sparsemax,
  "entmax15": ops.entmax15,
  **{f"entmax, {alpha}": partial(ops.entmax, alpha=alpha) for alpha in (1.25, 1.5, 1.75, 2.0, 1.3)},
  "entmax, 1.5 traced": lambda z: ops.entmax(z, alpha=jnp.full((1, 1), 1.5)),
  "topk_softmax, 16": partial(ops.topk_softmax, k=16),
  "t_softmax, 2": partial(ops.t_softmax, t=2.0),
  "r_softmax, 0.9": partial(ops.r_softmax, rate=0.9),
  "multimax": partial(ops.multimax, ranges=KNOTS[0], slopes=KNOTS[1]),
  "piecewise_linear_softmax": partial(ops.piecewise_linear_softmax, delta=2.0),
  "exponential_mechanism": partial(ops.exponential_mechanism, epsilon=1.0),
  "power_mechanism": jax.jit(partial(ops.power_mechanism, alpha=2.0)),
  "logistic_softmax": ops.logistic_softmax,
  "sigsoftmax": ops.sigsoftmax,
  "softmax_plus_n": ops.softmax_plus_n,
  "softpick": ops.softpick,
  "sigmoid_weights": ops.sigmoid_weights,
}
# What jax offers for the same thing; softmax of z for all others.
SAME = {
  "softmax, T = 3": lambda z: jax.nn.softmax(z / 3),
  "softmax, masked": lambda z, mask: jax.nn.softmax(z, where=mask),
  "softmax, T = 3, masked": lambda z, mask: jax.nn.softmax(z / 3, where=mask),
  "log_softmax": jax.nn.log_softmax,
}
COLUMNS = [
  ("peer_s", ".1f", 1e3),
  ("peer_ratio", ".1f", 1),
  ("error", ".1e", 1),
  ("peer_error", ".1e", 1),
]
BISECTED = [1.25, 1.5, 1.75, 2.0, 1.3]  # alpha


def peers():
  """Returns the maps of the PyTorch package entmax by our names, if it is installed."""
  if not (importlib.util.find_spec("torch") and importlib.util.find_spec("entmax")):
    return {}
  import entmax

  maps = {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}
  bisected = {f"entmax, {alpha}": partial(entmax.entmax_bisect, alpha=alpha) for alpha in BISECTED}
  bound = {name: partial(function, dim=-1) for name, function in {**maps, **bisected}.items()}
  return {name: calls(function) for name, function in bound.items()}


def packages():
  """What the peers are, with as many threads as there are cores, or nothing without them."""
  if not peers():
    return {}
  import torch

  torch.set_num_threads(machine()["cores"])
  versions = {name: importlib.metadata.version(name) for name in ("entmax", "torch")}
  return versions | {"torch threads": torch.get_num_threads()}


def calls(function):
  """Returns (forward, forward and backward) of a PyTorch map, as functions of two arrays."""
  import torch

  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  wait = torch.cuda.synchronize if device == "cuda" else lambda: None

  def forward(z, _):
    z = torch.tensor(np.asarray(z), device=device)
    return lambda: (function(z), wait())[0]

  def gradient(z, cotangent):
    z = torch.tensor(np.asarray(z), device=device, requires_grad=True)
    cotangent = torch.tensor(np.asarray(cotangent), device=device)
    return lambda: (torch.autograd.grad(function(z), z, cotangent), wait())[0]

  return forward, gradient


def programs(function, z, cotangent, *more):
  """Returns (forward, gradient) as calls, and the seconds that tracing and compiling took."""
  forward = jax.jit(lambda z, *more: function(z, *more))
  gradient = jax.jit(lambda z, c, *more: jax.vjp(lambda z: function(z, *more), z)[1](c)[0])
  calls, seconds = [], []
  for program, arguments in ((forward, (z, *more)), (gradient, (z, cotangent, *more))):
    start = time.perf_counter()
    lowered = program.lower(*arguments)
    traced = time.perf_counter()
    lowered.compile()
    seconds.append({"trace_s": traced - start, "compile_s": time.perf_counter() - traced})
    calls.append(partial(program, *arguments))
  return calls, seconds


def error(name, weights, z):
  """The largest error of weights of the entmax family against float64, or None."""
  alpha = {"sparsemax": 2.0, "entmax15": 1.5, **{f"entmax, {a}": a for a in BISECTED}}.get(name)
  if alpha is None:
    return None
  a, y = alpha - 1, np.float64(z) - np.max(z, -1, keepdims=True)
  low, high = np.full((len(z), 1), -1.0), np.zeros((len(z), 1))
  for _ in range(60):
    tau = (low + high) / 2
    above = np.sum(np.maximum(a * y - tau, 0) ** (1 / a), -1, keepdims=True) >= 1
    low, high = np.where(above, tau, low), np.where(above, high, tau)
  return float(np.max(np.abs(np.maximum(a * y - low, 0) ** (1 / a) - np.asarray(weights))))


def compare(name, shape, others, *, repeats, settle):
  """Returns the rows of one map at one shape: forward, and forward with its gradient."""
  z = jax.random.normal(jax.random.key(0), shape)
  cotangent = jax.random.normal(jax.random.key(1), shape)
  z = jnp.abs(z) if name == "power_mechanism" else z
  more = (z > -1,) if name.endswith("masked") else ()
  function = MAPS[name] if not more else lambda z, mask: MAPS[name](z, where=mask)
  ours, seconds = programs(function, z, cotangent, *more)
  softmax, _ = programs(SAME.get(name, jax.nn.softmax), z, cotangent, *more)
  rows = []
  for i, kind in enumerate(("forward", "gradient")):
    timed = {"ours": ours[i], "softmax": softmax[i]}
    if name in others:
      timed["peer"] = others[name][i](z, cotangent)
    taken = alternate(timed, repeats, settle)
    row = {"benchmark": name, "kind": kind, "shape": list(shape), "dtype": "float32"}
    row |= summary(taken["ours"]) | {"ratio": ratio(taken["softmax"], taken["ours"])}
    row |= seconds[i] | {"error": error(name, ours[0](), np.asarray(z))}
    if "peer" in timed:
      row |= {"peer_s": summary(taken["peer"])["median_s"]}
      row |= {"peer_ratio": ratio(taken["ours"], taken["peer"])}
      row |= {"peer_error": error(name, others[name][0](z, None)().cpu(), np.asarray(z))}
    rows.append(row)
  return rows


def show(row):
  """Prints one line of the table."""
  shape = "x".join(map(str, row["shape"]))
  print(f"{row['benchmark']:>29} {row['kind']:>8} {shape:>9} {row['median_s'] * 1e3:8.2f}", end="")
  print(f" {row['ratio']:8.2f} {row['trace_s']:8.2f} {row['compile_s']:9.2f}", end="")
  for key, form, unit in COLUMNS:
    value = row.get(key)
    print(f" {'' if value is None else format(value * unit, form):>9}", end="")
  print(flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--maps", default=";".join(MAPS), help="names, separated by semicolons")
  parser.add_argument("--quick", action="store_true", help="one small shape")
  flags = parser.parse_args()
  about = machine() | packages()
  print(", ".join(f"{key} {value}" for key, value in about.items()))
  print(f"{'map':>29} {'kind':>8} {'shape':>9} {'ms':>8} {'/softmax':>8}", end="")
  print(f" {'trace s':>8} {'compile s':>9}", end="")
  print(f" {'peer ms':>9} {'peer/us':>9} {'error':>9} {'its error':>9}")
  rows, others = [], peers()
  pace = {"repeats": 3, "settle": 0.0} if flags.quick else {"repeats": 21, "settle": 0.05}
  for shape in [(128, 300)] if flags.quick else SHAPES:
    for name in flags.maps.split(";"):
      for row in compare(name, shape, others, **pace):
        show(row)
        rows.append(row)
  write(flags.out, [row | about for row in rows])


if __name__ == "__main__":
  main()
