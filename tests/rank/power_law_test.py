"""Tests of the power law of a spectrum: published fits, exact laws, zeros, ranges."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import rank

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/rank.npz")


@pytest.mark.parametrize(
  ("key", "start", "stop"),
  [("range10_100", 11, 100), ("range0_50", 1, 50), ("range3_150", 4, 150)],
)
@pytest.mark.parametrize("bits", [32, 64])
def test_golden(key, start, stop, bits):
  with jax.enable_x64(bits == 64):
    sigma = jnp.asarray(np.sqrt(GOLDEN["alpha_req/eigenspectrum"]), f"float{bits}")
    ours = float(rank.alpha_req(sigma, start=start, stop=stop))
    expected = float(GOLDEN[f"alpha_req/stringer_{key}/alpha"])
    assert ours == pytest.approx(expected, rel=1e-8 if bits == 64 else 1e-4)


@pytest.mark.parametrize("bits", [32, 64])
def test_golden_activations(bits):
  with jax.enable_x64(bits == 64):
    x = jnp.asarray(GOLDEN["alpha_req/activations/x"], f"float{bits}")
    ours = float(rank.alpha_req(rank.singular_values(x, center=True)))
    expected = float(GOLDEN[f"alpha_req/activations/alpha_reptrix_f{bits}"])
    assert ours == pytest.approx(expected, rel=1e-8 if bits == 64 else 1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_an_exact_power_law(alpha):
  sigma = 7 * np.arange(1.0, 200) ** (-alpha / 2)
  fit = rank.power_law(sigma)
  np.testing.assert_allclose(fit, [alpha, 2 * np.log(7), 1], rtol=1e-5)
  # Ranks outside the range have no say.
  sigma[:10] *= 5
  np.testing.assert_allclose(rank.alpha_req(sigma), alpha, rtol=1e-5)


def test_the_weighted_r_squared_against_polyfit():
  log_i = np.log(np.arange(3, 41))
  log_lambda = -1.3 * log_i + np.random.default_rng(0).normal(size=38)
  sigma = np.concatenate([[1e3, 1e3], np.sqrt(np.sort(np.exp(log_lambda))[::-1])])
  y = 2 * np.log(sigma[2:])
  slope, intercept = np.polyfit(log_i, y, 1, w=np.exp(-log_i / 2))
  weights = np.exp(-log_i)
  residual = weights @ (y - slope * log_i - intercept) ** 2
  total = weights @ (y - np.average(y, weights=weights)) ** 2
  fit = rank.power_law(sigma, start=3, stop=40)
  np.testing.assert_allclose(fit, [-slope, intercept, 1 - residual / total], rtol=1e-4)


def test_short_spectra_zeros_and_non_finite_values():
  law = np.arange(1.0, 41) ** -0.5
  assert rank.alpha_req(law) == pytest.approx(1, rel=1e-4)  # ranks 11 to 40
  assert rank.alpha_req(np.pad(law, (0, 100))) == pytest.approx(1, rel=1e-4)
  for spectrum in (law[:11], law[:5], np.zeros(50), np.append(law, np.nan), np.append(law, np.inf)):
    assert np.isnan(rank.alpha_req(spectrum))


def test_batches_and_derivatives():
  sigma = np.arange(1.0, 51) ** np.array([[-0.5], [-1.0]])
  np.testing.assert_allclose(rank.alpha_req(sigma), [1, 2], rtol=1e-4)
  np.testing.assert_allclose(jax.jit(jax.vmap(rank.alpha_req))(sigma), [1, 2], rtol=1e-4)
  padded = jnp.asarray(np.pad(sigma[0], (0, 9)), jnp.float32)
  gradient = jax.grad(rank.alpha_req)(padded)
  assert (gradient[10:50] != 0).all() and (gradient[50:] == 0).all() and (gradient[:10] == 0).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5, 5), (9, 3)])
def test_ranges(start, stop):
  with pytest.raises(ValueError, match=f"start = {start} and stop = {stop} are ranks"):
    rank.alpha_req(np.ones(20), start=start, stop=stop)
