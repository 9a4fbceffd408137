"""Output layers with an increasing map on the logits before the softmax."""

from collections.abc import Callable
from functools import partial

import jax

from rankbias import ops
from rankbias.models.heads.linear import LinearHead


class SigsoftmaxHead(LinearHead):
  """A linear head under `ops.sigsoftmax_logits`, without a parameter more (arXiv:1805.10829).

  p = softmax(f(z) / T),  f(z) = z + log sig(z)
  """

  def logit_map(self) -> Callable[[jax.Array], jax.Array]:
    """The map f."""
    return ops.sigsoftmax_logits


class GeneralizedSigsoftmaxHead(LinearHead):
  """A linear head under `ops.generalized_sigsoftmax_logits`: slope k left of the knee, then 1.

  Published for language models: knee -1.5 with slope 2.5 or 3.
  """

  knee: float = -1.5
  slope: float = 2.5

  def logit_map(self) -> Callable[[jax.Array], jax.Array]:
    """The map f."""
    return partial(ops.generalized_sigsoftmax_logits, knee=self.knee, slope=self.slope)


class TanhCapHead(LinearHead):
  """A linear head under `ops.tanh_cap`: logits between -cap and cap."""

  cap: float = 30.0

  def logit_map(self) -> Callable[[jax.Array], jax.Array]:
    """The map f."""
    return partial(ops.tanh_cap, cap=self.cap)


class PlifHead(LinearHead):
  """A linear head under a learned increasing piecewise linear map, `ops.plif` (arXiv:1902.08077).

  The K parameters of the map are the leaf "plif". With scale 0 it starts as the identity; with
  scale 1 and 1e5 knots, the start in public code (of Parthiban et al. 2021), it has slopes of
  noise. `frozen` keeps the start: its gradient is zero (a weight decay would move it all the same).
  """

  knots: int = 1000
  bound: float = 20.0
  scale: float = 0.0
  frozen: bool = False

  def setup(self):
    super().setup()

    def start(key):
      return ops.plif_init(key, self.knots, scale=self.scale).astype(self.param_dtype)

    self.parameters = self.param("plif", start)

  def logit_map(self) -> Callable[[jax.Array], jax.Array]:
    """The map f."""
    fixed = jax.lax.stop_gradient(self.parameters) if self.frozen else self.parameters
    return ops.plif_map(fixed, bound=self.bound)
