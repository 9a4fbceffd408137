"""How much smaller can a network be made that was trained at a high temperature?

Claim: a high temperature gives compressed, low-rank representations (Masarczyk et al. 2025,
arXiv:2506.01562). Whether its kernels can be replaced by low-rank factors at a smaller loss of
accuracy is not said.

  python experiments/main.py --config=configs/compression_by_temperature.py
  python experiments/main.py --config=configs/compression_by_temperature.py:cifar10

trains the digits' MLP (8 layers of 256) at T = 1, 10, 100 and 1000, five seeds, and replaces its
kernels by factors of lower rank, without training further; and, at each layer in turn, everything
after it by a linear probe. Other data and networks are variants, `cifar10`, `cifar100` or
`fashion_mnist` and `vit`, `resnet18` or `vgg`, as in `:cifar10,resnet18` (the last two are for an
accelerator); three seeds there. `smoke` ends in seconds.

Measured on the digits (docs/results.md), five seeds: with ranks at 1e-2, factors chosen by their
outputs save 72, 79, 83 and 85 % of the parameters at T = 1, 10, 100 and 1000 at a loss of at most
half a point; chosen by the kernels alone they leave 18, 47, 91 and 96 % test accuracy. 5 minutes of
one CPU core.
"""

from rankbias.config import product
from rankbias.config.studies import PROBE, seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("compression_by_temperature", arg)
  c.evaluate.probe = PROBE
  c.evaluate.compress = {"cuts": True}
  return c


def sweep(config):
  """Every temperature."""
  return product({"temperature": temperatures(config), "seed": seeds(config)})
