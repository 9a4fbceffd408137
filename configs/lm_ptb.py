"""Does the output layer of a word-level language model decide its perplexity? Penn Treebank.

Claim: a linear softmax bounds the rank of the log-probabilities by its width, and layers without
this bound predict words better (Yang et al. 2018, arXiv:1711.03953; Ganea et al. 2019,
arXiv:1902.08077). Against it: a piecewise linear map with random slopes that are never trained does
as well as a learned one, and the rank grows by a quarter, from 402 to 496 (Parthiban et al. 2021,
AAAI).

  python experiments/main.py --config=configs/lm_ptb.py --config.data.dir=DIR

DIR holds ptb.train.txt, ptb.valid.txt and ptb.test.txt; the text is licensed and is neither part of
this package nor downloaded. One output layer alone: --config.head.name=linear.

The network is an LSTM of 400 units below one of as many units as the output layer has features: 200
with a linear softmax, 5.45 million parameters. The other layers have the number of features at
which all networks have as many parameters, to a hundredth. Three seeds each. Every 500 steps the
perplexity on "valid" is measured; the parameters with the lowest are kept, and evaluated on "valid"
and "test". Four measurements in a row without a lower one end a run.

Adam moves every parameter by steps of the size of the learning rate, so the slopes of the piecewise
linear map need no rate of their own, as they do with SGD; `optimizer.head_learning_rate` is a
factor on that of the whole output layer. There is no weight decay: it would move frozen slopes.

The matrix whose rank is counted has the first 4,096 contexts of "test" as rows, so 4,096 is the
largest rank there can be.
"""

from rankbias.config import base, variants

PLIF = {"name": "plif", "bound": 20.0, "scale": 0.0, "frozen": False}
NOISE = {"knots": 100_000, "scale": 1.0}  # the start in public code
MIXTURE = {"components": 3}
STREAMED = ("linear", "sigsoftmax", "generalized_sigsoftmax", "tanh_cap", "plif")
HEADS = (  # and how many features make 5.45 million parameters
  ({"name": "linear"}, 200),
  ({"name": "sigsoftmax"}, 200),
  ({"name": "generalized_sigsoftmax", "knee": -1.5, "slope": 2.5}, 200),
  ({"name": "tanh_cap", "cap": 30.0}, 200),
  ({**PLIF, "knots": 1000}, 200),
  ({**PLIF, **NOISE}, 192),
  ({**PLIF, **NOISE, "frozen": True}, 192),
  ({"name": "mixture_of_softmaxes", **MIXTURE}, 192),
  ({"name": "mixture_of_contexts", **MIXTURE}, 192),
  ({"name": "mixtape", "frequent": 0.1}, 171),
  ({"name": "partitioned", "partitions": 4}, 178),
  ({"name": "multi_facet", "partitions": 4, "softmaxes": 2}, 171),
  ({"name": "drill", "depth": 4}, 189),
)


def layer(head):
  """An output layer with a bias, and without the matrix of all logits where it can do so."""
  streamed = {"chunked": True} if head["name"] in STREAMED else {}
  return {**head, "use_bias": True, **streamed}


def get_config(arg=""):
  """Variant `smoke` ends in seconds, but needs the files too."""
  names = variants(arg, ("smoke",))
  c = base("lm_ptb", arg)
  c.data.update(name="ptb", window=35)
  c.model = {
    "name": "lstm",
    "vocabulary": 10_000,
    "embedding": 200,
    "width": 400,
    "depth": 2,
    "features": 200,
    "dropout": 0.2,
    "hidden_dropout": 0.1,
    "input_dropout": 0.1,
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
  }
  c.head = layer({"name": "linear"})
  c.steps, c.batch_size = 4000, 32  # 830 steps read the text once
  c.optimizer.update(name="adam", learning_rate=3e-3, weight_decay=0.0, clip_norm=1.0)
  c.optimizer.update(schedule="cosine", warmup_steps=100)
  c.members_per_program = 1
  c.select = {"split": "valid", "every": 500, "patience": 4}
  c.measure.count = 0
  c.evaluate = {
    "perplexity": {"splits": ("valid", "test"), "lanes": 16},
    "log_probability_rank": {"split": "test", "contexts": 4096, "lanes": 1},
  }
  if "smoke" in names:
    c.data.update(window=5, limit=40)
    c.model.update(embedding=8, width=8, features=8)
    c.steps, c.batch_size = 4, 8
    c.optimizer.warmup_steps = 2
    c.select.every = 2
    c.evaluate.log_probability_rank.contexts = 64
  return c


def sweep(config):
  """All output layers with three seeds; three of them with one for the smoke test."""
  if config.name.endswith("smoke"):
    return [{"head": layer(HEADS[i][0]), "seed": 0} for i in (0, 4, 7)]
  return [
    {"head": layer(head), "model.features": features, "seed": seed}
    for head, features in HEADS
    for seed in (0, 1, 2)
  ]
