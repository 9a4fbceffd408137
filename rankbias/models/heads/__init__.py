"""Output layers by name: from features to class probabilities and the loss, behind one contract.

The contract is that of `contract.Head`. Those that mix probabilities have log-probabilities where
the others have logits, and take the temperature inside every component.
"""

from rankbias.models.heads.contract import Head, MixtureHead
from rankbias.models.heads.drill import DrillHead
from rankbias.models.heads.facets import MultiFacetHead, PartitionedHead
from rankbias.models.heads.linear import DropoutDecoupledHead, LinearHead
from rankbias.models.heads.mixtures import (
  MixtapeHead,
  MixtureOfContextsHead,
  MixtureOfSoftmaxesHead,
)
from rankbias.models.heads.pointwise import (
  GeneralizedSigsoftmaxHead,
  PlifHead,
  SigsoftmaxHead,
  TanhCapHead,
)

HEADS = {
  "linear": LinearHead,
  "sigsoftmax": SigsoftmaxHead,
  "generalized_sigsoftmax": GeneralizedSigsoftmaxHead,
  "tanh_cap": TanhCapHead,
  "plif": PlifHead,
  "dropout_decoupled": DropoutDecoupledHead,
  "mixture_of_softmaxes": MixtureOfSoftmaxesHead,
  "mixture_of_contexts": MixtureOfContextsHead,
  "mixtape": MixtapeHead,
  "partitioned": PartitionedHead,
  "multi_facet": MultiFacetHead,
  "drill": DrillHead,
}

__all__ = [
  "HEADS",
  "DrillHead",
  "DropoutDecoupledHead",
  "GeneralizedSigsoftmaxHead",
  "Head",
  "LinearHead",
  "MixtapeHead",
  "MixtureHead",
  "MixtureOfContextsHead",
  "MixtureOfSoftmaxesHead",
  "MultiFacetHead",
  "PartitionedHead",
  "PlifHead",
  "SigsoftmaxHead",
  "TanhCapHead",
]
