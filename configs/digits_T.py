"""How does the temperature of the softmax set the rank of what an MLP learns?

Claim: at high temperature, networks find solutions of rank far below the number of classes
(Masarczyk et al. 2025, arXiv:2506.01562).

  python experiments/main.py --config=configs/digits_T.py

trains an 8-layer bias-free ReLU MLP of width 256 on scikit-learn's 1,797 real 8x8 digits, which
need no download, at T = 1, 10, 100, 1000 and three seeds, 4,000 steps of 128 images each with SGD
and momentum. The learning rate is 0.02 T^(2/8): that of the same network with a small
initialisation in place of a high temperature.

Measured (docs/results.md), mean and standard deviation of three seeds, train accuracy 100 %:

  T     test accuracy, %   covariance rank of the last hidden layer   of the logits
  1     98.4 +- 0.2        54.7 +- 7.1                                9.0 +- 0.0
  10    98.1 +- 0.3        28.0 +- 0.0                                9.0 +- 0.0
  100   98.1 +- 0.8        15.0 +- 3.0                                7.7 +- 0.6
  1000  97.8 +- 0.5        10.7 +- 0.6                                5.0 +- 0.0

in about 2 minutes of two CPU cores.

The variant `dropout` trains with dropout and measures at the end how unsure the network is, by 20
predictions under dropout:

  python experiments/main.py --config=configs/digits_T.py:dropout --config.model.dropout=0.1
"""

from rankbias.config import base, product, variants


def get_config(arg=""):
  """Variant `smoke` ends in seconds; `dropout` adds dropout and its uncertainty."""
  names = variants(arg, ("dropout", "smoke"))
  c = base("digits_T", arg)
  c.data.name = "digits"
  c.model.update(name="mlp", depth=8, width=256, use_bias=False)
  c.steps = 4000
  c.batch_size = 128
  c.optimizer.learning_rate = 0.02
  c.optimizer.learning_rate_rule = "equivalent"
  if "dropout" in names:
    c.model.dropout = 0.1
    c.evaluate.uncertainty = {"samples": 20, "images": 2048, "split": "test"}
  if "smoke" in names:
    c.data.limit = 200
    c.model.update(depth=4, width=32)
    c.steps = 40
    c.batch_size = 40
    c.measure.count = 5
  return c


def sweep(config):
  """Four temperatures, three seeds; two and one for the smoke test."""
  if "smoke" in config.name:
    return product({"temperature": [1.0, 100.0], "seed": [0]})
  return product({"temperature": [1.0, 10.0, 100.0, 1000.0], "seed": [0, 1, 2]})
