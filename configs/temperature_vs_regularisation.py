"""Does regularisation keep the rank up at high temperature, or push it down as well?

Whether weight decay, label smoothing, dropout or a penalty on the angles of kernels undo the effect
of the temperature is open in the paper (Masarczyk et al. 2025, arXiv:2506.01562) and was asked by
reviewers.

  python experiments/main.py --config=configs/temperature_vs_regularisation.py
  python experiments/main.py --config=configs/temperature_vs_regularisation.py:cifar10

trains the digits' MLP (8 layers of 256) at T = 1, 10, 100 and 1000 as it is, with weight decay
1e-3, label smoothing 0.1, dropout 0.1, and a soft orthogonality penalty of 1e-3 on every kernel,
one at a time, five seeds. The learning rate is the same at every T, and so is its product with the
decay; the penalty does not shrink with T, as gradients of the cross-entropy do. Other data and
networks are variants, `cifar10`, `cifar100` or `fashion_mnist` and `vit`, `resnet18` or `vgg`, as
in `:cifar10,resnet18` (the last two are for an accelerator); three seeds there. `smoke` ends in
seconds.

Measured on the digits (docs/results.md), covariance rank of the last hidden layer at T = 1 and 100,
mean and 95 % confidence interval of five seeds: none 56.2 +- 7.4 and 12.6 +- 1.1, orthogonality
49.8 +- 7.6 and 12.0 +- 0.0, weight decay 17.0 +- 2.0 and 10.6 +- 0.7, dropout 28.6 +- 4.9 and 11.2
+- 1.6, label smoothing 119.8 +- 19 and 21.0 +- 3.9. 52 minutes of one CPU core beside much other
work. The variants are not measured.
"""

from rankbias.config import chain, product
from rankbias.config.studies import seeds, study, temperatures


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("temperature_vs_regularisation", arg)
  c.model.dropout = 0.0
  c.optimizer.update(learning_rate_rule="same", weight_decay=0.0)
  return c


def sweep(config):
  """No regularisation and four kinds of it at every temperature."""
  axes = {"temperature": temperatures(config), "seed": seeds(config)}
  kinds = (
    {},
    {"optimizer.weight_decay": [1e-3]},
    {"label_smoothing": [0.1]},
    {"model.dropout": [0.1]},
    {"regularizers": [{"orthogonality": 1e-3}]},
  )
  return chain(*(product(kind | axes) for kind in kinds))
