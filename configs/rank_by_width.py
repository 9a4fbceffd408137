"""Does a wider network find solutions of higher rank?

Claim: width is one of the ways to set the norm of the logits, and with it the rank (Masarczyk et
al. 2025, arXiv:2506.01562, as reviewers report it; one of them notes that the usual initialisation
makes this norm independent of the width).

  python experiments/main.py --config=configs/rank_by_width.py
  python experiments/main.py --config=configs/rank_by_width.py:cifar10

trains the digits' MLP (8 layers) with 64, 128, 256 and 512 units a layer at T = 1 and 100, five
seeds. Variants are `vit`, the same widths of a Vision Transformer, and other data, `cifar10`,
`cifar100` or `fashion_mnist`, with three seeds. `smoke` ends in seconds.
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
