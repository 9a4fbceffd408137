"""How sharp can a softmax be? Bounds on its weights and entropy from the spread of its logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.rows import checked, float_dtype
from rankbias.ops.softmax import checked_temperature


def weight_bounds(
  count: Real[ArrayLike, "*#shape"],
  spread: Real[ArrayLike, "*#shape"],
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  *,
  sharp: bool = True,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """Bounds every weight of softmax(z / T) over n logits that differ by at most their spread.

  With delta = max z - min z and x = delta / T,

    1 / (1 + (n - 1) e^x)  <=  p_i  <=  1 / (1 + (n - 1) e^-x)      sharp
    e^-x / n               <=  p_i  <=  min(1, e^x / n)             simple

  Both of the sharp ones are attained, by one logit at one end and all others at the other end; both
  pairs are 1 / n where all logits are equal. Bounded logits thus disperse: p_i is of order 1 / n.

  Args:
    count: n >= 1.
    spread: delta >= 0, of the logits before they are divided by T.
    sharp: False for the simple pair.

  Raises:
    ValueError: a number known before tracing is out of its range.

  Example: weight_bounds(4, 0.) is (.25, .25), and weight_bounds(11, 5.)[1] is .931.
  Source: Velickovic et al. 2024, arXiv:2410.01104, lemma 2.1; the sharp form is derived here.
  """
  count, x = _count_and_spread(count, spread, temperature)
  if sharp:
    rivals = jnp.log(count - 1)  # -inf for n = 1, whose weight is 1
    return jax.nn.sigmoid(-x - rivals), jax.nn.sigmoid(x - rivals)
  uniform = jnp.log(count)
  return jnp.exp(-x - uniform), jnp.exp(jnp.minimum(x - uniform, 0))


def entropy_bound(
  count: Real[ArrayLike, "*#shape"],
  spread: Real[ArrayLike, "*#shape"],
  temperature: Real[ArrayLike, "*#shape"] = 1.0,
  *,
  sharp: bool = True,
) -> Float[Array, "..."]:
  """Bounds the entropy of softmax(z / T) from below, in nats: H >= -log max p.

    H >= log(1 + (n - 1) e^-x)    sharp
    H >= max(0, log n - x)        simple,  x = delta / T

  Arguments and errors are those of `weight_bounds`.

  Example: entropy_bound(1024, 5., sharp=False) is log 1024 - 5 = 1.931.
  Source: Velickovic et al. 2024, arXiv:2410.01104, lemma 2.1; the step to the entropy is derived
    here.
  """
  count, x = _count_and_spread(count, spread, temperature)
  return jnp.log1p((count - 1) * jnp.exp(-x)) if sharp else jnp.maximum(jnp.log(count) - x, 0)


def required_spread(
  count: Real[ArrayLike, "*#shape"], weight: Real[ArrayLike, "*#shape"]
) -> Float[Array, "..."]:
  """Computes the spread, in units of T, below which no weight among n can be c.

  delta / T >= log((n - 1) c / (1 - c)),  enough where all other logits are equal. Negative where c
  is below 1 / n.

  Args:
    count: n >= 1.
    weight: c, between 0 and 1, both excluded.

  Raises:
    ValueError: a number known before tracing is out of its range.

  Example: required_spread(1024, 0.9) is 9.128.
  Source: Velickovic et al. 2024, arXiv:2410.01104, lemma 2.1, solved for the spread.
  """
  _check_count(count)
  checked("weight", weight, lambda c: (c > 0) & (c < 1), "must lie between 0 and 1, excluded.")
  count, weight = _wide(count), _wide(weight)
  return jnp.log(count - 1) + jnp.log(weight) - jnp.log1p(-weight)


def spread_bound(
  query_kernel: Float[ArrayLike, "rows columns"],
  key_kernel: Float[ArrayLike, "key_rows key_columns"],
  queries: Float[ArrayLike, "*batch length width"],
  keys: Float[ArrayLike, "*batch keys key_width"],
) -> Float[Array, "*batch length"]:
  """Bounds the spread of the logits of a head by the singular values of its projections.

  For logits (Q y) . (K x_i) of a query y and items x_i,

    delta <= 2 sigma_max(Q) sigma_max(K) |y| max_i |x_i|.

  Attained where x_1 = -x_2 and the projections turn x_1 and y, each their strongest direction, to
  one and the same. A head can therefore stay sharp on more items only by larger weights.

  Args:
    query_kernel, key_kernel: Q and K of one head, or their transposes, whose singular values are
      the same. Where the logits are scaled (1 / sqrt d), scale the bound.
    queries, keys: y and x_i, before their projections.

  Example: spread_bound(jnp.eye(2), jnp.eye(2), y[None], x) is 2 |y| max |x_i|.
  Source: Velickovic et al. 2024, arXiv:2410.01104, proposition 3.1.
  """
  strongest = [jnp.linalg.norm(_wide(kernel), ord=2) for kernel in (query_kernel, key_kernel)]
  longest = jnp.max(jnp.linalg.norm(_wide(keys), axis=-1), -1, keepdims=True)
  return 2 * strongest[0] * strongest[1] * jnp.linalg.norm(_wide(queries), axis=-1) * longest


def _count_and_spread(count, spread, temperature):
  """Returns n and delta / T, checked, in float32 or wider."""
  _check_count(count)
  checked("spread", spread, lambda d: d >= 0, "must not be negative: it is max z - min z.")
  temperature = checked_temperature(temperature)
  x = _wide(spread)
  return _wide(count), x if temperature is None else x / _wide(temperature)


def _check_count(count):
  checked("count", count, lambda n: n >= 1, "must be 1 or more: it counts the logits of a row.")


def _wide(x):
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(float_dtype(x), jnp.float32))
