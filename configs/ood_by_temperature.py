"""What does the temperature cost and buy on data of another distribution?

Claim: a high temperature makes linear probes of the last layer worse on other data, and the
detection of other data better, at about the same accuracy on its own (Masarczyk et al. 2025,
arXiv:2506.01562, as reviewers report it).

  python experiments/main.py --config=configs/ood_by_temperature.py
  python experiments/main.py --config=configs/ood_by_temperature.py:cifar10

trains the digits' MLP (8 layers of 256) on the digits 0 to 7 at T = 1, 10, 100 and 1000, five
seeds; 8 and 9 are the other data. Linear probes of every layer on both, how well scores tell them
apart with Z and with Z / T, calibration, and neural collapse. With `cifar10` the other data are the
test images of CIFAR-100, four fifths of which train probes, and the other way round; with
`fashion_mnist` those of MNIST. Other data and networks are variants, `cifar10`, `cifar100` or
`fashion_mnist` and `vit`, `resnet18` or `vgg`, as in `:cifar10,resnet18` (the last two are for an
accelerator); three seeds there. `smoke` ends in seconds.

Measured on the digits (docs/results.md), mean and 95 % confidence interval, five seeds: from T = 1
to 1000 the probe of the last hidden layer falls from 99.2 +- 1.6 to 93.2 +- 1.9 % on 8 and 9, and
detection falls too, by max logit from 0.95 +- 0.03 to 0.88 +- 0.03, by ViM from 0.98 +- 0.01 to
0.93 +- 0.02 AUROC; 7 minutes of one CPU core. `cifar10`, three seeds, 33 minutes: the probe of
CIFAR-100 on the last hidden layer stays at 11 to 13 %; detection by max logit rises from 0.593 +-
0.016 to 0.612 +- 0.003 AUROC, by nearest neighbours it falls from 0.631 +- 0.012 to 0.620 +- 0.009,
and by ViM, the best, it stays at 0.64 to 0.65. The other variants are not measured.
"""

from rankbias.config import product
from rankbias.config.studies import PROBE, seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("ood_by_temperature", arg, foreign=True)
  c.evaluate.probe = PROBE
  c.evaluate.ood = {}
  c.evaluate.calibration = {}
  c.evaluate.collapse = {}
  return c


def sweep(config):
  """Every temperature."""
  return product({"temperature": temperatures(config), "seed": seeds(config)})
