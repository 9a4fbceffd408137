"""Detectors of foreign data by name: pure functions that are fitted to arrays and score arrays.

All follow one contract (`Detector`), but ODIN, which needs the network itself and its inputs.
"""

from functools import partial

from rankbias.evaluate.detectors.confidence import (
  fit_kl_matching,
  log_odds,
  score_energy,
  score_gen,
  score_kl_matching,
  score_max_logit,
  score_msp,
)
from rankbias.evaluate.detectors.contract import Detector, nothing
from rankbias.evaluate.detectors.features import fit_knn, fit_react, score_knn, score_react
from rankbias.evaluate.detectors.odin import odin_step, score_odin
from rankbias.evaluate.detectors.subspace import (
  dimension_of,
  fit_neco,
  fit_vim,
  neco_ratios,
  principal_axes,
  score_neco,
  score_vim,
)

_standardized = partial(fit_neco, standardize=True)

DETECTORS = {
  "msp": Detector(nothing, score_msp, scale_matters=True),
  "max_logit": Detector(nothing, score_max_logit, scale_matters=False),
  "energy": Detector(nothing, score_energy, scale_matters=True, needs="level"),
  "gen": Detector(nothing, score_gen, scale_matters=True),
  "kl_matching": Detector(fit_kl_matching, score_kl_matching, scale_matters=True),
  "react": Detector(fit_react, score_react, scale_matters=True, needs="level"),
  "vim": Detector(fit_vim, score_vim, scale_matters=True, needs="affine"),
  "knn": Detector(fit_knn, score_knn, scale_matters=False),
  "neco": Detector(fit_neco, score_neco, scale_matters=False),
  # As the authors' code has it for ResNets, and for other networks.
  "neco_standardized": Detector(_standardized, score_neco, scale_matters=False),
  "neco_max_logit": Detector(
    _standardized, partial(score_neco, times_max_logit=True), scale_matters=False, needs="level"
  ),
}
ODIN = "odin"

__all__ = [
  "DETECTORS",
  "ODIN",
  "Detector",
  "dimension_of",
  "fit_kl_matching",
  "fit_knn",
  "fit_neco",
  "fit_react",
  "fit_vim",
  "log_odds",
  "neco_ratios",
  "odin_step",
  "principal_axes",
  "score_energy",
  "score_gen",
  "score_kl_matching",
  "score_knn",
  "score_max_logit",
  "score_msp",
  "score_neco",
  "score_odin",
  "score_react",
  "score_vim",
]
