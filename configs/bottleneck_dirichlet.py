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
seeds. Equal budget means equal steps and rates: mixtures have more parameters, which the table
states. `small` has one concentration and three widths, `long` doubles the steps of `small`, to see
what is left to gain; `smoke` ends in seconds.

Expected from single runs of the same problem (KL in nats / modes matched, %):

  a, d       linear     tanh cap   plif, 100   mixture of 5
  0.1, 5     1.40/36    1.32/44    1.08/77     0.535/92
  0.1, 20    .588/82    .305/99    .357/100    .012/100
  1, 5       .374/9     .374/9     .341/44     .235/64
"""

from rankbias.config import base, product, variants

HEADS = (
  {"name": "linear"},
  {"name": "sigsoftmax"},
  {"name": "generalized_sigsoftmax"},
  {"name": "tanh_cap"},
  {"name": "plif", "knots": 100},
  {"name": "plif", "knots": 1000, "scale": 1.0, "frozen": True},
  {"name": "dropout_decoupled"},
  {"name": "mixture_of_softmaxes", "components": 5},
  {"name": "mixture_of_contexts", "components": 5},
  {"name": "mixtape"},
  {"name": "partitioned"},
  {"name": "multi_facet"},
  {"name": "drill"},
)
WIDTHS = [2, 5, 10, 20, 50, 100]
CONCENTRATIONS = [0.01, 0.1, 1.0, 10.0]


def get_config(arg=""):
  """`small` has one concentration and three widths, `long` twice its steps, `smoke` 20."""
  names = variants(arg, ("small", "long", "smoke"))
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
  """Every head, width and concentration; three seeds at two learning rates in every program."""
  few = not config.name.endswith("dirichlet")
  smoke = config.name.endswith("smoke")
  heads = [{"use_bias": True, **head} for head in HEADS]
  return product(
    {
      "data.concentration": [0.1] if few else CONCENTRATIONS,
      "model.width": [2] if smoke else [5, 10, 20] if few else WIDTHS,
      "head": [heads[0], heads[4], heads[8]] if smoke else heads,
      "seed": [0, 1] if smoke else [0, 1, 2],
      "optimizer.learning_rate": [0.03, 0.1],
    }
  )
