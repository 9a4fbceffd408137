"""Mixtape: the formula word by word, shared gates, the tree, rank, gradients, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

N, D, G, V, F = 5, 4, 3, 9, 6


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def arguments(n=N, v=V, f=F, seed=0):
  rng = np.random.default_rng(seed)
  shapes = [(n, 4, D), (n, 3, G), (n, 3), (D, v), (G, f), (v,), (3, f)]
  return [rng.normal(size=shape) for shape in shapes]


def one_word(contexts, a, r, kernel, gate_kernel, bias, gate_bias, row, word):
  """The logit of one word in one row, as the formula reads."""
  own = word < gate_kernel.shape[1]
  gates = r[row] + (a[row] @ gate_kernel[:, word] + gate_bias[:, word] if own else 0)
  s = 1 / (1 + np.exp(-gates))
  pi = [s[0] * s[1], s[0] * (1 - s[1]), (1 - s[0]) * s[2], (1 - s[0]) * (1 - s[2])]
  assert abs(sum(pi) - 1) < 1e-14
  return sum(p * g @ kernel[:, word] for p, g in zip(pi, contexts[row], strict=True)) + bias[word]


@pytest.mark.parametrize("frequent", [0, F, V])
def test_word_by_word(frequent):
  inputs = arguments(f=frequent)
  expected = [[one_word(*inputs, row, word) for word in range(V)] for row in range(N)]
  np.testing.assert_allclose(ops.mixtape_logits(*inputs), expected, rtol=1e-12)


def test_rank_with_gates_of_their_own_and_with_shared_gates():
  ranks = []
  for frequent in (0, 30):
    logits = ops.mixtape_logits(*arguments(40, 30, frequent))
    ranks.append(np.linalg.matrix_rank(ops.log_softmax(logits)))
  assert ranks[0] == D + 2
  assert ranks[1] == 30


def test_gradients_and_dtype():
  inputs = arguments()
  check_grads(jax.jit(ops.mixtape_logits), inputs, order=1, modes=["rev"])
  halves = [jnp.asarray(x, jnp.bfloat16) for x in inputs]
  assert ops.mixtape_logits(*halves).dtype == jnp.bfloat16


def test_what_does_not_fit_is_refused():
  contexts, a, r, kernel, gate_kernel, bias, gate_bias = arguments()
  with pytest.raises(ValueError, match=r"contexts of shape \(5, 3, 4\).* no tree of sigmoids"):
    ops.mixtape_logits(contexts[:, :3], a, r, kernel, gate_kernel)
  with pytest.raises(ValueError, match=r"gate_logits of shape \(5, 2\)"):
    ops.mixtape_logits(contexts, a, r[:, :2], kernel, gate_kernel)
  with pytest.raises(ValueError, match=r"gate_kernel of shape \(3, 6\) fits neither .* 5 words"):
    ops.mixtape_logits(contexts, a, r, kernel[:, :5], gate_kernel)
  with pytest.raises(ValueError, match=r"gate_bias of shape \(3, 6\) does not fit 4 words"):
    ops.mixtape_logits(contexts, a, r, kernel, gate_kernel[:, :4], bias, gate_bias)
