"""Pure functions on arrays: maps from logits to weights, their entropies and losses."""

from rankbias.ops.adaptive import adaptive_temperature_softmax, entropy_polynomial
from rankbias.ops.losses import cross_entropy
from rankbias.ops.normalizers import NORMALIZERS, normalizer
from rankbias.ops.softmax import entropy, log_softmax, softmax

__all__ = [
  "NORMALIZERS",
  "adaptive_temperature_softmax",
  "cross_entropy",
  "entropy",
  "entropy_polynomial",
  "log_softmax",
  "normalizer",
  "softmax",
]
