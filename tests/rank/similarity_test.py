"""Tests of centred kernel alignment: the authors' values, invariances, the two forms, edges."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import rank

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/cka.npz")
CASES = ["notebook_100x10", "wide_12x30_12x20", "rotated_scaled", "independent"]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case, bits, debiased):
  end = "_debiased" if debiased else ""
  loose = 1e-5 if bits == "f32" else 1e-10
  with jax.enable_x64(bits == "f64"):
    x, y = (jnp.asarray(GOLDEN[f"{case}/{name}"], f"float{bits[1:]}") for name in "xy")
    expected = GOLDEN[f"{case}/{bits}/linear_gram{end}"]
    np.testing.assert_allclose(rank.linear_cka(x, y, debiased=debiased), expected, loose, loose)
    for threshold in ("0.2", "0.5", "1"):
      ours = rank.rbf_cka(x, y, threshold=float(threshold), debiased=debiased)
      theirs = GOLDEN[f"{case}/{bits}/rbf_threshold{threshold}{end}"]
      np.testing.assert_allclose(ours, theirs, loose, loose)


@pytest.mark.parametrize("debiased", [False, True])
def test_feature_form_and_gram_form_agree(debiased):
  x, y = RNG.normal(size=(20, 5)), RNG.normal(size=(20, 19))
  y[:, :5] += x
  zeros = np.zeros((20, 8))  # columns of zeros change nothing but the form
  features = rank.linear_cka(x, y, debiased=debiased)
  gram = rank.linear_cka(np.hstack([x, zeros, zeros]), y, debiased=debiased)
  np.testing.assert_allclose(gram, features, atol=1e-6)


def test_memory_of_the_feature_form_is_the_square_of_the_width():
  x = jax.ShapeDtypeStruct((20_000, 16), jnp.float32)
  compiled = jax.jit(rank.linear_cka).lower(x, x).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 20 * 20_000 * 16 * 4


@pytest.mark.parametrize("scale", [1e-12, 1, 1e12])
@pytest.mark.parametrize("cka", [rank.linear_cka, rank.rbf_cka])
@pytest.mark.parametrize("debiased", [False, True])
def test_rotation_scale_and_shift_do_not_matter(debiased, cka, scale):
  x, y = RNG.normal(size=(2, 15, 6))
  rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
  moved = (scale * (x @ rotation + 3)).astype(np.float32)
  np.testing.assert_allclose(cka(moved, x, debiased=debiased), 1, atol=1e-4)
  before, after = cka(x, y, debiased=debiased), cka(moved, y, debiased=debiased)
  np.testing.assert_allclose(after, before, atol=1e-4)
  np.testing.assert_allclose(cka(y, x, debiased=debiased), before, atol=1e-5)


def test_debiasing_is_about_zero_for_independent_representations():
  pairs = RNG.normal(size=(40, 2, 20, 30))
  biased = [rank.linear_cka(*pair) for pair in pairs]
  debiased = [rank.linear_cka(*pair, debiased=True) for pair in pairs]
  assert np.mean(biased) > 0.5 and abs(np.mean(debiased)) < 0.03


def test_transformations():
  x, y = RNG.normal(size=(2, 3, 9, 4)).astype(np.float32)
  for cka in (rank.linear_cka, rank.rbf_cka):
    whole = jax.jit(jax.vmap(cka))(x, y)
    np.testing.assert_allclose(whole, [cka(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-5)
    gradient = jax.grad(cka)(x[0], y[0])
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0
    assert cka(jnp.asarray(x[0], jnp.bfloat16), y[0]).dtype == jnp.float32


def test_a_constant_representation_is_like_nothing():
  constant = np.ones((6, 3))
  assert np.isnan(rank.linear_cka(constant, RNG.normal(size=(6, 3))))
  assert np.isnan(rank.rbf_cka(constant, RNG.normal(size=(6, 3))))


@pytest.mark.parametrize("cka", [rank.linear_cka, rank.rbf_cka])
def test_failures(cka):
  with pytest.raises(ValueError, match="x has 5 rows and y 4"):
    cka(np.ones((5, 2)), np.ones((4, 2)))
  with pytest.raises(ValueError, match="debiased = True needs 4 rows or more, not 3"):
    cka(np.ones((3, 2)), np.ones((3, 2)), debiased=True)
