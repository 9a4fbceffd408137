"""Does normalisation between layers undo what the temperature does to the rank?

Claim: where normalisation sits sets the norm of the logits, and with it the rank (Masarczyk et al.
2025, arXiv:2506.01562, as reviewers report it).

  python experiments/main.py --config=configs/rank_by_normalisation.py
  python experiments/main.py --config=configs/rank_by_normalisation.py:cifar10

trains the digits' MLP (8 layers of 256) without normalisation, with batch and with layer
normalisation before every ReLU, at T = 1, 10, 100 and 1000, five seeds. The learning rate is the
same at every T: with normalisation the network is not homogeneous. Other data and networks are
variants, `cifar10`, `cifar100` or `fashion_mnist` and `vit`, `resnet18` or `vgg`, as in
`:cifar10,resnet18` (the last two are for an accelerator); three seeds there. `smoke` ends in
seconds.

Measured on the digits (docs/results.md), covariance rank of the last hidden layer, mean and 95 %
confidence interval of five seeds; at T = 1000 normalised networks do not fit in 4,000 steps:

  T     none          batch          layer
  1     56.2 +- 7.4   250.6 +- 4.2   123.6 +- 6.2
  10    22.6 +- 2.3   24.4 +- 2.1    11.6 +- 0.7
  100   12.6 +- 1.1   9.0 +- 0.0     9.0 +- 0.0
  1000  8.6 +- 1.4

26 minutes of one CPU core beside other work. The variants are not measured.
"""

from rankbias.config import product
from rankbias.config.studies import seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("rank_by_normalisation", arg)
  c.optimizer.learning_rate_rule = "same"
  c.model.norm = "none"
  return c


def sweep(config):
  """No, batch and layer normalisation at every temperature."""
  norms = ("none", "batch", "layer")
  return product({"model.norm": norms, "temperature": temperatures(config), "seed": seeds(config)})
