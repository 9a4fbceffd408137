"""An LSTM language model that carries its state from window to window, with AWD-LSTM's dropouts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rankbias.models.layers import dropout
from rankbias.models.recurrence import recur

FORGET = 1.0  # initial bias of the forget gates
State = dict[str, dict[str, jax.Array]]


def symmetric(bound: float) -> Callable:
  """The initialiser that draws uniformly from -bound .. bound."""
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def gate_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """Zeros, but `FORGET` for the second of four gates: at first cells keep what they hold."""
  del key
  quarter = shape[-1] // 4
  return jnp.zeros(shape, dtype).at[..., quarter : 2 * quarter].set(FORGET)


class LSTM(nn.Module):
  """Maps tokens to features by layers of long short-term memory, the last of `features` units.

      i, f, g, o = x_t U + h_{t-1} (M * W) + b
      c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)        h_t = sigmoid(o) tanh(c_t)

  where x_t is the embedding of a token or the layer below, and M the mask of the weight dropout.
  Kernels are drawn from U(-1 / sqrt(units), 1 / sqrt(units)) and embeddings from U(-0.1, 0.1), as
  by Merity et al.; biases are zero, those of the forget gates 1.

  While training, the collection "carry" holds the state in which each sequence of the batch begins
  and, after the step, the one in which it ended. Without it, and outside training, states are zero
  at first.

  Attributes:
    vocabulary: tokens are 0 .. vocabulary - 1.
    embedding: features of an embedded token.
    width: units of every layer but the last; None as `features` leaves it to the last, too.
    dropout: of the features, `hidden_dropout`: of the layers below, `input_dropout`: of the
      embeddings; the mask of a sequence is one for all its tokens ("locked").
    weight_dropout: of the entries of W, one mask a step for all sequences and tokens.
    word_dropout: of whole words, all occurrences in the step.

  Source: Merity et al. 2017, arXiv:1708.02182; Gal and Ghahramani 2016, arXiv:1512.05287 (locked
  and word dropout); Jozefowicz et al. 2015 (the bias of the forget gates).
  """

  vocabulary: int = 10_000
  embedding: int = 200
  width: int = 400
  depth: int = 2
  features: int | None = None
  dropout: float = 0.0
  hidden_dropout: float = 0.0
  input_dropout: float = 0.0
  weight_dropout: float = 0.0
  word_dropout: float = 0.0
  axis_name: str | None = None
  dtype: Any = "float32"
  param_dtype: Any = "float32"

  convolves = False

  def __post_init__(self):
    for name in ("vocabulary", "embedding", "width", "depth", "features"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"{name}={value} must be at least 1.")
    if self.depth == 1 and self.features not in (None, self.width):
      raise ValueError(
        f"features={self.features} with depth=1: the only layer is the last one, so set "
        f"width={self.features}, or depth=2 for a layer of width={self.width} below it."
      )
    for name in ("dropout", "hidden_dropout", "input_dropout", "weight_dropout", "word_dropout"):
      rate = getattr(self, name)
      if not 0 <= rate < 1:
        raise ValueError(f"{name}={rate} must lie in [0, 1): it is a probability to be dropped.")
    super().__post_init__()

  @property
  def units(self) -> dict[str, int]:
    """The number of units of every layer."""
    last = self.features or self.width
    return {f"layer{i}": self.width for i in range(1, self.depth)} | {f"layer{self.depth}": last}

  @property
  def weight_layers(self) -> int:
    """The number of weight layers on the longest path of one token: input kernels, and the head."""
    return self.depth + 1

  @property
  def act_names(self) -> tuple[str, ...]:
    """The names of the activations in forward order."""
    return ("embedding", *list(self.units)[:-1], "features")

  def start(self, count: int) -> State:
    """The state {layer: {"h", "c"}} in which `count` texts begin: zeros."""
    wide = jnp.promote_types(self.dtype, jnp.float32)
    return {
      layer: {"h": jnp.zeros((count, units), self.dtype), "c": jnp.zeros((count, units), wide)}
      for layer, units in self.units.items()
    }

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the features [B, L, features] of tokens [B, L], and the activations by name.

    Keys, one per sequence, switch locked dropout on, and rng "weights" the others.
    """
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    carried = train and self.has_variable("carry", "state")
    before = self.get_variable("carry", "state") if carried else self.start(len(x))
    table = nn.Embed(
      self.vocabulary, self.embedding, embedding_init=symmetric(0.1), **types, name="embed"
    )
    h = table(x.T)  # time first from here on
    h = h * self.kept("word_dropout", (self.vocabulary, 1), self.dtype)[x.T]
    acts, after = {"embedding": h}, {}
    h = locked(h, self.input_dropout, keys, 0)
    for i, (layer, units) in enumerate(self.units.items(), 1):
      bound = symmetric(units**-0.5)
      gates = nn.Dense(
        4 * units, kernel_init=bound, bias_init=gate_bias, **types, name=f"{layer}_input"
      )(h)
      shape = units, 4 * units
      kernel = Recurrent(shape, bound, self.param_dtype, name=f"{layer}_recurrent")()
      kernel = kernel * self.kept("weight_dropout", shape, self.param_dtype)
      h, after[layer] = recur(gates, kernel.astype(self.dtype), before[layer])
      last = i == self.depth
      h = locked(h, self.dropout if last else self.hidden_dropout, keys, i)
      acts["features" if last else layer] = h
    if carried and self.is_mutable_collection("carry"):
      self.put_variable("carry", "state", jax.lax.stop_gradient(after))
    acts = {name: act.swapaxes(0, 1) for name, act in acts.items()}
    return acts["features"], acts

  def kept(self, name: str, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros where the dropout called `name` strikes and 1 / (1 - rate) elsewhere."""
    rate = getattr(self, name)
    if not (rate and self.has_rng("weights")):
      return jnp.ones(shape, dtype)
    keep = np.float32(1 - rate)  # the same draws in a float64 program
    kept = jax.random.bernoulli(self.make_rng("weights"), keep, shape)
    return kept.astype(dtype) / (1 - rate)


class Recurrent(nn.Module):
  """The kernel from units to gates, under a name that `scale_kernels` knows."""

  shape: tuple[int, int]
  init: Callable
  param_dtype: Any = "float32"

  @nn.compact
  def __call__(self) -> jax.Array:
    """Returns the kernel."""
    return self.param("kernel", self.init, self.shape, self.param_dtype)


def locked(h: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
  """Dropout of [L, B, d] with one mask for all times of a sequence, from its key."""
  if keys is None or not rate:
    return h
  return h * dropout(jnp.ones(h.shape[1:], h.dtype), rate, keys, layer)[None]
