"""Pure functions on matrices and spectra: singular values, their stream, and what they count."""

from rankbias.rank.measures import (
  covariance_rank,
  effective_rank,
  energy_rank,
  numerical_rank,
  participation_ratio,
  rankme,
  stable_rank,
)
from rankbias.rank.spectrum import default_method, singular_values
from rankbias.rank.streaming import (
  spectrum_all_reduce,
  spectrum_finish,
  spectrum_init,
  spectrum_merge,
  spectrum_update,
)

__all__ = [
  "covariance_rank",
  "default_method",
  "effective_rank",
  "energy_rank",
  "numerical_rank",
  "participation_ratio",
  "rankme",
  "singular_values",
  "spectrum_all_reduce",
  "spectrum_finish",
  "spectrum_init",
  "spectrum_merge",
  "spectrum_update",
  "stable_rank",
]
