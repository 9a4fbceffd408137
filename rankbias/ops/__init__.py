"""Pure functions on arrays: maps from logits to weights, their entropies and losses."""

from rankbias.ops.adaptive import (
  adaptive_temperature_softmax,
  entropy_polynomial,
  scalable_softmax,
)
from rankbias.ops.adaptive_attention import adaptive_temperature_attention
from rankbias.ops.attention import dot_product_attention
from rankbias.ops.attention_flax import flax_attention
from rankbias.ops.dispersion import entropy_bound, required_spread, spread_bound, weight_bounds
from rankbias.ops.facet_cross_entropy import (
  multi_facet_cross_entropy,
  partitioned_cross_entropy,
)
from rankbias.ops.facets import multi_facet_log_probs, partitioned_logits, shifted_windows
from rankbias.ops.fenchel_young import fenchel_young_loss
from rankbias.ops.fitted_temperature import (
  FittedInverseTemperature,
  fit_inverse_temperature,
  fit_to_scores,
)
from rankbias.ops.label_encoder import drill_encoder
from rankbias.ops.linear_cross_entropy import CrossEntropyAux, linear_cross_entropy
from rankbias.ops.logistic import logistic_softmax, sigsoftmax
from rankbias.ops.logit_maps import (
  generalized_sigsoftmax_logits,
  plif,
  plif_init,
  plif_map,
  sigsoftmax_logits,
  tanh_cap,
)
from rankbias.ops.losses import cross_entropy
from rankbias.ops.margin import (
  MARGINS,
  additive_margin,
  angular_margin,
  guided_additive_margin,
  guided_angular_margin,
  multiplicative_margin,
  scaled_cosines,
)
from rankbias.ops.mechanisms import exponential_mechanism, piecewise_linear_softmax, power_mechanism
from rankbias.ops.midx import midx_log_probability, midx_sample
from rankbias.ops.midx_index import MidxIndex, midx_build, midx_from_codes, midx_update
from rankbias.ops.mixtape import mixtape_logits
from rankbias.ops.mixture_cross_entropy import mixture_cross_entropy
from rankbias.ops.mixtures import mixed_contexts, mixture_log_probs
from rankbias.ops.modulated import multimax
from rankbias.ops.normalizers import NORMALIZERS, normalizer
from rankbias.ops.output import dft_bias, dft_kernel, dft_logits
from rankbias.ops.proposals import (
  MidxProposal,
  PopularityProposal,
  Proposal,
  UniformProposal,
  midx_proposal,
  popularity_proposal,
  uniform_proposal,
)
from rankbias.ops.regularizers import (
  mean_cosine,
  orthogonality,
  spectrum_control,
  spectrum_spread,
)
from rankbias.ops.sampled import sampled_softmax_loss
from rankbias.ops.search_softmax import (
  binned_search_softmax_loss,
  random_softmax_loss,
  search_softmax_loss,
)
from rankbias.ops.softmax import entropy, log_softmax, softmax
from rankbias.ops.softmax_free import (
  newton_inverse,
  normalized_newton_inverse,
  softmax_free_attention,
)
from rankbias.ops.sparse import entmax, entmax15, sparsemax
from rankbias.ops.spectral import soft_decay
from rankbias.ops.truncated import r_softmax, t_softmax, topk_softmax
from rankbias.ops.uncertainty import (
  UNCERTAINTIES,
  expected_entropy,
  mutual_information,
  predictive_entropy,
  variation_ratio,
)
from rankbias.ops.unnormalized import sigmoid_weights, softmax_plus_n, softpick

__all__ = [
  "MARGINS",
  "NORMALIZERS",
  "UNCERTAINTIES",
  "CrossEntropyAux",
  "FittedInverseTemperature",
  "MidxIndex",
  "MidxProposal",
  "PopularityProposal",
  "Proposal",
  "UniformProposal",
  "adaptive_temperature_attention",
  "adaptive_temperature_softmax",
  "additive_margin",
  "angular_margin",
  "binned_search_softmax_loss",
  "cross_entropy",
  "dft_bias",
  "dft_kernel",
  "dft_logits",
  "dot_product_attention",
  "drill_encoder",
  "entmax",
  "entmax15",
  "entropy",
  "entropy_bound",
  "entropy_polynomial",
  "expected_entropy",
  "exponential_mechanism",
  "fenchel_young_loss",
  "fit_inverse_temperature",
  "fit_to_scores",
  "flax_attention",
  "generalized_sigsoftmax_logits",
  "guided_additive_margin",
  "guided_angular_margin",
  "linear_cross_entropy",
  "log_softmax",
  "logistic_softmax",
  "mean_cosine",
  "midx_build",
  "midx_from_codes",
  "midx_log_probability",
  "midx_proposal",
  "midx_sample",
  "midx_update",
  "mixed_contexts",
  "mixtape_logits",
  "mixture_cross_entropy",
  "mixture_log_probs",
  "multi_facet_cross_entropy",
  "multi_facet_log_probs",
  "multimax",
  "multiplicative_margin",
  "mutual_information",
  "newton_inverse",
  "normalized_newton_inverse",
  "normalizer",
  "orthogonality",
  "partitioned_cross_entropy",
  "partitioned_logits",
  "piecewise_linear_softmax",
  "plif",
  "plif_init",
  "plif_map",
  "popularity_proposal",
  "power_mechanism",
  "predictive_entropy",
  "r_softmax",
  "random_softmax_loss",
  "required_spread",
  "sampled_softmax_loss",
  "scalable_softmax",
  "scaled_cosines",
  "search_softmax_loss",
  "shifted_windows",
  "sigmoid_weights",
  "sigsoftmax",
  "sigsoftmax_logits",
  "soft_decay",
  "softmax",
  "softmax_free_attention",
  "softmax_plus_n",
  "softpick",
  "sparsemax",
  "spectrum_control",
  "spectrum_spread",
  "spread_bound",
  "t_softmax",
  "tanh_cap",
  "topk_softmax",
  "uniform_proposal",
  "variation_ratio",
  "weight_bounds",
]
