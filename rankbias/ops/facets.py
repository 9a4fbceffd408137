"""Several vectors for one context: partitioned softmax and multi-facet softmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.affine import checked_affine, wide
from rankbias.ops.mixtures import mixture_log_probs
from rankbias.ops.rows import float_dtype
from rankbias.ops.softmax import checked_temperature, log_normalize, tempered_rows


def partitioned_logits(
  facets: Real[ArrayLike, "*batch P d"],
  kernel: Real[ArrayLike, "width V"],
  bias: Real[ArrayLike, "classes"] | None = None,
) -> Float[Array, "*batch V"]:
  """Computes logits of classes dealt out to P parts, each of which has a context of its own.

  z_v = <facet_(v mod P), w_v> + b_v

  The cost is that of a linear layer; the rank of z is at most P d. Facets that are linear maps of
  some features have no more to give: the rank is then at most the number of these, too. A loss
  without the logits is `partitioned_cross_entropy`.

  Raises:
    ValueError: shapes do not fit, or there is no part.

  Example: with equal facets it is facets[..., 0, :] @ kernel + bias.
  Source: Chang & McCallum 2022, "Softmax bottleneck makes language models unable to represent
  multi-mode word distributions", ACL; their code, Chang 2023, arXiv:2305.12289.
  """
  check_parts(facets)
  dtype = float_dtype(facets)
  facets, kernel, bias = checked_affine("facets", facets, kernel, bias)
  return _partitioned(facets, kernel, bias).astype(dtype)


@jax.jit
def _partitioned(facets, kernel, bias):
  parts, classes = facets.shape[-2], kernel.shape[1]
  rows = -(-classes // parts)
  kernel = jnp.pad(kernel, ((0, 0), (0, rows * parts - classes))).reshape(-1, rows, parts)
  logits = jnp.einsum("...pd,dvp->...vp", facets, kernel)
  logits = logits.reshape(*logits.shape[:-2], -1)[..., :classes]
  if bias is not None:
    logits = logits + bias.reshape((1,) * (logits.ndim - 1) + bias.shape)
  return logits


def multi_facet_log_probs(
  prior_logits: Real[ArrayLike, "*batch softmaxes"],
  partition_facets: Real[ArrayLike, "*batch P d"],
  facets: Real[ArrayLike, "*batch K d"],
  kernel: Real[ArrayLike, "width V"],
  bias: Real[ArrayLike, "classes"] | None = None,
  *,
  temperature: Real[ArrayLike, "..."] = 1.0,
) -> Float[Array, "*batch V"]:
  """Computes the log-probabilities of one partitioned softmax mixed with K plain ones.

  log p = logsumexp( log pi_0 + log_softmax(partitioned / T),
                     log pi_k + log_softmax((facet_k W + b) / T), k = 1..K )

  The facets are linear maps of the features; the published setting has P = 4 and K = 2. As in
  `mixture_log_probs` nothing of [..., K, V] is held, and the temperature acts inside the softmaxes.
  With K = 0 it is the partitioned softmax. A loss alone is smaller by `multi_facet_cross_entropy`.

  Args:
    prior_logits: [..., 1 + K], the partitioned softmax first.

  Raises:
    ValueError: shapes do not fit, or a temperature known before tracing is not positive.

  Example: multi_facet_log_probs(zeros(1), q[None], zeros((0, d)), W) is log_softmax(q @ W).
  Source: Chang & McCallum 2022, as in `partitioned_logits`.
  """
  check_facets(prior_logits, facets)
  softmaxes = jnp.shape(prior_logits)[-1]
  dtype = float_dtype(facets)
  facets, partition_facets, kernel = wide(facets, partition_facets, kernel)
  bias = None if bias is None else jnp.asarray(bias, kernel.dtype)
  log_priors = log_normalize(jnp.asarray(prior_logits, kernel.dtype), -1)
  logits = partitioned_logits(partition_facets, kernel, bias)
  rows = tempered_rows(logits, checked_temperature(temperature), None, -1)
  logs = log_priors[..., :1] + log_normalize(rows[0], -1, rows[1])
  if softmaxes > 1:
    plain = log_priors[..., 1:]
    mixed = mixture_log_probs(plain, facets, kernel, bias, temperature=temperature)
    logs = jnp.logaddexp(logs, mixed + jax.nn.logsumexp(plain, -1, keepdims=True))
  return jnp.minimum(logs, 0).astype(dtype)


def check_facets(prior_logits, facets):
  """Raises where there is not one prior logit for every softmax."""
  if jnp.shape(prior_logits)[-1] != 1 + jnp.shape(facets)[-2]:
    raise ValueError(
      f"prior_logits of shape {jnp.shape(prior_logits)} does not fit facets of shape "
      f"{jnp.shape(facets)}: pass [..., 1 + K] for [..., K, d], the partitioned softmax first."
    )


def check_parts(facets):
  """Raises where [..., P, d] holds no part to deal classes out to."""
  if not jnp.shape(facets)[-2]:
    raise ValueError(
      f"facets of shape {jnp.shape(facets)} hold no part: pass [..., P, d] with P >= 1."
    )


def shifted_windows(
  layers: Float[Array, "H *batch length d"], window: int
) -> Float[Array, "*batch length _"]:
  """Puts the features of several layers at this and the `window` previous positions side by side.

  x_t = (h^1_t, h^1_(t-1), ..., h^1_(t-W), h^2_t, ..., h^H_(t-W)),   zero before the first position

  The input of the multi-facet softmax, where q = (h^1, gelu(x A + a)) makes the facets; the
  published setting is the H = 3 uppermost layers, from the top, and W = 2.

  Raises:
    ValueError: window is negative.

  Example: shifted_windows(h[None], 0) is h.
  Source: Chang & McCallum 2022, as in `partitioned_logits`.
  """
  if window < 0:
    raise ValueError(f"window = {window} must be at least 0: it counts previous positions.")
  length, fill = layers.shape[-2], [(0, 0)] * (layers.ndim - 3)
  shifted = [
    jnp.pad(layer, (*fill, (back, 0), (0, 0)))[..., :length, :]
    for layer in layers
    for back in range(window + 1)
  ]
  return jnp.concatenate(shifted, -1)
