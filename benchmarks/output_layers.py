"""Times output layers with their cross-entropy, forward and backward, beside the dense softmax.

  python benchmarks/output_layers.py --out=output_layers.jsonl
  python benchmarks/output_layers.py --tokens=1024 --classes=8000
  python benchmarks/output_layers.py --layers="dense;chunked" --chunk 1024 4096
  python benchmarks/output_layers.py --quick                       seconds

`dense` forms all logits and takes optax's cross-entropy. A layer whose temporaries exceed
--gigabytes is timed on fewer tokens, which its row says; time and memory are scaled to all of them.
`chunked` is ops.linear_cross_entropy with a cotangent for every token, `mean` with the gradients
formed in the forward pass, and the rows below it are the same with a map on the logits. Heads that
end in one linear map go through that loss as well, and a mixture of softmaxes and the two heads of
facets through losses of their own that call it. Mixtape, which gives every class gates of its own,
is evaluated on one block of tokens after the other, and again for the derivative, so that the
logits of one block exist at a time. It and the mixture are timed on --head_tokens and scaled, as
they take a block as long as any other; their memory is that of all tokens. Memory is what the
compiler reserves beside arguments and results, that is, beside parameters and gradients.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax
from timing import alternate, machine, ratio, summary, write

from rankbias import models, ops

BLOCK = 512  # tokens of a block of a head


def dense(features, kernel, labels, own, chunk):
  """Losses from the matrix of logits."""
  del own, chunk
  wide = jnp.matmul(features, kernel, preferred_element_type=jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(wide, labels)


def chunked(features, kernel, labels, own, chunk, *, logit_map=None, reduction=None):
  """Losses without that matrix; logit_map(own) makes the map of its parameters."""
  function = None if logit_map is None else logit_map(own)
  options = {"logit_map": function, "reduction": reduction, "chunk": chunk}
  return ops.linear_cross_entropy(features, kernel, labels, **options)[0]


def by_tokens(features, kernel, labels, own, chunk, *, name, options):
  """Losses of a head on blocks of tokens, whose logits are formed again for the derivative."""
  types = {"dtype": features.dtype, "param_dtype": features.dtype}
  head = models.build_head(name, kernel.shape[1], use_bias=False, **options, **types)
  most = chunk[0] if chunk else BLOCK
  size = next(n for n in range(min(most, len(labels)), 0, -1) if len(labels) % n == 0)

  @jax.checkpoint
  def losses(block):
    variables = {"params": {**own, "linear": {"kernel": kernel}}}
    return head.apply(variables, *block, method="loss")

  blocks = features.reshape(-1, size, features.shape[1]), labels.reshape(-1, size)
  return jax.lax.map(losses, blocks).ravel()


def in_blocks(features, kernel, labels, own, chunk, *, name, options):
  """Losses of a head that goes through a loss without the matrix of logits."""
  del chunk
  types = {"dtype": features.dtype, "param_dtype": features.dtype}
  head = models.build_head(name, kernel.shape[1], use_bias=False, chunked=True, **options, **types)
  variables = {"params": {**own, "linear": {"kernel": kernel}}}
  key = {"dropout": jax.random.key(2)}  # as in training
  return head.apply(variables, features, labels, rngs=key, method="loss")


def plif(own):
  return ops.plif_map(own, bound=20.0)


def knots(count):
  return lambda key, features, classes: ops.plif_init(key, count, scale=1.0)


def nothing(key, features, classes):
  del key, features, classes
  return jnp.zeros(0)


def beside_the_kernel(name, options):
  """Draws the parameters of a head without its last kernel, which all layers share."""

  def start(key, features, classes):
    head = models.build_head(name, classes, use_bias=False, **options)
    params = dict(jax.jit(head.init)(key, jnp.zeros((1, features)))["params"])
    del params["linear"]  # one array for all layers, of the dtype of the features
    return params

  return start


GENERALIZED = partial(ops.generalized_sigsoftmax_logits, knee=-1.5, slope=2.5)
MAPS = {
  "sigsoftmax": (lambda own: ops.sigsoftmax_logits, nothing),
  "generalised sigsoftmax": (lambda own: GENERALIZED, nothing),
  "tanh cap 30": (lambda own: partial(ops.tanh_cap, cap=30.0), nothing),
  "PLIF 1000": (plif, knots(1000)),
  "PLIF 100000": (plif, knots(100_000)),
}
CHUNKED = {
  "mixture of contexts 15": ("mixture_of_contexts", {}),
  "DRILL 4": ("drill", {}),
  "dropout, decoupled": ("dropout_decoupled", {}),
  "partitioned": ("partitioned", {}),
  "multi-facet": ("multi_facet", {}),
  "mixture of softmaxes 15": ("mixture_of_softmaxes", {}),
}
HEADS = {"Mixtape": ("mixtape", {})}
ON_FEW = ("mixture of softmaxes 15", *HEADS)  # tokens, as they take long
# name: loss(features, kernel, labels, own, chunk) -> one a token or the mean, and own parameters
# from a key, the number of features and that of classes.
LAYERS = {
  "dense": (dense, nothing),
  "chunked": (chunked, nothing),
  **{name: (partial(chunked, logit_map=f), own) for name, (f, own) in MAPS.items()},
  "chunked, mean": (partial(chunked, reduction="mean"), nothing),
  **{
    f"{name}, mean": (partial(chunked, logit_map=f, reduction="mean"), own)
    for name, (f, own) in MAPS.items()
  },
  **{
    label: (partial(function, name=name, options=own), beside_the_kernel(name, own))
    for function, heads in ((in_blocks, CHUNKED), (by_tokens, HEADS))
    for label, (name, own) in heads.items()
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


def program(name, arguments, chunk):
  """Returns a compiled call of loss and gradients, its temporary bytes, and the compile time."""
  h, w, labels, cotangents = arguments
  loss, start = LAYERS[name]
  own = start(jax.random.key(1), *w.shape)

  def run(h, w, own, labels, cotangents):
    value, pull = jax.vjp(lambda h, w, own: loss(h, w, labels, own, chunk), h, w, own)
    cotangents = cotangents if value.ndim else jnp.ones(())
    return value, pull(cotangents.astype(value.dtype))

  before = time.perf_counter()
  compiled = jax.jit(run).lower(h, w, own, labels, cotangents).compile()
  seconds = time.perf_counter() - before
  memory = compiled.memory_analysis().temp_size_in_bytes
  return (lambda: compiled(h, w, own, labels, cotangents)), memory, seconds


def first(arguments, tokens):
  """Returns the arguments of the first tokens alone."""
  h, w, labels, cotangents = arguments
  return h[:tokens], w, labels[:tokens], cotangents[:tokens]


def fitting(name, arguments, flags):
  """Returns the program on as many tokens as it is timed on, their number, and its memory on all.

  As many as its memory allows, from which that on all is scaled, or --head_tokens of a head.
  """
  tokens = len(arguments[0])
  call, memory, seconds = program(name, arguments, flags.chunk)
  if name in ON_FEW and memory <= flags.gigabytes * 1e9:
    used = min(tokens, flags.head_tokens)
    call = call if used == tokens else program(name, first(arguments, used), flags.chunk)[0]
    return call, memory, seconds, used
  used = tokens
  while memory > flags.gigabytes * 1e9 and used > 1:
    used //= 2
    call, memory, seconds = program(name, first(arguments, used), flags.chunk)
  return call, memory * tokens // used, seconds, used


def compare(names, classes, flags):
  """Returns a row for every layer."""
  tokens = flags.tokens
  arguments = arrays(tokens, flags.features, classes, flags.dtype)
  programs = {name: fitting(name, arguments, flags) for name in names}
  taken = alternate({name: p[0] for name, p in programs.items()}, flags.repeats)
  scaled = {name: [t * tokens / programs[name][3] for t in taken[name]] for name in names}
  rows = []
  for name, (_, memory, seconds, used) in programs.items():
    row = {"layer": name, "tokens": tokens, "features": flags.features, "classes": classes}
    row |= {"dtype": flags.dtype, "timed_tokens": used, "compile_s": seconds, "chunk": flags.chunk}
    row |= summary(scaled[name]) | {"scratch_bytes": memory}
    same = "chunked, mean" if name.endswith("mean") else "chunked"
    for other, key in (("dense", "over_dense"), (same, "over_chunked")):
      row[key] = ratio(scaled[other], scaled[name]) if other in names else None
    rows.append(row)
  return rows


def show(row):
  """Prints one line of the table."""
  print(f"{row['layer']:>23} {row['tokens']:>6} {row['classes']:>7}", end="")
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
  parser.add_argument("--gigabytes", type=float, default=20, help="most temporaries of a layer")
  parser.add_argument("--chunk", type=int, nargs="+", help="tokens and classes of a block, 1 or 2")
  parser.add_argument("--head_tokens", type=int, default=1024, help="that heads are timed on")
  parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
  parser.add_argument("--quick", action="store_true", help="one small shape")
  flags = parser.parse_args()
  if flags.quick:
    flags.tokens, flags.features, flags.classes = 256, 32, [1000]
  print(", ".join(f"{key} {value}" for key, value in machine().items()))
  print(f"{'layer':>23} tokens classes {'ms':>10}    /dense  /chunked        MB compile s")
  rows, names = [], flags.layers.split(";")
  if flags.chunk and len(flags.chunk) == 1:
    flags.chunk *= 2
  for classes in flags.classes:
    for row in compare(names, classes, flags):
      show(row)
      rows.append(row)
  write(flags.out, [{**row, **machine()} for row in rows])


if __name__ == "__main__":
  main()
