"""Does the output layer of a word-level language model decide its perplexity? WikiText-2.

The question and the claims of configs/lm_ptb.py, with three times the vocabulary and the network of
AWD-LSTM (Merity et al. 2017, arXiv:1708.02182) without tied embeddings: two LSTMs of 1,150 units
below one of 400, 46.9 million parameters. For an accelerator.

  python experiments/main.py --config=configs/lm_wikitext2.py --config.data.dir=DIR

DIR holds wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, from the public archive
wikitext-2-v1.zip. One output layer alone: --config.head.name=linear.

All networks have as many parameters, to a hundredth, by their number of features. Three seeds each;
the parameters with the lowest perplexity on "valid" are evaluated, and ten measurements in a row
without a lower one end a run. The dropouts are the published ones; the optimiser is Adam with a
cosine schedule, not averaged SGD, and activations are not regularised.
"""

from rankbias.config import base, variants

PLIF = {"name": "plif", "bound": 20.0, "scale": 0.0, "frozen": False}
NOISE = {"knots": 100_000, "scale": 1.0}  # the start in public code
MIXTURE = {"components": 3}
STREAMED = ("linear", "sigsoftmax", "generalized_sigsoftmax", "tanh_cap", "plif")
HEADS = (  # and how many features make 46.9 million parameters
  ({"name": "linear"}, 400),
  ({"name": "sigsoftmax"}, 400),
  ({"name": "generalized_sigsoftmax", "knee": -1.5, "slope": 3.0}, 400),
  ({"name": "tanh_cap", "cap": 30.0}, 400),
  ({**PLIF, "knots": 1000}, 400),
  ({**PLIF, **NOISE}, 398),
  ({**PLIF, **NOISE, "frozen": True}, 398),
  ({"name": "mixture_of_softmaxes", **MIXTURE}, 389),
  ({"name": "mixture_of_contexts", **MIXTURE}, 389),
  ({"name": "mixtape", "frequent": 0.1}, 350),
  ({"name": "partitioned", "partitions": 4}, 370),
  ({"name": "multi_facet", "partitions": 4, "softmaxes": 2}, 359),
  ({"name": "drill", "depth": 4}, 385),
)


def layer(head):
  """An output layer with a bias, and without the matrix of all logits where it can do so."""
  streamed = {"chunked": True} if head["name"] in STREAMED else {}
  return {**head, "use_bias": True, **streamed}


def get_config(arg=""):
  """Variant `smoke` ends in seconds, but needs the files too."""
  names = variants(arg, ("smoke",))
  c = base("lm_wikitext2", arg)
  c.data.update(name="wikitext2", window=70)
  c.model = {
    "name": "lstm",
    "vocabulary": 33_278,
    "embedding": 400,
    "width": 1150,
    "depth": 3,
    "features": 400,
    "dropout": 0.4,
    "hidden_dropout": 0.2,
    "input_dropout": 0.65,
    "weight_dropout": 0.5,
    "word_dropout": 0.1,
  }
  c.head = layer({"name": "linear"})
  c.steps, c.batch_size = 22_000, 80  # 373 steps read the text once
  c.optimizer.update(name="adam", learning_rate=1e-3, weight_decay=0.0, clip_norm=0.25)
  c.optimizer.update(schedule="cosine", warmup_steps=400)
  c.members_per_program = 1
  c.select = {"split": "valid", "every": 400, "patience": 10}
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
