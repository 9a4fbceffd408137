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

Measured on the digits (docs/results.md), covariance rank of the last hidden layer, mean and 95 %
confidence interval of five seeds, T = 1 to 1000: with the same rate 56.2 +- 7.4, 22.6 +- 2.3, 12.6
+- 1.1 and 8.6 +- 1.4; with "equivalent" 27.0 +- 1.8, 14.2 +- 3.0 and 10.4 +- 0.7 from T = 10 on.
Linear ends at 10 for two of five seeds at T = 10; it diverges otherwise, as does quadratic. 30
minutes of one CPU core beside other work. The variants are not measured.
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
