"""Softmax regression on frozen features, by Adam: of one matrix, or of many at once."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from rankbias import ops
from rankbias.rank import LinearMap


@partial(jax.jit, static_argnames=("classes", "epochs", "batch_size"))
def fit_stacks(
  stacks: list[Float[Array, "maps n d"]],
  labels: Int[ArrayLike, "n"],
  *,
  classes: int,
  epochs: int,
  batch_size: int,
  learning_rate: float,
) -> list[LinearMap]:
  """Fits every matrix by `fit_adam` in one compiled program; one stack for each width d."""
  options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
  fit = partial(fit_adam, classes=classes, **options)
  return [jax.vmap(fit, (0, None))(stack, labels) for stack in stacks]


@partial(jax.jit, static_argnames=("classes", "epochs", "batch_size"))
def fit_adam(
  features: Real[ArrayLike, "n d"],
  labels: Int[ArrayLike, "n"],
  *,
  classes: int,
  epochs: int = 30,
  batch_size: int = 512,
  learning_rate: float = 1e-3,
) -> LinearMap:
  """Fits softmax regression by Adam on features standardised by two things: mean and one scale.

  Minimises the mean cross-entropy of softmax(((x - m) / s) W + b) from W = 0, without weight decay;
  m is the mean row and s^2 the mean variance of a feature. One scale for the layer takes away its
  units, which differ between layers and temperatures, and leaves the shape of its spectrum: a scale
  for each feature would undo what is to be measured, and lift rounding to the size of the signal.
  Batches are cut from a new permutation in every epoch, the same for all layers and members; what
  is left over waits for the next. Written for one matrix; vmap over layers and members.

  Returns: the map of raw features, x -> (x - m) W / s + b.

  Example: jax.vmap(lambda x, y: fit_adam(x, y, classes=10), (0, None))(layers, labels).
  Source: protocol of public re-implementations of Masarczyk et al. 2023, arXiv:2305.19753 (one
  linear layer, Adam with learning rate 1e-3, 30 epochs, batch 512); the standardisation is ours.
  """
  x, labels = jnp.asarray(features), jnp.asarray(labels)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  n, d = x.shape
  size = min(batch_size, n)
  mean = jnp.mean(x, 0)
  variance = jnp.mean(jnp.square(x - mean[None, :]))
  scale = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)
  adam = optax.adam(learning_rate)

  def loss(probe, rows):
    z = LinearMap(mean, probe["kernel"] / scale, probe["bias"])(x[rows])
    return jnp.mean(ops.cross_entropy(ops.log_softmax(z), labels[rows]))

  def step(carry, rows):
    probe, moments = carry
    updates, moments = adam.update(jax.grad(loss)(probe, rows), moments)
    return (optax.apply_updates(probe, updates), moments), None

  def epoch(carry, number):
    order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), number), n)
    return jax.lax.scan(step, carry, order[: n // size * size].reshape(-1, size))

  probe = {"kernel": jnp.zeros((d, classes), x.dtype), "bias": jnp.zeros(classes, x.dtype)}
  (probe, _), _ = jax.lax.scan(epoch, (probe, adam.init(probe)), jnp.arange(epochs))
  return LinearMap(mean, probe["kernel"] / scale, probe["bias"])
