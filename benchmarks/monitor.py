"""Times training with and without rank.RankMonitor: what measuring every 100 steps costs.

  python benchmarks/monitor.py --out=monitor.jsonl     about ten minutes on two idle cores
  python benchmarks/monitor.py --models mlp-digits     a minute
  python benchmarks/monitor.py --quick                 seconds, a small network

A block of training steps with one measurement in it, of every layer, its numbers read at the end,
takes turns with the same block without. Costs are percent of 100 steps, one of which is measured:
"blocks" is the difference of the two blocks, "alone" the time of a measurement that nothing runs
beside, and "processor" its processor time over that of the steps. Where the noise of blocks is
larger than their difference, "alone" is the number to read; on a busy machine "processor".
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import machine, progress, summary, write

from rankbias import rank
from rankbias.models import build_head, build_model

EVERY = 100
KINDS = ("blocks", "alone", "processor")
# name: (model, image shape, images a step, steps in a block)
MODELS = {
  "mlp-digits": (("mlp", {"depth": 8, "width": 256}), (8, 8, 1), 128, 100),
  "mlp-cifar": (("mlp", {"depth": 8, "width": 256}), (32, 32, 3), 256, 100),
  "resnet18-cifar": (("resnet18", {}), (32, 32, 3), 128, 2),
}
QUICK = {"mlp-tiny": (("mlp", {"depth": 3, "width": 16}), (4, 4, 1), 16, 5)}


def make_training(model, shape, batch):
  """Returns (state, step: state -> state, activations, examples), all compiled and random."""
  (name, options), head = model, build_head("linear", 10)
  network = build_model(name, **options)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(256, *shape)), jnp.float32)
  y = jnp.asarray(rng.integers(0, 10, batch))
  rows = x[np.arange(batch) % len(x)]
  optimizer = optax.sgd(0.01, momentum=0.9)

  def loss(params, extra):
    variables = {"params": params["model"], **extra}
    (features, _), extra = network.apply(variables, rows, True, mutable=["batch_stats"])
    logits = head.apply({"params": params["head"]}, features)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), dict(extra)

  @jax.jit
  def start():
    (features, _), variables = network.init_with_output(jax.random.key(0), x[:1], False)
    own = {"model": variables["params"], "head": head.init(jax.random.key(1), features)["params"]}
    extra = {k: v for k, v in variables.items() if k != "params"}
    return own, extra, optimizer.init(own)

  @jax.jit
  def step(state):
    params, extra, momentum = state
    grads, extra = jax.grad(loss, has_aux=True)(params, extra)
    updates, momentum = optimizer.update(grads, momentum, params)
    return optax.apply_updates(params, updates), extra, momentum

  def activations(state, x):
    return network.apply({"params": state[0]["model"], **state[1]}, x, False)[1]

  return start(), step, activations, x


def time_monitor(name, model, shape, batch, steps, repeats, features):
  """Returns the row of one network."""
  state, step, activations, x = make_training(model, shape, batch)
  rows = min(128, len(x))
  monitor = rank.RankMonitor(activations, x, every=1, rows=rows, features=features)

  def block(measured):
    began, now = clocks(), state
    for i in range(steps):
      now = step(now)
      if measured and i == steps // 2:
        monitor(i, now)
    jax.block_until_ready(now)
    monitor.rows()
    return clocks() - began

  def alone():
    jax.block_until_ready(state)
    began = clocks()
    monitor(0, state)
    monitor.rows()
    return clocks() - began

  block(True), block(False), alone()  # compiles
  found = {"with": [], "without": [], "alone": []}
  for repeat in range(repeats):
    progress(f"{name}: round {repeat + 1} of {repeats}")
    for measured in ((True, False), (False, True))[repeat % 2]:
      found["with" if measured else "without"].append(block(measured))
    found["alone"].append(alone())
  progress("")
  pairs = list(zip(found["with"], found["without"], found["alone"], strict=True))
  percents = {
    "blocks": [100 * steps * (a - b)[0] / (b[0] * EVERY) for a, b, _ in pairs],
    "alone": [100 * steps * c[0] / (b[0] * EVERY) for _, b, c in pairs],
    "processor": [100 * steps * c[1] / (b[1] * EVERY) for _, b, c in pairs],
  }
  return {
    "benchmark": "monitor",
    "model": name,
    "batch": batch,
    "layers": len(jax.eval_shape(activations, state, x)),
    "rows": rows,
    "features": features,
    "every": EVERY,
    "block_steps": steps,
    "step_s": statistics.median(b[0] for b in found["without"]) / steps,
    "measurement_s": statistics.median(c[0] for c in found["alone"]),
    **{f"{p}_percent_{k[:-2]}": v for p, x in percents.items() for k, v in summary(x).items()},
  }


def clocks():
  """Seconds of the wall's clock and of this process's processors."""
  return np.array([time.perf_counter(), time.process_time()])


def print_rows(rows):
  print(
    f"{'network':>15} {'layers':>6} {'features':>8} {'step ms':>8} {'measuring ms':>12}", end=""
  )
  print("".join(f" {f'{kind}, %':>22}" for kind in KINDS))
  for r in rows:
    print(f"{r['model']:>15} {r['layers']:>6} {r['features']:>8} {r['step_s'] * 1e3:8.2f}", end="")
    print(f" {r['measurement_s'] * 1e3:12.2f}", end="")
    for kind in KINDS:
      low, middle, high = (r[f"{kind}_percent_{q}"] for q in ("quartile1", "median", "quartile3"))
      print(f" {f'{middle:.2f} ({low:.2f} to {high:.2f})':>22}", end="")
    print()


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--models", nargs="+", choices=MODELS, help="networks; all by default")
  parser.add_argument("--features", nargs="+", type=int, default=[64], help="features of a layer")
  parser.add_argument("--repeats", type=int, help="blocks of each kind (21; 3 with --quick)")
  parser.add_argument("--quick", action="store_true", help="a small network and few blocks")
  flags = parser.parse_args()
  models = QUICK if flags.quick else {k: MODELS[k] for k in flags.models or MODELS}
  repeats = flags.repeats or (3 if flags.quick else 21)
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  rows = [
    time_monitor(name, *model, repeats, features)
    for name, model in models.items()
    for features in flags.features
  ]
  print_rows(rows)
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
