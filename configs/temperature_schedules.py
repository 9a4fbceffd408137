"""Is it the temperature at the start or at the end of training that sets the rank?

Claim: high temperature acts through a small norm of the tempered logits early in training, when
singular vectors align (Masarczyk et al. 2025, arXiv:2506.01562, as reviewers report it). Then a
temperature that falls should leave the rank low, and one that rises leave it high. No schedule was
seen in the paper.

  python experiments/main.py --config=configs/temperature_schedules.py
  python experiments/main.py --config=configs/temperature_schedules.py:cifar10

trains the digits' MLP (8 layers of 256) to T = 1 and to T = 100, constant and annealed from the
other one, geometrically over the first quarter and over the whole of the training, five seeds. The
learning rate is the same for all but the second of these three, which have T = 1: the head's
initial kernel divided by 100; the same with 1e-4 of the learning rate in the head, which is T = 100
of the head alone; and, for the MLP, all initial kernels divided by 100^(1/8) with the learning rate
by 100^(2/8), which is 100^(1/8) as the temperature of every layer. The last two are T = 100 of the
softmax by other names, exactly, if it were not for rounding (docs/math.md). Other data and networks
are variants, `cifar10`, `cifar100` or `fashion_mnist` and `vit`, `resnet18` or `vgg`, as in
`:cifar10,resnet18` (the last two are for an accelerator); three seeds there. `smoke` ends in
seconds.

Measured on the digits (docs/results.md), covariance rank of the last hidden layer, mean and 95 %
confidence interval of five seeds: T = 1 56.2 +- 7.4; T = 100, of the softmax, of the head or of
every layer, 12.6 +- 1.1; the small head alone 62.4 +- 7.4; from 100 to 1 over a quarter 22.2 +-
4.4, over all steps 13.8 +- 1.0; from 1 to 100 18.4 +- 2.6 and 19.6 +- 3.0. 17 minutes of one CPU
core. The variants are not measured.
"""

from rankbias.config import chain, product
from rankbias.config.studies import seeds, study


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("temperature_schedules", arg)
  c.optimizer.learning_rate_rule = "same"
  return c


def sweep(config):
  """Constant, annealed from the other temperature, a small head, and T of the head or of layers."""
  own = {"seed": seeds(config)}
  runs = [product({"temperature": [1.0, 100.0]} | own)]
  for start, end in ((100.0, 1.0), (1.0, 100.0)):
    annealed = [
      {"kind": "geometric", "start": start, "steps": steps} for steps in (config.steps // 4, 0)
    ]
    runs.append(product({"temperature_schedule": annealed, "temperature": [end]} | own))
  at_one = {"temperature": [1.0]} | own
  of_head = {"optimizer.head_learning_rate": [1.0, 1e-4]}
  runs.append(product({"head_init_scale": [0.01]} | of_head | at_one))
  if config.model.name == "mlp":
    depth = config.model.depth
    rate = config.optimizer.learning_rate * 100.0 ** (-2 / depth)
    of_layers = {"init_scale": [100.0 ** (-1 / depth)], "optimizer.learning_rate": [rate]}
    runs.append(product(of_layers | at_one))
  return chain(*runs)
