"""Pure functions on matrices and spectra: singular values, their stream, and what they count."""

from rankbias.rank.alignment import Growth, alignment, gain, growth
from rankbias.rank.argmax import Argmaxable, argmaxable
from rankbias.rank.geometry import (
  ClassStatistics,
  NeuralCollapse,
  class_statistics,
  neural_collapse,
  ortho_dev,
)
from rankbias.rank.label_sets import (
  ArgmaxableSets,
  feasible_label_sets_bound,
  label_set_argmaxable,
)
from rankbias.rank.layers import layer_states, measure_states
from rankbias.rank.measures import (
  covariance_rank,
  effective_rank,
  energy_rank,
  numerical_rank,
  participation_ratio,
  press_rank,
  rankme,
  stable_rank,
)
from rankbias.rank.monitor import RankMonitor
from rankbias.rank.output_width import OutputWidth, width_from_outputs
from rankbias.rank.power_law import PowerLaw, alpha_req, power_law
from rankbias.rank.ridge import LinearMap, ridge, squared_error
from rankbias.rank.similarity import hsic, linear_cka, rbf_cka
from rankbias.rank.spectrum import default_method, singular_values
from rankbias.rank.streaming import (
  spectrum_all_reduce,
  spectrum_finish,
  spectrum_init,
  spectrum_merge,
  spectrum_update,
)

__all__ = [
  "Argmaxable",
  "ArgmaxableSets",
  "ClassStatistics",
  "Growth",
  "LinearMap",
  "NeuralCollapse",
  "OutputWidth",
  "PowerLaw",
  "RankMonitor",
  "alignment",
  "alpha_req",
  "argmaxable",
  "class_statistics",
  "covariance_rank",
  "default_method",
  "effective_rank",
  "energy_rank",
  "feasible_label_sets_bound",
  "gain",
  "growth",
  "hsic",
  "label_set_argmaxable",
  "layer_states",
  "linear_cka",
  "measure_states",
  "neural_collapse",
  "numerical_rank",
  "ortho_dev",
  "participation_ratio",
  "power_law",
  "press_rank",
  "rankme",
  "rbf_cka",
  "ridge",
  "singular_values",
  "spectrum_all_reduce",
  "spectrum_finish",
  "spectrum_init",
  "spectrum_merge",
  "spectrum_update",
  "squared_error",
  "stable_rank",
  "width_from_outputs",
]
