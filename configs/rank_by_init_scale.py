"""Is a small initialisation the same as a high temperature?

Claim: the norm of the logits sets the rank, and so does whatever sets that norm: temperature and
initial scale alike (Masarczyk et al. 2025, arXiv:2506.01562, as reviewers report it). For a
homogeneous network the two are exactly the same if the learning rate follows: T is an initial scale
of T^(-1/8) for 8 layers and a learning rate of T^(-2/8) (docs/math.md).

  python experiments/main.py --config=configs/rank_by_init_scale.py
  python experiments/main.py --config=configs/rank_by_init_scale.py:cifar10

trains the digits' MLP (8 layers of 256) at T = 1 and 100 with initial kernels 0.5, 0.75, 1, 1.5 and
2 times their size, and the same learning rate for all, five seeds. At T = 1 a scale of 0.56 starts
with the tempered logits of T = 100. Other data and networks are variants, `cifar10`, `cifar100` or
`fashion_mnist` and `vit`, `resnet18` or `vgg`, as in `:cifar10,resnet18` (the last two are for an
accelerator); three seeds there. `smoke` ends in seconds.

Measured on the digits (docs/results.md), covariance rank of the last hidden layer, mean and 95 %
confidence interval of five seeds: at T = 1 12.0 +- 1.2, 26.6 +- 2.3 and 56.2 +- 7.4 with kernels
0.5, 0.75 and 1 times their size (beyond, it diverges); at T = 100 9.4 +- 1.4, 12.6 +- 1.1, 28.2 +-
4.4 and 77.6 +- 11 with 0.75, 1, 1.5 and 2 times (with 0.5 it does not learn). 17 minutes of one CPU
core. The variants are not measured.
"""

from rankbias.config import product
from rankbias.config.studies import seeds, study


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("rank_by_init_scale", arg)
  c.optimizer.learning_rate_rule = "same"
  return c


def sweep(config):
  """Five initial scales at two temperatures; two scales for the smoke test."""
  scales = (0.5, 1.0) if "smoke" in config.name else (0.5, 0.75, 1.0, 1.5, 2.0)
  return product({"init_scale": scales, "temperature": [1.0, 100.0], "seed": seeds(config)})
