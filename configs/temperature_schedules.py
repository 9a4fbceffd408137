"""Is it the temperature at the start or at the end of training that sets the rank?

Claim: high temperature acts through a small norm of the tempered logits early in training, when
singular vectors align (Masarczyk et al. 2025, arXiv:2506.01562, as reviewers report it). Then a
temperature that falls should leave the rank low, and one that rises leave it high. No schedule was
seen in the paper.

  python experiments/main.py --config=configs/temperature_schedules.py
  python experiments/main.py --config=configs/temperature_schedules.py:cifar10

trains the digits' MLP (8 layers of 256) to T = 1 and to T = 100, constant and annealed from the
other one, geometrically over the first quarter and over the whole of the training, and with the
head's initial kernel alone scaled by 1 / 100 at T = 1, five seeds. The learning rate is the same
for all. Other data and networks are variants, `cifar10`, `cifar100` or `fashion_mnist` and `vit`,
`resnet18` or `vgg`, as in `:cifar10,resnet18` (the last two are for an accelerator); three seeds
there. `smoke` ends in seconds.
"""

from rankbias.config import chain, product
from rankbias.config.studies import seeds, study


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit, resnet18, vgg; smoke ends in seconds."""
  c, _ = study("temperature_schedules", arg)
  c.optimizer.learning_rate_rule = "same"
  return c


def sweep(config):
  """Constant, annealed from the other temperature, and a small head."""
  own = {"seed": seeds(config)}
  runs = [product({"temperature": [1.0, 100.0]} | own)]
  for start, end in ((100.0, 1.0), (1.0, 100.0)):
    annealed = [
      {"kind": "geometric", "start": start, "steps": steps} for steps in (config.steps // 4, 0)
    ]
    runs.append(product({"temperature_schedule": annealed, "temperature": [end]} | own))
  runs.append(product({"head_init_scale": [0.01], "temperature": [1.0]} | own))
  return chain(*runs)
