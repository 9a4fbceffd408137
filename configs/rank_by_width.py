"""Does a wider network find solutions of higher rank?

Claim: width is one of the ways to set the norm of the logits, and with it the rank (Masarczyk et
al. 2025, arXiv:2506.01562, as reviewers report it; one of them notes that the usual initialisation
makes this norm independent of the width).

  python experiments/main.py --config=configs/rank_by_width.py
  python experiments/main.py --config=configs/rank_by_width.py:cifar10

trains the digits' MLP (8 layers) with 64, 128, 256 and 512 units a layer at T = 1 and 100, five
seeds. Variants are `vit`, the same widths of a Vision Transformer, and other data, `cifar10`,
`cifar100` or `fashion_mnist`, with three seeds. `smoke` ends in seconds.

Measured on the digits (docs/results.md), covariance rank of the last hidden layer, mean and 95 %
confidence interval of five seeds, widths 64 to 512: 30.2 +- 2.8, 43.2 +- 3.0, 56.2 +- 7.4 and 68.8
+- 4.4 at T = 1, and 12.0 +- 1.8, 13.4 +- 1.9, 14.2 +- 3.0 and 16.4 +- 1.9 at T = 100. 17 minutes of
one CPU core. The variants are not measured.
"""

from rankbias.config import product
from rankbias.config.studies import seeds, study


def get_config(arg=""):
  """Variants: cifar10, cifar100, fashion_mnist; vit; smoke ends in seconds."""
  c, _ = study("rank_by_width", arg)
  if c.model.name not in ("mlp", "vit"):
    raise ValueError(f"config variant {c.model.name!r} has no width of this study: leave it out")
  return c


def sweep(config):
  """Four widths at two temperatures; two widths for the smoke test."""
  widths = (16, 32) if "smoke" in config.name else (64, 128, 256, 512)
  return product({"model.width": widths, "temperature": [1.0, 100.0], "seed": seeds(config)})
