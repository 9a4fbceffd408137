"""What can an output layer of width d say about 200 classes, when the contexts are free vectors?

Claim: log-probabilities of a linear softmax have rank at most d + 2 (Yang et al. 2018,
arXiv:1711.03953), so that it cannot fit what needs more; increasing maps of the logits and mixtures
can (Ganea et al. 2019, arXiv:1902.08077). How much they gain where nothing but the layer limits the
fit is measured here.

  python experiments/main.py --config=configs/bottleneck_dirichlet.py
  python experiments/main.py --config=configs/bottleneck_dirichlet.py:small
  python experiments/main.py --config=configs/bottleneck_dirichlet.py:long

Targets are 200 rows ~ Dirichlet(a, ..., a) over 200 classes, for a = 0.01, 0.1, 1, 10. Context
vectors, kernel and bias are free and trained on the whole batch for 3,000 steps of Adam with a
cosine schedule. A seed is a draw of targets and a start; three seeds with two learning rates each
train side by side. The report takes the better rate of the two, by the mean of the final KL over
seeds.

Equal budget means equal steps and rates; the table states parameters. A mixture makes its
contexts of size d from features of size d, or of 5 d in a row of its own, where the five contexts
may be anything in (-1, 1)^d. `every` adds the other output layers and takes twice as long, `small`
has them all at one concentration and three widths, `long` doubles the steps of `small`, to see what
was left to gain; `smoke` ends in seconds.

Measured (docs/results.md), KL in nats and modes matched at a = 0.1 and d = 5, mean and standard
deviation of three seeds: linear 1.409 +- 0.007, 31 %; sigsoftmax 1.41, 33 %; frozen plif 1.40, 30
%; tanh cap 1.31 +- 0.03, 44 %; plif with 100 knots 1.108 +- 0.003, 79 %; mixture of 5 softmaxes of
features of size 5 1.25 +- 0.01, 36 %, of size 25 0.76, 64 %. The linear layer has rank d + 2 at
every d and a. 1,008 fits in 83 minutes of one CPU core. With twice the steps the KL of the linear
layer and of plif changes by less than 0.004 (seed 0, either rate).
"""

from rankbias.config import base, product, variants

HEADS = (
  {"name": "linear"},
  {"name": "sigsoftmax"},
  {"name": "tanh_cap"},
  {"name": "plif", "knots": 100},
  {"name": "plif", "knots": 1000, "scale": 1.0, "frozen": True},
  {"name": "mixture_of_softmaxes", "components": 5},
)
OTHERS = (
  {"name": "generalized_sigsoftmax"},
  {"name": "dropout_decoupled"},
  {"name": "mixture_of_contexts", "components": 5},
  {"name": "mixtape"},
  {"name": "partitioned"},
  {"name": "multi_facet"},
  {"name": "drill"},
)
WIDTHS = [2, 5, 10, 20, 50, 100]
CONCENTRATIONS = [0.01, 0.1, 1.0, 10.0]
WIDE = 5  # features of a mixture over the width of its contexts, in its second row


def get_config(arg=""):
  """`every` output layer, `small`, with twice the steps (`long`), or 20 of them (`smoke`)."""
  names = variants(arg, ("every", "small", "long", "smoke"))
  c = base("bottleneck_dirichlet", arg)
  c.data.name = "dirichlet"
  c.data.contexts = 200
  c.data.classes = 200
  c.data.concentration = 0.1
  c.data.draws = 3
  c.model = {"name": "contexts", "count": c.data.get_ref("contexts"), "width": 5}
  c.head.use_bias = True
  c.batch_size = c.data.get_ref("contexts")
  c.steps = 6000 if "long" in names else 3000
  c.optimizer.update(name="adam", learning_rate=0.03, schedule="cosine")
  c.measure.count = 0
  c.evaluate = {"bottleneck": {"points": 200}}
  if "smoke" in names:
    c.steps, c.data.contexts, c.data.classes, c.data.draws = 20, 12, 10, 2
  c.checkpoint_every = c.steps  # a program is shorter than ten checkpoints of it
  return c


def sweep(config):
  """Heads, widths and concentrations; three seeds at two learning rates in every program."""
  names = set(config.name.split("-")[1:])
  few, smoke = names & {"small", "long", "smoke"}, "smoke" in names
  widths, heads = [5, 10, 20] if few else WIDTHS, HEADS + (OTHERS if names else ())
  if smoke:
    widths, heads = [2], [HEADS[0], HEADS[3], HEADS[5]]
  layers = product({"model.width": widths, "head": [{"use_bias": True, **h} for h in heads]})
  layers += [
    {"model.width": WIDE * one["model.width"], "head": {**one["head"], "width": one["model.width"]}}
    for one in layers
    if one["head"]["name"] == "mixture_of_softmaxes"
  ]
  runs = product(
    {
      "data.concentration": [0.1] if few else CONCENTRATIONS,
      "seed": [0, 1] if smoke else [0, 1, 2],
      "optimizer.learning_rate": [0.03, 0.1],
    }
  )
  return [layer | run for layer in layers for run in runs]
