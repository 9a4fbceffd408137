"""Tests of softmax-free attention: the public code, the dense limit, masks, derivatives."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/soft.npz")
RUNS = [key.removesuffix("/y").split("/")[1:] for key in GOLDEN.files if key.startswith("newton")]
RUNS = [run for run in RUNS if len(run) == 3]
X = ("x", "cotangent")
RNG = np.random.default_rng(0)
Q, V = RNG.normal(size=(2, 2, 16, 3, 4)).astype(np.float32)
LANDMARKS = Q.reshape(2, 4, 4, 3, 4).mean(2)


def tolerance(case, bits, is_gradient):
  """What the public code in float32 and float64 agrees to.

  Of condition 401, the rank-1 kernel has inverses right to 401 eps, that is 5e-5, in float32. A
  gradient holds two of them, ours and theirs.
  """
  ill, rank_one = case == "gauss_ill", case == "all_ones_rank1"
  if bits == "f32":
    return (2e-2 if is_gradient else 1e-3) if ill else 2e-4 if rank_one and is_gradient else 1e-4
  return (1e-5 if is_gradient else 1e-8) if ill or rank_one else 1e-9


@partial(jax.jit, static_argnums=0)
def value_and_pullback(f, cotangent, *arguments):
  y, pull = jax.vjp(f, *arguments)
  return y, *pull(cotangent)


def assert_close(ours, theirs, loose):
  np.testing.assert_array_less(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)), loose)


@pytest.mark.parametrize(("steps", "case", "bits"), RUNS)
def test_newton_inverse_of_the_public_code(steps, case, bits):
  with jax.enable_x64(bits == "f64"):
    x, cotangent = (jnp.asarray(GOLDEN[f"{k}/{case}"], f"float{bits[1:]}") for k in X)
    inverse = partial(ops.newton_inverse, num_iterations=int(steps.removeprefix("iter")))
    y, gradient = value_and_pullback(inverse, cotangent, x)
    theirs = f"newton_inverse/{steps}/{case}/{bits}"
    assert_close(y, GOLDEN[f"{theirs}/y"], tolerance(case, bits, False))
    assert_close(gradient, GOLDEN[f"{theirs}/grad_x"], tolerance(case, bits, True))


def published_landmarks(query):
  """A 2 x 2 convolution over the 4 x 4 tokens, layer norm, GELU."""

  def get(name):
    return jnp.asarray(GOLDEN[f"attention_conv0/param_{name}"], query.dtype)

  batch, _, heads, width = query.shape
  grid = query.swapaxes(1, 2).reshape(batch * heads, 4, 4, width)
  patches = grid.reshape(-1, 2, 2, 2, 2, width).transpose(0, 1, 3, 5, 2, 4)
  y = jnp.einsum("nijchw,ochw->nijo", patches, get("Qlandmark_op.weight"))
  y = y - y.mean(-1, keepdims=True)
  y = y / jnp.sqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-5)
  scale, shift = (get(f"Qnorm_act.0.{k}")[None, None, None] for k in ("weight", "bias"))
  return jax.nn.gelu(y * scale + shift, approximate=False).reshape(batch, heads, 4, width)


def published_normalized(kernel):
  """One start for the whole batch, halved seven times until the iteration is safe on this data."""
  start = 2 / kernel.sum(-1).max() ** 2 / 2**7
  return ops.normalized_newton_inverse(kernel, start=start)


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize(
  ("name", "inverse"), [("soft", ops.newton_inverse), ("soft_norm", published_normalized)]
)
def test_attention_of_the_public_code(name, inverse, bits):
  with jax.enable_x64(bits == "f64"):

    def get(key):
      return jnp.asarray(GOLDEN[f"attention/{key}"], f"float{bits[1:]}").swapaxes(1, 2)

    def attend(query, value):
      query = query / 4**0.25
      landmarks = published_landmarks(query).swapaxes(1, 2)
      return ops.softmax_free_attention(query, landmarks, value, scale=1, inverse=inverse)

    results = value_and_pullback(attend, get("cotangent"), get("x_Q"), get("x_V"))
    for key, ours in zip(("y", "grad_Q", "grad_V"), results, strict=True):
      theirs = GOLDEN[f"attention_conv0/{name}/{bits}/{key}"].swapaxes(1, 2)
      assert_close(ours, theirs, 1e-4 if bits == "f32" else 1e-9)


def test_all_tokens_as_landmarks_give_the_dense_kernel():
  """Of full rank, K inverse(K) K V is K V; scale is 1 / sqrt(H) = 1 / 2."""
  out = ops.softmax_free_attention(Q, Q, V, inverse=jnp.linalg.inv)
  squares = ((Q[:, :, None] - Q[:, None]) ** 2).sum(-1)
  dense = np.einsum("btsn,bsnd->btnd", np.exp(-squares / 4), V)
  np.testing.assert_allclose(out, dense, atol=2e-3)


def test_examples_do_not_depend_on_each_other():
  for inverse in (ops.newton_inverse, ops.normalized_newton_inverse):
    attend = jax.jit(partial(ops.softmax_free_attention, inverse=inverse))
    alone = [attend(*one) for one in zip(Q, LANDMARKS, V, strict=True)]
    np.testing.assert_allclose(attend(Q, LANDMARKS, V), alone, atol=1e-4)
    np.testing.assert_allclose(jax.vmap(attend)(Q, LANDMARKS, V), alone, atol=1e-4)


def test_masked_tokens_give_zeros_and_reach_nothing():
  where = np.arange(16) < np.array([16, 11])[:, None]
  hole = np.where(where[..., None, None], 0, np.nan).astype(np.float32)

  def loss(q, landmarks, v):
    out = ops.softmax_free_attention(q, landmarks, v, where=where)
    return jnp.sum(jnp.sin(out)), out

  grad = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
  (_, out), grads = grad(Q + hole, LANDMARKS, V + hole)
  short = ops.softmax_free_attention(Q[1:, :11], LANDMARKS[1:], V[1:, :11])
  np.testing.assert_allclose(out[1:, :11], short, atol=1e-4)
  assert (out[1, 11:] == 0).all()
  assert (grads[0][1, 11:] == 0).all() and (grads[2][1, 11:] == 0).all()
  assert all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.slow
def test_dtype_shape_and_other_leading_axes(dtype):
  q, l, v = (jnp.asarray(x, dtype) for x in (Q, LANDMARKS, V[..., :2]))
  attend = jax.jit(ops.softmax_free_attention)
  out = attend(q, l, v)
  assert out.dtype == dtype and out.shape == (2, 16, 3, 2)
  loose = 1e-4 if dtype == jnp.float32 else 2e-2
  for nested, part in (
    (attend(q[None], l[None], v[None])[0], out),
    (attend(q[0], l[0], v[0]), out[0]),
  ):
    assert nested.dtype == dtype
    np.testing.assert_allclose(nested.astype(float), part.astype(float), atol=loose)
  assert ops.newton_inverse(jnp.eye(3, dtype=dtype)).dtype == dtype


@pytest.mark.slow
def test_gradients_in_both_modes():
  with jax.enable_x64(True):
    q, l, v = (jnp.asarray(x[0, :, :1], jnp.float64) for x in (Q, LANDMARKS, V))
    for inverse, steps in ((ops.newton_inverse, 40), (ops.normalized_newton_inverse, 3)):
      inverse = partial(inverse, num_iterations=steps)  # the implicit rule holds where it converged
      attend = jax.jit(partial(ops.softmax_free_attention, inverse=inverse))
      check_grads(attend, (q, l, v), order=1, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_derivatives_are_those_of_an_inverse():
  with jax.enable_x64(True):
    kernel, tangent = (jnp.asarray(GOLDEN[f"{k}/gauss_well"]) for k in X)
    damping = 0.1 * jnp.broadcast_to(jnp.eye(6), kernel.shape)

    def first_and_second(inverse):
      slope = jax.grad(lambda x: (inverse(x) ** 2).sum())
      return jax.jit(lambda x: jax.jvp(lambda x: (inverse(x), slope(x)), (x,), (tangent,)))(kernel)

    ours = first_and_second(partial(ops.newton_inverse, num_iterations=50, damping=0.1))
    exact = first_and_second(lambda x: jnp.linalg.inv(x + damping))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), ours, exact)
    slope = jax.grad(lambda d: ops.newton_inverse(jnp.eye(1), damping=d).sum())(0.25)
    np.testing.assert_allclose(slope, -1 / 1.25**2, rtol=1e-9)


def test_an_inverse_of_any_small_large_or_lopsided_matrix():
  a = RNG.normal(size=(5, 4, 4)).astype(np.float32)
  a = a + np.sign(np.linalg.det(a))[:, None, None] * 3 * np.eye(4, dtype=np.float32)
  for size in (1e-3, 1, 1e3):
    inverse = ops.newton_inverse(size * a, num_iterations=40, damping=0)
    np.testing.assert_allclose(inverse * size, np.linalg.inv(a), atol=1e-4)
  np.testing.assert_allclose(ops.newton_inverse(np.zeros((3, 3))), 100 * np.eye(3), rtol=1e-5)
  assert (ops.newton_inverse(np.zeros((3, 3)), damping=0) == 0).all()


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: ops.newton_inverse(np.eye(3), num_iterations=-1), "num_iterations = -1 must not be"),
    (lambda: ops.softmax_free_attention(Q[0, 0], LANDMARKS, V), r"query of shape \(3, 4\) needs"),
    (lambda: ops.softmax_free_attention(Q, LANDMARKS[0], V), r"landmarks of shape \(4, 3, 4\) do"),
    (lambda: ops.softmax_free_attention(Q, LANDMARKS[..., :2], V), "all axes but the length"),
    (lambda: ops.softmax_free_attention(Q, LANDMARKS, V[:, :9]), r"value of shape \(2, 9, 3, 4\)"),
    (
      lambda: ops.softmax_free_attention(Q, LANDMARKS, V, where=np.ones(9, bool)),
      r"where of shape \(9,\) does not broadcast to \(2, 16\)",
    ),
  ],
)
def test_failures(call, message):
  with pytest.raises(ValueError, match=message):
    call()
