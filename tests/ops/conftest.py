"""The maps that the contract is tested on, each at its interesting settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from rankbias import ops


def rows(*numbers):
  """One number for each of the four rows of the arrays below."""
  return np.float32(numbers)[:, None]


EPS = np.finfo(np.float32).eps
RNG = np.random.default_rng(0)
# Exact in float16, without a tie, and 5 / 32 at least from every knot and threshold in the table.
Z = np.float32(RNG.permutation(np.arange(-155, 160, 10)).reshape(4, 8) / 32)
MASK = np.array([8, 5, 1, 0])[:, None] > RNG.permuted(np.tile(np.arange(8), (4, 1)), axis=1)
COTANGENT, TANGENT = (np.float32(RNG.normal(size=(4, 8))) for _ in range(2))
# Half the compile time, all that programs on 32 numbers cost. The same loops, optimised less; the
# test of eager calls holds them against what users get.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick = partial(jax.jit, compiler_options=QUICK)


# The mass of rows z [4, n] in float64, -inf where masked.


def one(z):
  return np.any(z > -np.inf, -1)


def some(z):
  return np.any(z > 0, -1)


def beside(n, z):
  top = np.maximum(z.max(-1, keepdims=True), -600)  # n e^-top stays finite
  sums = np.exp(z - top).sum(-1)
  return sums / (n * np.exp(-top[:, 0]) + sums + (sums == 0))


def picked(eps, z):
  top = np.maximum(z.max(-1, keepdims=True), 0)
  sizes = np.exp(np.maximum(z, 0) - top) * -np.expm1(-np.abs(z)) * (z > -np.inf)
  return (sizes * (z > 0)).sum(-1) / (sizes.sum(-1) + eps)


def sigmoids(z):
  count = np.maximum((z > -np.inf).sum(-1, keepdims=True), 1)
  return scipy.special.expit(z - np.log(count)).sum(-1)


@dataclass(eq=False)
class Map:
  """One normaliser at one setting, and what is true of it.

  lacks names what of the contract does not hold, and why it need not:
    shift: the weights change when all logits do.
    order: a larger logit may have a smaller weight.
    logits: takes values that are not negative.
    competition: an entry knows nothing of the others.
    exact: the derivative treats as constant what is not.
    rounded: half precision is rounded more than once.
  """

  name: str
  own: dict = field(default_factory=dict)  # an array is one number a row
  wrt: str = ""  # own arguments with a derivative
  lacks: str = ""
  mass: Callable = one
  scaled_first: float = 0  # logits times this are rounded before the maximum is subtracted
  largest: float = 1e30  # beyond it float32 overflows, or a rounding is worth many nats
  border: float = 0  # what a rounding is worth where the slope of a weight is unbounded

  def __call__(self, z, where, **own):
    return ops.NORMALIZERS[self.name](z, where=where, **{**self.own, **own})

  def has(self, name):
    return name not in self.lacks.split()

  def admissible(self, z):
    return z if self.has("logits") else np.abs(z)

  @property
  def differentiable(self):
    return {name: jnp.asarray(self.own[name], float) for name in self.wrt.split()}

  def tolerance(self, z):
    """What rounding may add to weights in float32.

    A sum of n and some eight operations; exp(-x) makes of a relative error of x one of x exp(-x)
    < 1 only. Logits scaled before they are shifted bring half a unit of their last place.
    """
    return EPS * (z.shape[-1] + 8 + self.scaled_first * np.abs(z).max() / 2)

  def pull(self, z, where, cotangent):
    """Returns weights, gradient in z and gradients in own arguments; arguments as below."""
    y, pull = jax.vjp(lambda z, own: self(z, where, **own), z, self.differentiable)
    return y, *pull(cotangent.astype(y.dtype))

  @cached_property
  def pulled(self):
    """`pull` compiled, as NumPy arrays (a mask as an index is slow in jax)."""
    compiled = quick(self.pull)
    return lambda *inputs: jax.tree.map(np.asarray, compiled(*inputs))

  @cached_property
  def derivatives(self):
    """((z, own), where, tangent, cotangent) -> weights, J v, g J and its derivative along v."""

    def derivatives(point, where, tangent, cotangent):
      def f(z, own):
        return self(z, where, **own)

      def gradient(*point):
        return jax.vjp(f, *point)[1](cotangent)

      return *jax.jvp(f, point, tangent), *jax.jvp(gradient, point, tangent)

    compiled = quick(derivatives)
    return lambda *inputs: jax.tree.map(np.asarray, compiled(*inputs))


class Exponential(Map):
  """e to the power of log_softmax: with 0 for -inf it has the contract of a map."""

  def __call__(self, z, where, **own):
    return jnp.exp(ops.log_softmax(z, where=where, **{**self.own, **own}))


# Two loops of a program may round z / T differently; from here on that is worth whole nats.
TEMPERED = 2.0**22
# A weight of alpha-entmax is the 1 / (alpha - 1) power of its distance from the threshold: a
# rounding of that, some units, is worth their root for alpha = 3.
ROOT = float(np.sqrt(8 * EPS))
# In the order of ops.NORMALIZERS after softmax and its logarithm, the most demanding setting last.
MAPS = {
  "softmax": Map("softmax"),
  "softmax, T a row": Map(
    "softmax", {"temperature": rows(0.25, 1, 3, 10)}, "temperature", "", one, 4, TEMPERED
  ),
  "log_softmax": Exponential("log_softmax", lacks="rounded"),
  "log_softmax, T a row": Exponential(
    "log_softmax",
    {"temperature": rows(0.25, 1, 3, 10)},
    "temperature",
    "rounded",
    one,
    4,
    TEMPERED,
  ),
  "adaptive": Map("adaptive_temperature_softmax"),
  "scalable": Map("scalable_softmax", {"scale": 0.43, "bias": 0.25}, "scale bias"),
  "scalable, s a row": Map("scalable_softmax", {"scale": rows(0, 0.5, 1, 2)}, "scale"),
  "sparsemax": Map("sparsemax"),
  "1.5-entmax": Map("entmax15"),
  "entmax": Map("entmax", {"alpha": 1.25}),
  "entmax beyond 2": Map("entmax", {"alpha": 3}, border=ROOT),
  "entmax, alpha differentiated": Map(
    "entmax", {"alpha": rows(1.125, 1.5, 2, 2.5)}, "alpha", border=ROOT
  ),
  "entmax, alpha a row": Map("entmax", {"alpha": rows(1, 1.25, 2, 3)}, border=ROOT),
  "logistic": Map("logistic_softmax", lacks="shift"),
  "logistic, T a row": Map(
    "logistic_softmax",
    {"temperature": rows(0.25, 1, 3, 10)},
    "temperature",
    "shift",
    one,
    4,
    TEMPERED,
  ),
  "sigsoftmax": Map("sigsoftmax", lacks="shift"),
  "softmax + 1": Map("softmax_plus_n", {}, "", "shift", partial(beside, 1)),
  "softmax + 0": Map("softmax_plus_n", {"n": 0}),
  "softmax + n a row": Map(
    "softmax_plus_n",
    {"n": rows(0.25, 1, 3, 10)},
    "n",
    "shift",
    partial(beside, np.array([0.25, 1, 3, 10])),
  ),
  "softpick": Map("softpick", {}, "", "shift", partial(picked, 1e-8)),
  "softpick, eps": Map("softpick", {"eps": 0.25}, "eps", "shift", partial(picked, 0.25)),
  "sigmoid": Map("sigmoid_weights", {}, "", "shift competition", sigmoids),
  "top k": Map("topk_softmax", {"k": 3}),
  "top k a row": Map("topk_softmax", {"k": np.array([[1], [2], [5], [9]])}),
  "t": Map("t_softmax", {"t": 2.0}, "t"),
  "t a row": Map("t_softmax", {"t": rows(0.1, 1, 4, np.inf)}),
  "r": Map("r_softmax", {"rate": 0.4}, lacks="exact"),
  "MultiMax": Map(
    "multimax", {"ranges": [-0.5, 1.25], "slopes": [0.25, -0.5]}, "ranges slopes", "shift"
  ),
  "MultiMax, second order": Map(
    "multimax",
    {"ranges": [-0.5, 1.25, 0.5, 0.75], "slopes": [0.25, 0.5, 0.25, -0.5]},
    "ranges slopes",
    "shift order",
    largest=1e15,
  ),
  "PLSoftMax": Map("piecewise_linear_softmax", {"delta": 2.0}, "delta"),
  "exponential mechanism": Map(
    "exponential_mechanism",
    {"epsilon": 3.0, "sensitivity": rows(1, 2, 3, 4)},
    "epsilon sensitivity",
  ),
  "power mechanism": Map("power_mechanism", {"alpha": 2.5}, "alpha", "shift logits", some),
}


@pytest.fixture(scope="session", params=MAPS)
def entry(request):
  return MAPS[request.param]


@pytest.fixture(scope="session", params={entry.name: key for key, entry in MAPS.items()}.values())
def member(request):
  """Every map once, at its last setting."""
  return MAPS[request.param]


@pytest.fixture(scope="session")
def maps():
  return MAPS


@pytest.fixture(scope="session")
def arrays():
  """Logits, a mask with a row of one entry and an empty one, a cotangent and a tangent."""
  return Z, MASK, COTANGENT, TANGENT


@pytest.fixture(scope="session")
def compiled_quickly():
  return quick
