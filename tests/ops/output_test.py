"""Tests of the DFT head: the authors' values and gradients, its matrix, its promise."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/sigmoid_bottleneck.npz")
CASES = {
  "N13_k5_slack0": (13, 5),
  "N20_k2_slack0": (20, 2),
  "N20_k2_slack3": (20, 2),
  "N33_k4_slack5": (33, 4),
}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case, bits):
  labels, k = CASES[case]
  loose = 1e-5 if bits == "f32" else 1e-9
  with jax.enable_x64(bits == "f64"):

    def read(name):
      return jnp.asarray(GOLDEN[f"dft_layer/{case}/{name}"], f"float{bits[1:]}")

    slack = None if case.endswith("slack0") else read("param_Ws.weight").T

    def layer(x, weight, bias):
      return ops.dft_logits(x @ weight.T + bias[None, :], labels, slack_kernel=slack)

    y, pull = jax.vjp(layer, read("x"), read("param_proj.weight"), read("param_proj.bias"))
    names = ["y", "grad_x", "grad_proj_weight", "grad_proj_bias"]
    for ours, name in zip([y, *pull(read("cotangent"))], names, strict=True):
      expected = GOLDEN[f"dft_layer/{case}/{bits}/{name}"]
      np.testing.assert_allclose(ours, expected, rtol=loose, atol=loose)
  np.testing.assert_allclose(
    ops.dft_bias(k, labels)[0], GOLDEN[f"dft_layer/{case}/init_bias0"], rtol=1e-6
  )
  if slack is None:
    kernel = ops.dft_kernel(k, labels)
    np.testing.assert_allclose(kernel.T, GOLDEN[f"dft_layer/{case}/W_float32"], atol=1e-7)


@pytest.mark.parametrize(("k", "labels"), [(0, 1), (0, 4), (1, 3), (2, 5), (2, 6), (3, 50)])
def test_the_fft_is_the_matrix_and_its_rows_are_orthonormal(k, labels):
  with jax.enable_x64(True):
    kernel = ops.dft_kernel(k, labels, jnp.float64)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(2 * k + 1), atol=1e-14)
    x = RNG.normal(size=(2, 3, 2 * k + 1))
    np.testing.assert_allclose(ops.dft_logits(x, labels), x @ np.asarray(kernel), atol=1e-13)
    slack = RNG.normal(size=(4, labels))
    wide = RNG.normal(size=(3, 2 * k + 5))
    expected = wide @ np.vstack([kernel, slack])
    ours = ops.dft_logits(wide, labels, slack_kernel=slack)
    np.testing.assert_allclose(ours, expected, atol=1e-13)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_set_of_at_most_k_labels_is_reachable(data):
  k = data.draw(st.integers(1, 4))
  n = data.draw(st.integers(2 * k + 1, 24))
  positives = data.draw(st.sets(st.integers(0, n - 1), max_size=k))
  # 1 - cos(t - t_j) touches zero at one label; a product of k of them at k labels, degree k.
  t = 2 * np.pi * np.arange(n) / n
  product = np.prod([1 - np.cos(t - t[j]) for j in positives], axis=0) * np.ones(n)
  negatives = np.setdiff1d(np.arange(n), list(positives))
  logits = product[negatives].min() / 2 - product
  with jax.enable_x64(True):
    inputs = np.asarray(ops.dft_kernel(k, n, jnp.float64)) @ logits  # orthonormal: its own inverse
    reached = np.asarray(ops.dft_logits(inputs, n))
  np.testing.assert_allclose(reached, logits, atol=1e-10)
  assert set(np.flatnonzero(reached > 0)) == positives


def test_initial_probability_of_every_label_is_k_over_n():
  probability = jax.nn.sigmoid(ops.dft_logits(ops.dft_bias(3, 40), 40))
  np.testing.assert_allclose(probability, 3 / 40, rtol=1e-5)


def test_many_labels_keep_their_digits():
  labels, k = 200_001, 7
  x = RNG.normal(size=2 * k + 1).astype(np.float32)
  expected = x.astype(np.float64) @ np.asarray(ops.dft_kernel(k, labels), np.float64)
  np.testing.assert_allclose(ops.dft_logits(x, labels), expected, atol=2e-8)


def test_transformations_and_dtypes():
  x = RNG.normal(size=(2, 3, 5)).astype(np.float32)
  whole = ops.dft_logits(x, 9)
  np.testing.assert_allclose(jax.jit(jax.vmap(lambda x: ops.dft_logits(x, 9)))(x), whole, atol=1e-6)
  half = ops.dft_logits(jnp.asarray(x, jnp.bfloat16), 9)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), whole, atol=0.05)
  assert ops.dft_logits(np.ones(3, int), 4).dtype == jnp.float32


@pytest.mark.parametrize("size", [4, 0, 11])
def test_wrong_numbers_of_inputs(size):
  with pytest.raises(ValueError, match=f"{size} inputs for num_labels = 9.*odd number 2k . 1"):
    ops.dft_logits(jnp.ones(size), 9)


def test_other_failures():
  with pytest.raises(ValueError, match="11 inputs for num_labels = 9"):
    ops.dft_kernel(5, 9)
  with pytest.raises(ValueError, match="k = 0 must be at least 1"):
    ops.dft_bias(0, 9)
