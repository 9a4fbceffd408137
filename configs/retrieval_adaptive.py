"""Does a head that finds the largest of 16 items still find it among 16,384?

Claim: no, since a softmax over bounded logits disperses as its row grows; a temperature that adapts
to the entropy of the row, at inference alone, wins some of it back (Velickovic et al. 2024,
arXiv:2410.01104).

  python experiments/main.py --config=configs/retrieval_adaptive.py
  python experiments/main.py --config=configs/retrieval_adaptive.py:paper
  python experiments/main.py --config=configs/retrieval_adaptive.py:readings

trains Deep Sets with one head of attention of width 128 on sets of 5 to 16 items that are drawn
anew at every step (Adam at 1e-3, L2 of 1e-3, batches of 128), ten seeds side by side, for 20,000
steps or the paper's 100,000, and measures sets of 16 to 16,384 items with the same parameters:
without a remedy, with adaptive temperature, and with every other remedy. The depth of the MLPs (one
hidden layer), projections without biases, logits without 1 / sqrt(128) and the decay inside Adam's
gradient are readings of what is not known to us; each is a field, and `readings` changes them one
at a time, with three seeds each, so that one sees how much depends on them.

Measured with `paper` (docs/results.md), accuracy in %, mean and standard deviation of ten seeds:

  n        softmax        adaptive       fitted to the head   ceiling
  16       98.7 +- 0.6    98.7 +- 0.6    99.0 +- 0.4          99.0
  256      79.8 +- 5.6    83.3 +- 5.3    86.3 +- 4.8          86.3
  1,024    46.7 +- 7.1    57.3 +- 8.5    63.3 +- 8.6          63.4
  16,384   14.0 +- 3.1    16.5 +- 4.3    18.9 +- 8.7          18.9

in 73 minutes of two busy CPU cores, of which the evaluation took 15.
"""

from math import log

from rankbias.config import base, chain, product, variants

REMEDIES = {
  "adaptive": {"name": "adaptive_temperature_softmax"},
  "fixed_theta": {"name": "softmax", "temperature": 0.5},
  "log_n": {"name": "scalable_softmax", "scale": 1.0},
  "scalable": {"name": "scalable_softmax", "scale": 1 / log(16)},
  "entmax15": {"name": "entmax15"},
  "top_k": {"name": "topk_softmax", "k": 16},
  "hard_max": {"name": "topk_softmax", "k": 1},
}
ADAPTIVE = {"adaptive": REMEDIES["adaptive"]}
READINGS = {
  "model.depth": [1, 2],
  "model.projection_bias": [False, True],
  "model.scale_logits": [False, True],
  "optimizer.name": ["adam", "adamw"],
}


def get_config(arg=""):
  """Variants: `paper` takes 100,000 steps, `readings` varies the recipe, `smoke` takes seconds."""
  names = variants(arg, ("paper", "readings", "smoke"))
  c = base("retrieval_adaptive", arg)
  c.data.name = "max_retrieval"
  c.data.sizes = (5, 16)
  c.data.classes = 10
  c.model = {
    "name": "set_attention",
    "width": 128,
    "depth": 1,
    "projection_bias": False,
    "scale_logits": False,
    "normalizer": "softmax",
  }
  c.head.use_bias = True
  c.steps = 100_000 if "paper" in names else 20_000
  c.batch_size = 128
  c.optimizer.update(name="adam", learning_rate=1e-3, weight_decay=1e-3)
  c.evaluate.spectra.split = "test"
  c.evaluate.retrieval = {
    "sizes": tuple(2**k for k in range(4, 15)),
    "sets": 4096,
    "large_sets": 1024,
    "remedies": REMEDIES,
    "fit": {"sizes": tuple(2**k for k in range(4, 15)), "sets": 512},
  }
  if "readings" in names:
    c.evaluate.retrieval.update(sizes=tuple(2**k for k in range(4, 13)), remedies=ADAPTIVE)
    del c.evaluate.retrieval.fit
  if "smoke" in names:
    c.steps, c.batch_size = 40, 16
    c.data.sizes = (5, 7)
    c.model.width = 16
    c.measure.update(count=3, images=64)
    c.evaluate.spectra.images = 64
    c.evaluate.retrieval.update(sizes=(16, 64), sets=128)
    c.evaluate.retrieval.fit.update(sizes=(16, 64), sets=128)
  return c


def sweep(config):
  """Ten seeds; three of the recipe and of each other reading of it; two for the smoke test."""
  if config.name.endswith("readings"):
    usual = {field: values[0] for field, values in READINGS.items()}
    others = [{**usual, field: values[1]} for field, values in READINGS.items()]
    seeds = product({"seed": [0, 1, 2]})
    return chain(*([reading | seed for seed in seeds] for reading in (usual, *others)))
  return product({"seed": list(range(2 if config.name.endswith("smoke") else 10))})
