"""Does the output layer decide the perplexity of a small language model? Tiny Shakespeare.

The question and the claims of configs/lm_ptb.py, small enough for any machine: characters, of which
there are 65, and 16 features, so that the log-probabilities of a linear softmax have rank 18 at
most.

  python experiments/main.py --config=configs/lm_shakespeare.py

The one file, input.txt, is looked for in --config.data.dir=DIR and downloaded if it is not there
(1.1 MB). One output layer alone: --config.head.name=linear.

The network is an LSTM of 256 units below one of 16, 0.35 million parameters. All networks have as
many, to a hundredth, by the units of the lower layer. Three seeds each; the parameters with the
lowest perplexity on "valid" are evaluated, and four measurements in a row without a lower one end a
run. The matrix whose rank is counted has the first 4,096 contexts of "test" as rows.
"""

from rankbias.config import base, variants

PLIF = {"name": "plif", "bound": 20.0, "scale": 0.0, "frozen": False}
NOISE = {"knots": 10_000, "scale": 1.0}  # the start in public code, with a tenth of its knots
MIXTURE = {"components": 3}
HEADS = (  # and how many units make 0.35 million parameters
  ({"name": "linear"}, 256),
  ({"name": "sigsoftmax"}, 256),
  ({"name": "generalized_sigsoftmax", "knee": -1.5, "slope": 2.5}, 256),
  ({"name": "tanh_cap", "cap": 30.0}, 256),
  ({**PLIF, "knots": 1000}, 256),
  ({**PLIF, **NOISE}, 252),
  ({**PLIF, **NOISE, "frozen": True}, 252),
  ({"name": "mixture_of_softmaxes", **MIXTURE}, 256),
  ({"name": "mixture_of_contexts", **MIXTURE}, 256),
  ({"name": "mixtape", "frequent": 1.0}, 255),
  ({"name": "partitioned", "partitions": 4}, 255),
  ({"name": "multi_facet", "partitions": 4, "softmaxes": 2}, 255),
  ({"name": "drill", "depth": 4}, 256),
)


def get_config(arg=""):
  """Variant `smoke` ends in seconds."""
  names = variants(arg, ("smoke",))
  c = base("lm_shakespeare", arg)
  c.data.update(name="tiny_shakespeare", window=64)
  c.model = {
    "name": "lstm",
    "vocabulary": 65,
    "embedding": 64,
    "width": 256,
    "depth": 2,
    "features": 16,
    "dropout": 0.0,
    "hidden_dropout": 0.1,
    "input_dropout": 0.0,
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
  }
  c.head.use_bias = True
  c.steps, c.batch_size = 2500, 32  # 491 steps read the text once
  c.optimizer.update(name="adam", learning_rate=3e-3, weight_decay=0.0, clip_norm=1.0)
  c.optimizer.update(schedule="cosine", warmup_steps=100)
  c.members_per_program = 1
  c.select = {"split": "valid", "every": 250, "patience": 4}
  c.measure.count = 0
  c.evaluate = {
    "perplexity": {"splits": ("valid", "test"), "lanes": 16},
    "log_probability_rank": {"split": "test", "contexts": 4096, "lanes": 1},
  }
  if "smoke" in names:
    c.data.window = 5
    c.model.update(embedding=4, width=8, features=3)
    c.steps, c.batch_size = 4, 8
    c.optimizer.warmup_steps = 2
    c.select.every = 2
    c.evaluate.log_probability_rank.contexts = 64
  return c


def sweep(config):
  """All output layers with three seeds; three of them with one for the smoke test."""
  if config.name.endswith("smoke"):
    return [{"head": {**HEADS[i][0], "use_bias": True}, "seed": 0} for i in (0, 4, 7)]
  return [
    {"head": {**head, "use_bias": True}, "model.width": width, "seed": seed}
    for head, width in HEADS
    for seed in (0, 1, 2)
  ]
