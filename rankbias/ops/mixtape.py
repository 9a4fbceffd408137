"""Mixtape: four contexts mixed per word before one softmax, with gates from a tree of sigmoids."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from rankbias.ops.affine import affine, checked_affine, wide
from rankbias.ops.rows import float_dtype


def mixtape_logits(
  contexts: Real[ArrayLike, "*batch components d"],
  gate_contexts: Real[ArrayLike, "*batch gates g"],
  gate_logits: Real[ArrayLike, "*batch shared_gates"],
  kernel: Real[ArrayLike, "width V"],
  gate_kernel: Real[ArrayLike, "gate_width frequent"],
  bias: Real[ArrayLike, "classes"] | None = None,
  gate_bias: Real[ArrayLike, "bias_gates gated"] | None = None,
) -> Float[Array, "*batch V"]:
  """Computes logits in which every word mixes four contexts by gates of its own.

  z_v = sum_k pi_vk <g_k, w_v> + b_v,        k = 1..4
  l_vj = <u_v, a_j> + r_j + q_vj,  s = sigmoid(l_v),        j = 1..3
  pi_v = (s_1 s_2, s_1 (1 - s_2), (1 - s_1) s_3, (1 - s_1)(1 - s_3))

  The gates depend on the word, so the rank of z is not bounded by d, at the cost of one softmax.
  The first F words, which should be the frequent ones, have gates; the others share l_j = r_j, and
  since then their contexts are mixed once, they cost no more than in a linear layer. F = 0 is a
  mixture of contexts, F = V shares nothing.

  Args:
    contexts: g_k, [..., 4, d], for example tanh of four linear maps of the features.
    gate_contexts: a_j, [..., 3, g], likewise.
    gate_logits: r_j, [..., 3], a linear map of the features.
    gate_kernel: u_v of the first F words, [g, F].
    gate_bias: q_vj, [3, F].

  Raises:
    ValueError: there are not four contexts and three gates, or shapes do not fit.

  Example: mixtape_logits(g, a, r, kernel, kernel[:, :100]) gives 100 words their own gates.
  Source: Yang et al. 2019, "Mixtape: breaking the softmax bottleneck efficiently", NeurIPS.
  """
  dtype = float_dtype(contexts)
  contexts, kernel, bias = checked_affine("contexts", contexts, kernel, bias)
  _check(contexts, gate_contexts, gate_logits, kernel, gate_kernel, gate_bias)
  gates = gate_contexts, gate_logits, gate_kernel, gate_bias
  return _mixtape(contexts, kernel, bias, gates).astype(dtype)


@jax.jit
def _mixtape(contexts, kernel, bias, gates):
  gate_contexts, gate_logits, gate_kernel, gate_bias = gates
  shared = [r[..., None] for r in jnp.moveaxis(jnp.asarray(gate_logits, contexts.dtype), -1, 0)]
  frequent = jnp.shape(gate_kernel)[1]
  g = jnp.moveaxis(contexts, -2, 0)
  rare = affine(_mixed(shared, g), kernel[:, frequent:], None)
  gate_contexts, gate_kernel = wide(gate_contexts, gate_kernel)
  gates = []
  for j, a in enumerate(jnp.moveaxis(gate_contexts, -2, 0)):
    own = None if gate_bias is None else jnp.asarray(gate_bias, contexts.dtype)[j]
    gates.append(affine(a, gate_kernel, own) + shared[j])
  logits = _mixed(gates, [jnp.matmul(one, kernel[:, :frequent]) for one in g])
  logits = jnp.concatenate([logits, rare], -1)
  if bias is not None:
    logits = logits + bias.reshape((1,) * (logits.ndim - 1) + bias.shape)
  return logits


def _mixed(gates, leaves):
  """Mixes four arrays by the tree of three gates, each a convex combination of two."""
  root, left, right = (jax.nn.sigmoid(gate) for gate in gates)
  one, two, three, four = leaves
  return root * (left * one + (1 - left) * two) + (1 - root) * (right * three + (1 - right) * four)


def _check(contexts, gate_contexts, gate_logits, kernel, gate_kernel, gate_bias):
  batch = contexts.shape[:-2]
  shapes = contexts.shape[:-1], jnp.shape(gate_contexts)[:-1], jnp.shape(gate_logits)
  if shapes != ((*batch, 4), (*batch, 3), (*batch, 3)):
    raise ValueError(
      f"contexts of shape {contexts.shape}, gate_contexts of shape {jnp.shape(gate_contexts)} and "
      f"gate_logits of shape {jnp.shape(gate_logits)} are no tree of sigmoids: pass [..., 4, d], "
      "[..., 3, g] and [..., 3]."
    )
  rows, frequent = jnp.shape(gate_kernel)
  if rows != jnp.shape(gate_contexts)[-1] or frequent > kernel.shape[1]:
    raise ValueError(
      f"gate_kernel of shape {(rows, frequent)} fits neither gate_contexts of shape "
      f"{jnp.shape(gate_contexts)} nor {kernel.shape[1]} words: pass [g, F] with F at most the "
      "number of words."
    )
  if gate_bias is not None and jnp.shape(gate_bias) != (3, frequent):
    raise ValueError(
      f"gate_bias of shape {jnp.shape(gate_bias)} does not fit {frequent} words with gates: "
      f"pass [3, {frequent}]."
    )
