"""Tests of alignment, gain and growth: closed forms, deficient matrices, the identity."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from rankbias import rank

METHODS = ["gram", "qr", "svd"]
RNG = np.random.default_rng(0)


def orthogonal(d, seed=0):
  return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def with_directions(right, values, rows, seed=0):
  """Returns a matrix [rows, d] with these right singular vectors [d, r] and singular values."""
  left = orthogonal(rows, seed + 1)[:, : len(values)]
  return ((left * values) @ right.T).astype(np.float32)


def numpy_alignment(kernel, x, k):
  """The definition, in float64: the mean squared cosine of the principal angles."""
  v, q = (np.linalg.svd(np.float64(m))[2][:k].T for m in (kernel.T, x))
  return np.mean(np.cos(scipy.linalg.subspace_angles(v, q)) ** 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(30, 7, 5), (4, 5, 9)])
def test_as_in_numpy(shape, method):
  n, d, m = shape
  kernel, x = (RNG.normal(size=s).astype(np.float32) for s in ((d, m), (n, d)))
  for k in (2, min(shape)):
    found = rank.alignment(kernel, x, k=k, method=method)
    assert float(found) == pytest.approx(numpy_alignment(kernel, x, k), abs=2e-6)
  norms = [np.linalg.norm(np.float64(a), 2) for a in (x @ kernel, kernel, x)]
  expected = norms[0] / (norms[1] * norms[2])
  assert float(rank.gain(kernel, x, method=method)) == pytest.approx(expected, rel=2e-6)


def test_known_angles():
  # Two planes that share a line and are turned by an angle around it.
  angle = 0.3
  basis = orthogonal(6)
  turned = np.stack([basis[:, 0], np.cos(angle) * basis[:, 1] + np.sin(angle) * basis[:, 2]], 1)
  kernel = with_directions(basis[:, :2], [5.0, 4.0], 8).T
  x = with_directions(turned, [9.0, 1.0], 20)
  assert rank.alignment(kernel, x, k=1) == pytest.approx(1, abs=1e-6)
  expected = (1 + np.cos(angle) ** 2) / 2
  assert rank.alignment(kernel, x, k=2) == pytest.approx(expected, abs=1e-6)
  assert rank.gain(kernel, x) == pytest.approx(1, abs=1e-6)  # the top directions match
  apart = with_directions(basis[:, 3:5], [9.0, 1.0], 20)
  assert rank.alignment(kernel, apart, k=2) == pytest.approx(0, abs=1e-10)
  assert rank.gain(kernel, apart) < 1e-6


def test_order_and_scale_within_the_subspaces_do_not_matter():
  basis = orthogonal(9)
  kernel = with_directions(basis[:, [0, 1, 2, 5]], [9.0, 8.0, 7.0, 1.0], 9).T
  mixed = basis[:, :3] @ orthogonal(3, 7)
  x = with_directions(np.concatenate([mixed, basis[:, 6:7]], 1), [1e3, 1e2, 10.0, 1.0], 40)
  assert rank.alignment(kernel, x, k=3) == pytest.approx(1, abs=1e-6)
  turn = orthogonal(9, 3).astype(np.float32)
  both = rank.alignment(turn @ kernel * 1e4, x @ turn.T * 1e-4, k=4)
  assert both == pytest.approx(float(rank.alignment(kernel, x, k=4)), abs=1e-5) == 0.75


def test_a_random_subspace_overlaps_by_its_share():
  draws = RNG.normal(size=(200, 40, 10)).astype(np.float32)
  kernel = np.diag(np.arange(10.0, 0, -1)).astype(np.float32)
  found = jax.jit(jax.vmap(partial(rank.alignment, k=3), (None, 0)))(kernel, draws)
  assert found.mean() == pytest.approx(0.3, abs=4 * float(found.std()) / np.sqrt(200))


@pytest.mark.parametrize("method", METHODS)
def test_directions_beyond_the_rank_count_as_orthogonal(method):
  basis = orthogonal(8)
  kernel = with_directions(basis[:, :2], [3.0, 2.0], 8).T  # of rank 2
  x = with_directions(basis, [9.0, 8, 7, 6, 5, 4, 3, 2], 30)
  traced = jax.jit(rank.alignment, static_argnames=("k", "method"))
  for k in (2, 8):
    assert traced(kernel, x, k=k, method=method) == pytest.approx(2 / k, abs=1e-6)
  assert rank.alignment(kernel, x, k=2, method=method) == pytest.approx(1, abs=1e-6)
  zeros = np.zeros((8, 8), np.float32)
  assert traced(zeros, x, k=3, method=method) == 0
  assert traced(kernel, zeros, k=3, method=method) == 0
  assert np.isnan(rank.gain(zeros, x, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_k_above_the_rank_is_named_where_the_rank_is_known(method):
  basis = orthogonal(8)
  deficient = with_directions(basis[:, :2], [3.0, 2.0], 8)
  full = with_directions(basis, [9.0, 8, 7, 6, 5, 4, 3, 2], 30)
  message = r"k = 3: the kernel has numerical rank 2 and the activations have 8; .*1 <= k <= 2, or"
  with pytest.raises(ValueError, match=message):
    rank.alignment(deficient.T, full, k=3, method=method)
  with pytest.raises(ValueError, match="numerical rank 8 and the activations have 2; "):
    rank.alignment(full.T, deficient, k=8, method=method)
  with pytest.raises(ValueError, match="no k for a matrix of zeros, or call it under jax.jit"):
    rank.alignment(np.zeros((8, 8), np.float32), full, k=1, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_nan_and_not_a_number(method):
  x = RNG.normal(size=(6, 4)).astype(np.float32)
  broken = x[:4].copy()
  broken[1, 2] = np.nan
  assert np.isnan(rank.alignment(broken, x, k=2, method=method))
  assert np.isnan(rank.gain(broken, x, method=method))


def chain(dtype, n=30, widths=(12, 20, 16, 7)):
  """Kernels, inputs and the output of a ReLU network with a linear head."""
  rng = np.random.default_rng(1)
  h, kernels, inputs = rng.normal(size=(n, widths[0])).astype(dtype), [], []
  for i, (d, m) in enumerate(pairwise(widths), 1):
    kernels.append(rng.normal(size=(d, m)).astype(dtype))
    inputs.append(h)
    h = h @ kernels[-1]
    h = h if i == len(widths) - 1 else np.maximum(h, 0)
  return kernels, inputs, h


@pytest.mark.parametrize(("bits", "tolerance"), [(32, 3e-6), (64, 1e-13)])
def test_the_parts_of_all_layers_add_up_to_the_growth_of_the_top_singular_value(bits, tolerance):
  with jax.enable_x64(bits == 64):
    kernels, inputs, output = chain(f"float{bits}")
    parts = jax.jit(rank.growth)(kernels, inputs, output)
    whole = np.log(np.linalg.norm(output, 2) / np.linalg.norm(inputs[0], 2))
    assert float(sum(part.sum() for part in parts)) == pytest.approx(whole, abs=tolerance)
    for i, (kernel, x) in enumerate(zip(kernels, inputs, strict=True)):
      assert parts.weights[i] == pytest.approx(np.log(np.linalg.norm(kernel, 2)), abs=tolerance)
      assert parts.gain[i] == pytest.approx(np.log(float(rank.gain(kernel, x))), abs=tolerance)
      after = [*inputs, output][i + 1]
      factor = np.linalg.norm(after, 2) / np.linalg.norm(x @ kernel, 2)
      assert parts.nonlinearity[i] == pytest.approx(np.log(factor), abs=tolerance)
    assert (parts.gain < 0).all() and parts.nonlinearity[-1] == pytest.approx(0, abs=tolerance)
    assert (parts.nonlinearity[:-1] < -0.01).all()  # a ReLU takes from the largest norm


def test_aligned_layers_multiply_their_norms():
  """Deep linear rank-1 layers in line: every gain is 1 and the growth is that of the weights."""
  basis = orthogonal(6).astype(np.float32)
  kernels = [2.0 * np.outer(basis[i], basis[i + 1]) for i in range(3)]
  inputs = [np.outer(np.ones(5, np.float32), basis[0]) * 2.0**i for i in range(3)]
  inputs = [inputs[0], inputs[0] @ kernels[0], inputs[0] @ kernels[0] @ kernels[1]]
  parts = rank.growth(kernels, inputs, inputs[2] @ kernels[2])
  np.testing.assert_allclose(parts.weights, np.log(2), rtol=1e-6)
  np.testing.assert_allclose([*parts.gain, *parts.nonlinearity], 0, atol=1e-6)


def test_jitted_mapped_and_in_half_precision():
  kernels, xs = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((3, 6, 5), (3, 20, 6)))

  def measure(kernel, x):
    return rank.alignment(kernel, x, k=2), rank.gain(kernel, x)

  together = jax.jit(jax.vmap(measure))(kernels, xs)
  for i in range(3):
    alone = measure(kernels[i], xs[i])
    np.testing.assert_allclose([t[i] for t in together], alone, rtol=1e-5)
  half = measure(kernels[0].astype(jnp.bfloat16), xs[0].astype(jnp.bfloat16))
  assert half[0].dtype == jnp.float32
  np.testing.assert_allclose(half, [t[0] for t in together], atol=0.05)


def test_derivatives():
  with jax.enable_x64(True):
    kernel, x = jnp.asarray(RNG.normal(size=(4, 3))), jnp.asarray(RNG.normal(size=(9, 4)))
    check_grads(jax.jit(rank.gain), (kernel, x), order=1, modes="rev", atol=1e-6, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="derivative of singular vectors"):
      jax.grad(lambda w: rank.alignment(w, x, k=2))(kernel)


def test_failures():
  kernel, x = np.ones((6, 4), np.float32), np.ones((5, 6), np.float32)
  for k in (0, 5):
    with pytest.raises(ValueError, match=rf"k = {k}: .* \(6, 4\) .* \(5, 6\) .* 1 <= k <= 4"):
      rank.alignment(kernel, x, k=k)
  with pytest.raises(ValueError, match=r"kernel \(4, 6\) and activations \(5, 6\): .* \[d, m\]"):
    rank.growth([kernel.T], [x], x)
  with pytest.raises(ValueError, match="2 kernels and 1 inputs: give one input"):
    rank.growth([kernel, kernel], [x], x)
