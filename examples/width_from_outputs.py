"""How wide is the last layer of a model that answers with log-probabilities and nothing else?

python examples/width_from_outputs.py --out=docs/figures

Small models of English text (Python's own reference manual, which every Python brings along):
what character follows two others. Every pair of characters has a free vector of --width numbers,
and an output layer turns it into log-probabilities of the characters, fitted to the counts.

The answers of the linear layer to all pairs lie in as many dimensions as it is wide: the singular
values of the centred answers fall to the rounding right behind the width (arXiv:2403.06634,
arXiv:2403.09539). Behind a learned increasing map of the logits (PLIF) and behind a mixture of
softmaxes they do not.

It prints what is found from answers rounded to fewer and fewer decimals, and how many characters
linear layers of 2 to 8 features can never predict first, whatever precedes them; it draws both as
width_from_outputs.svg. Takes half a minute.
"""

import argparse
import collections
import pathlib
from functools import partial
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rankbias import models, rank
from rankbias.report import style

HEADS = {
  "linear": {"name": "linear"},
  "PLIF": {"name": "plif", "knots": 100},
  "mixture of 3 softmaxes": {"name": "mixture_of_softmaxes", "components": 3},
}
DECIMALS = (None, 6, 4, 2, 1, 0, -1)  # 0 are whole nats, -1 multiples of ten
WIDTHS = range(2, 9)


def following(text, pairs, characters):
  """Returns the characters and P [pairs, characters]: what follows the commonest pairs of them."""
  common = [c for c, _ in collections.Counter(text).most_common(characters)]
  place = {c: i for i, c in enumerate(common)}
  counts = collections.defaultdict(lambda: np.zeros(len(common)))
  for first, second, third in zip(text, text[1:], text[2:], strict=False):
    if third in place:
      counts[first + second][place[third]] += 1
  rows = sorted(counts.values(), key=np.sum, reverse=True)[:pairs]
  return common, np.stack(rows) / np.sum(rows, 1, keepdims=True)


@partial(jax.jit, static_argnames=("name", "width", "steps", "options"))
def fit(targets, *, name, width, steps, options=()):
  """Returns log-probabilities [pairs, characters] and the head's parameters, from a full batch."""
  head = models.build_head(name, targets.shape[1], **dict(options))
  table_key, head_key = jax.random.split(jax.random.key(0))
  table = jax.random.normal(table_key, (len(targets), width))
  params = {"table": table, "head": head.init(head_key, table)}
  optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

  def loss(params):
    return head.apply(params["head"], params["table"], targets, method="loss").mean()

  def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
  log_probs = head.apply(params["head"], params["table"], method="log_probs")
  return log_probs, params["head"]["params"]


def answers(targets, width, steps):
  """Returns the log-probabilities of every head, in float32 as computed."""
  found = {}
  for label, own in HEADS.items():
    own = dict(own)
    name, options = own.pop("name"), tuple(own.items())
    log_probs, _ = fit(targets, name=name, width=width, steps=steps, options=options)
    found[label] = np.asarray(log_probs)
  return found


def rounded(log_probs, decimals):
  """Returns log-probabilities to so many decimals; None leaves them as they are."""
  return log_probs if decimals is None else np.round(np.float64(log_probs), decimals)


def width_table(found):
  """Returns the lines of the table: the width found, and the gap, for each rounding."""
  heads = "".join(f"{'as is' if d is None else f'{d} digits':>11}" for d in DECIMALS)
  lines = [f"{'width found (gap)':24s}{heads}"]
  for label, log_probs in found.items():
    estimates = [rank.width_from_outputs(rounded(log_probs, d)) for d in DECIMALS]
    lines.append(f"{label:24s}" + "".join(f"{e.width or 'none':>11}" for e in estimates))
    lines.append(" " * 24 + "".join(f"{f'({e.gap:.2g})':>11}" for e in estimates))
  return "\n".join(lines)


def never_first(targets, steps, widths=WIDTHS):
  """Returns, for linear heads, how many characters no vector at all makes the likeliest."""
  missing = {}
  for width in widths:
    linear = fit(targets, name="linear", width=width, steps=steps)[1]["linear"]
    missing[width] = int((~rank.argmaxable(linear["kernel"], linear["bias"]).argmaxable).sum())
  return missing


def draw(found, missing, width, characters):
  """Returns the figure: the spectra of the answers, and how many characters are never first."""
  figure, ((left, right),) = style.panels(1, 2, 2.7, width_ratios=[2, 1])
  curves = found | {"linear, 2 decimals": rounded(found["linear"], 2)}
  for label, look in style.hues(list(curves)).items():
    estimate = rank.width_from_outputs(curves[label])
    values = estimate.singular_values / estimate.singular_values[0]
    left.plot(np.arange(1, len(values) + 1), values, **{**look, "markersize": 2})
    if w := estimate.width:
      text = f"a gap of {estimate.gap:.1e} after {w}"
      left.text(w + 2, 2 * values[w], text, color=look["color"], fontsize=8.5)
  left.axvline(width, **style.REFERENCE)
  left.set(xlabel="index", xlim=(0, None))
  style.log_axis(left, "singular value / largest")
  style.legend(figure, left)
  right.bar(list(missing), list(missing.values()), color="0.6", width=0.7)
  right.set(xlabel="features of a linear layer", xticks=list(missing), ylim=(0, characters))
  right.set_ylabel(f"never first, of {characters} characters")
  right.set_axisbelow(True)
  right.grid(visible=False, axis="x")
  return figure


def main(arguments=None):
  """Reads the flags, prints the tables and writes the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, help="folder of the figure; none without it")
  parser.add_argument("--width", type=int, default=8)
  parser.add_argument("--pairs", type=int, default=400)
  parser.add_argument("--characters", type=int, default=64)
  parser.add_argument("--steps", type=int, default=2000)
  flags = parser.parse_args(arguments)
  text = " ".join(" ".join(topics.values()).split())
  characters, targets = following(text, flags.pairs, flags.characters)
  targets = jnp.asarray(targets, jnp.float32)
  print(f"{len(text):,} characters, {len(targets)} pairs, {len(characters)} characters to follow")
  found = answers(targets, flags.width, flags.steps)
  print(width_table(found))
  print(
    f"\n{len(set(np.argmax(targets, 1).tolist()))} characters are the commonest after some pair"
  )
  missing = never_first(targets, flags.steps)
  for width, count in missing.items():
    print(f"linear, {width} features: {count:2d} of {len(characters)} can never be first")
  if flags.out:
    flags.out.mkdir(parents=True, exist_ok=True)
    with style.styled():
      figure = draw(found, missing, flags.width, len(characters))
      style.save(figure, flags.out / "width_from_outputs", ["svg"])


if __name__ == "__main__":
  main()
