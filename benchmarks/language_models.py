"""Time and memory of a language model's training step with every output layer, side by side.

  python benchmarks/language_models.py --out=steps.jsonl
  python benchmarks/language_models.py --quick             a minute

The networks are those of a config, lm_ptb unless told otherwise, one seed of each output layer, on
random words of its vocabulary, since nothing here depends on the text. Bytes are the peak of what
the compiled step needs beside its state and its text: activations, gradients and updates.
"""

import argparse
import pathlib

import jax
import numpy as np
from timing import alternate, machine, progress, ratio, summary, write

from rankbias import program
from rankbias.config import load, override
from rankbias.data.language import Form, TokenStream, windows
from rankbias.train import loop, parallel

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
LINEAR = "linear"


def random_text(config):
  """A stream of random words, frequent ones first, as the data of a config."""
  words, window = config.model.vocabulary, config.data.window
  count = max(50_000, 2 * config.batch_size * window)
  drawn = np.random.default_rng(0).random((3, count))
  streams = dict(
    zip(("train", "valid", "test"), (words**drawn).astype(np.int32) % words, strict=True)
  )
  return TokenStream(
    name="random",
    splits={split: windows(stream, window) for split, stream in streams.items()},
    num_classes=words,
    class_names=tuple(map(str, range(words))),
    origin="random words",
    form=Form(streams, window),
  )


def one_step(config, source):
  """(a function that takes one optimiser step, the bytes it needs, parameters)."""
  built = program.build([config], source)
  state = built.init()
  sizes = [leaf[0].size for leaf in jax.tree.leaves(state["params"])]
  state = parallel.replicate(state)
  constants = built.constants()
  feed = loop.make_feed(built.rows, built.variant, 0, 1, built.length)
  compiled = built.chunk.lower(state, feed, constants).compile()
  scratch = compiled.memory_analysis().temp_size_in_bytes
  held = [state]

  def step():
    held[0], metrics = compiled(held[0], feed, constants)
    return metrics

  return step, scratch, int(sum(sizes))


def compare(name, repeats, only):
  """Returns a row for every output layer."""
  config, sweep = load(CONFIGS / f"{name}.py")
  config.steps_per_call = 1
  source, steps, facts = random_text(config), {}, {}
  for member in sweep(config):
    own = override(config, member)
    layer = " ".join(
      f"{value}" for key, value in own.head.items() if key in ("name", "knots", "components")
    ) + (" frozen" if own.head.get("frozen") else "")
    if layer in steps or (only and own.head.name not in only):
      continue
    progress(f"compiling {layer}")
    steps[layer], scratch, parameters = one_step(own, source)
    facts[layer] = {"scratch_bytes": scratch, "parameters": parameters}
  seconds = alternate(steps, repeats)
  tokens = config.batch_size * config.data.window
  return [
    {
      "benchmark": "language_models",
      "config": name,
      "layer": layer,
      **facts[layer],
      **summary(times),
      "over_linear": ratio(seconds[LINEAR], times),
      "tokens_per_s": tokens / np.median(times),
      "batch_size": config.batch_size,
      "window": config.data.window,
      **machine(),
    }
    for layer, times in seconds.items()
  ]


def print_table(rows):
  print(
    f"{'':>28} {'median ms':>10} {'quartiles':>15} {'/ linear':>9} {'MiB':>7} {'parameters':>11}"
  )
  for r in rows:
    quartiles = f"{1e3 * r['quartile1_s']:.0f}-{1e3 * r['quartile3_s']:.0f}"
    print(f"{r['layer']:>28} {1e3 * r['median_s']:10.1f} {quartiles:>15}", end="")
    print(f" {r['over_linear']:9.2f} {r['scratch_bytes'] / 2**20:7.0f} {r['parameters']:11,}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="lm_ptb", help="a config of language models")
  parser.add_argument("--repeats", type=int, default=11, help="rounds")
  parser.add_argument("--quick", action="store_true", help="two layers of few characters")
  parser.add_argument("--out", help="file for one JSON object per row")
  flags = parser.parse_args()
  if flags.quick:
    rows = compare("lm_shakespeare", 3, (LINEAR, "plif"))
  else:
    rows = compare(flags.config, flags.repeats, ())
  print_table(rows)
  write(flags.out, rows)


if __name__ == "__main__":
  main()
