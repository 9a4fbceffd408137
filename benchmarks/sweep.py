"""Times a sweep's members trained together as one program against one after another.

  python benchmarks/sweep.py --out=sweep.jsonl     about two minutes on two idle cores
  python benchmarks/sweep.py --quick               seconds

The members are the network of configs/digits_T.py at as many seeds. With compilation, a round
builds, compiles and runs, and one after another compiles once, as in a sweep; without, it runs what
was compiled before. Data are loaded, nothing is measured or saved.
"""

import argparse

import jax
import numpy as np
from timing import alternate, machine, progress, ratio, summary, write

from rankbias import data, program
from rankbias.config import base, override
from rankbias.train import loop, parallel

TOGETHER, ALONE = "together", "one after another"


def make_config(steps, width):
  c = base("sweep")
  c.steps = steps
  c.batch_size = 128
  c.model.update(name="mlp", depth=8, width=width, use_bias=False)
  c.optimizer.learning_rate = 0.02
  return c


def train(built, config, state):
  """Trains a program from a state; returns the final one."""
  return loop.train(
    built.chunk,
    parallel.replicate(state),
    built.constants(),
    rows=built.rows,
    start=0,
    steps=config.steps,
    length=built.length,
    hooks=[],
    on_metrics=lambda *_: None,
    on_interrupt=lambda *_: None,
  )


def contenders(config, members, source):
  """Returns {(how, with compilation): a function that trains all members}."""
  configs = [override(config, {"seed": seed}) for seed in range(members)]
  groups = {TOGETHER: [configs], ALONE: [[each] for each in configs]}

  def fresh(groups):
    program.latest.clear()  # or what an earlier round compiled would be used
    programs = [program.build(group, source) for group in groups]
    return [train(built, config, built.init()) for built in programs]

  found = {}
  for how, parts in groups.items():
    progress(f"building {how}")
    ready = [(built, built.init()) for built in (program.build(part, source) for part in parts)]
    starts = [(built, jax.device_get(state)) for built, state in ready]
    found[how, False] = lambda starts=starts: [train(b, config, state) for b, state in starts]
    found[how, True] = lambda parts=parts: fresh(parts)
  return found


def flops(config, source):
  """Floating-point operations of the matrix products of one member's step.

  Twice the kernel's size an image forward, for its gradient, and for that of its input, which the
  first layer does not need.
  """
  state = jax.eval_shape(program.build([config], source).init)
  sizes = [np.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(state["params"])]
  first = np.prod(source.shape) * config.model.width
  return float(config.batch_size * (6 * sum(sizes) - 2 * first))


def compare(config, members, repeats):
  """Returns one row per way of training, with and without compilation."""
  source = data.load("digits")
  functions = contenders(config, members, source)
  seconds = alternate(functions, repeats)
  work = members * config.steps
  return [
    {
      "benchmark": "sweep",
      "how": how,
      "compilation": compilation,
      "members": members,
      "steps": config.steps,
      "batch_size": config.batch_size,
      "width": config.model.width,
      **summary(times),
      "one_after_another_over_this": ratio(times, seconds[ALONE, compilation]),
      "member_steps_per_s": work / np.median(times),
      "gflop_per_s": work * flops(config, source) / np.median(times) / 1e9,
    }
    for (how, compilation), times in seconds.items()
  ]


def print_table(rows):
  first = rows[0]
  print(
    f"{first['members']} members, {first['steps']} steps of {first['batch_size']} images,", end=""
  )
  print(f" 8-layer MLP of width {first['width']}")
  print(
    f"{'':>18} {'compilation':>12} {'median s':>9} {'quartiles':>15} {'alone/this':>11}", end=""
  )
  print(f" {'member steps/s':>15} {'GFLOP/s':>8}")
  for r in rows:
    quartiles = f"{r['quartile1_s']:.2f}-{r['quartile3_s']:.2f}"
    print(f"{r['how']:>18} {'with' if r['compilation'] else 'without':>12}", end="")
    print(f" {r['median_s']:9.2f} {quartiles:>15} {r['one_after_another_over_this']:11.2f}", end="")
    print(f" {r['member_steps_per_s']:15,.0f} {r['gflop_per_s']:8.1f}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="file for the rows, one JSON object a line")
  parser.add_argument("--members", type=int, help="networks in the sweep (10; 3 with --quick)")
  parser.add_argument("--steps", type=int, help="steps of each member (300; 20 with --quick)")
  parser.add_argument("--repeats", type=int, help="timings of each way (5; 2 with --quick)")
  parser.add_argument("--quick", action="store_true", help="few small members and steps")
  flags = parser.parse_args()
  members, steps, repeats = (3, 20, 2) if flags.quick else (10, 300, 5)
  config = make_config(flags.steps or steps, 32 if flags.quick else 256)
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  rows = compare(config, flags.members or members, flags.repeats or repeats)
  print_table(rows)
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
