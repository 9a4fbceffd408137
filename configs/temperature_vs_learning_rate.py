"""Is it the temperature that sets the rank, or the learning rate that goes with it?

How the learning rate follows the temperature is not known of the paper (Masarczyk et al. 2025,
arXiv:2506.01562), and it decides how fast a network at high T learns: gradients fall as 1 / T.

  python experiments/main.py --config=configs/temperature_vs_learning_rate.py
  python experiments/main.py --config=configs/temperature_vs_learning_rate.py:cifar10

trains the digits' MLP (8 layers of 256) at T = 1, 10, 100 and 1000 with four rules for the learning
rate: the same for all; "equivalent", times T^(2/8), that of the same network with a small
initialisation; linear, times T; quadratic, times T^2, which keeps the speed of the linearised
network. Five seeds. `step_99` says when a run had fitted its images, so that runs can be compared
at equal training accuracy. Other data and networks are variants, `cifar10`, `cifar100` or
`fashion_mnist` and `vit`, `resnet18` or `vgg`, as in `:cifar10,resnet18` (the last two are for an
accelerator); three seeds there. `smoke` ends in seconds.
"""

from rankbias.config import product
from rankbias.config.studies import seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("temperature_vs_learning_rate", arg)
  return c


def sweep(config):
  """Four rules at every temperature."""
  rules = ("same", "equivalent", "linear", "quadratic")
  axes = {"optimizer.learning_rate_rule": rules, "temperature": temperatures(config)}
  return product(axes | {"seed": seeds(config)})
