"""The fitted temperature: SciPy's optimum, closed forms, data without one, jit and vmap."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from rankbias.evaluate.temperature_scaling import RANGE, fit_temperature

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/calibration.npz")


def loss_at(logits, labels, temperature):
  return -log_softmax(logits / temperature, axis=-1)[np.arange(len(labels)), labels].mean()


def drawn(seed, scale=1.0, n=300, classes=5):
  """Logits three times as sharp as the labels that were drawn from them."""
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(n, classes))
  labels = (z + rng.gumbel(size=z.shape)).argmax(-1)
  return 3 * scale * z, labels


def test_public_data_have_the_optimum_of_scipy():
  logits, labels = GOLDEN["data/logits"], GOLDEN["data/labels"]
  with jax.enable_x64(True):
    found = fit_temperature(logits, labels)
  expected = GOLDEN["temperature_scipy_optimum/temperature"]
  assert found.temperature == pytest.approx(expected, rel=1e-6)  # where SciPy stopped
  assert found.loss == pytest.approx(GOLDEN["temperature_scipy_optimum/nll"], rel=1e-12)
  assert found.converged
  single = fit_temperature(logits.astype("f4"), labels)
  assert single.temperature == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_it_is_a_minimum_whatever_the_unit_of_the_logits(scale):
  logits, labels = drawn(0, scale)
  with jax.enable_x64(True):
    found = jax.device_get(fit_temperature(logits, labels))
  best = minimize_scalar(
    lambda s: loss_at(logits, labels, np.exp(s)),
    bounds=np.log(scale) + np.array([-5.0, 5.0]),
    method="bounded",
    options={"xatol": 1e-12},
  )
  assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-6)
  assert found.loss <= best.fun + 1e-15
  p = np.exp(log_softmax(logits / found.temperature, axis=-1))
  own = logits[np.arange(len(labels)), labels]
  slope = (np.sum(p * logits, 1) - own).mean() / scale
  assert abs(slope) < 1e-13  # solved, and not only close
  assert found.temperature / scale == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("share", [0.51, 0.75, 0.9999])
def test_two_classes_and_one_logit_have_a_closed_form(share):
  """softmax([z, 0] / T) is right as often as it says at T = z / log(a / (1 - a))."""
  n = 10000
  logits = np.tile([40.0, 0.0], (n, 1)).astype("f4")
  labels = (np.arange(n) >= round(share * n)).astype(int)
  found = fit_temperature(logits, labels)
  assert found.temperature == pytest.approx(40 / np.log(share / (1 - share)), rel=1e-4)
  assert found.converged


@pytest.mark.parametrize("margin", [1e-3, 1.0, 50.0])
def test_all_right_wants_no_temperature_at_all(margin):
  """And so does a tie at the top, whose loss ends at log 2."""
  logits = np.array([[margin, 0, -7], [margin, 0, 0], [0, margin, -1]], np.float32)
  found = fit_temperature(logits, [0, 0, 1])
  assert not found.converged
  assert found.temperature == pytest.approx((margin + 7) / RANGE, rel=1e-5)
  tied = fit_temperature(np.array([[5, 5, 0], [9, 0, 0]], np.float32), [1, 0])
  assert not tied.converged
  assert tied.temperature == pytest.approx(9 / RANGE, rel=1e-5)
  assert tied.loss == pytest.approx(np.log(2) / 2)


def test_worse_than_chance_wants_an_infinite_temperature():
  logits = np.array([[3, 0, 0], [0, 2, 0]], np.float32)
  found = fit_temperature(logits, [1, 2])
  assert not found.converged
  assert found.temperature == pytest.approx(3 * RANGE, rel=1e-5)
  assert found.loss == pytest.approx(np.log(3), abs=1e-3)


def test_equal_logits_and_a_single_class_leave_it_at_one():
  for logits in (np.zeros((3, 4), "f4"), np.full((3, 4), 7.0, "f4"), np.ones((3, 1), "f4")):
    found = fit_temperature(logits, [0, 0, 0])
    assert found.temperature == 1
    assert not found.converged
    assert found.loss == pytest.approx(np.log(logits.shape[1]))


def test_a_class_that_does_not_exist_changes_nothing():
  logits, labels = drawn(1)
  wide = np.concatenate([logits, np.full((len(logits), 2), -np.inf)], 1)
  plain, masked = fit_temperature(logits, labels), fit_temperature(wide, labels)
  assert masked.temperature == pytest.approx(float(plain.temperature), rel=1e-6)
  assert masked.converged


def test_under_vmap_every_member_has_its_own():
  several = [drawn(seed) for seed in range(3)]
  right = several[0][0], several[0][0].argmax(-1)
  logits, labels = (np.stack(x) for x in zip(*several, right, strict=True))
  together = jax.jit(jax.vmap(fit_temperature))(logits.astype("f4"), labels)
  assert together.converged.tolist() == [True, True, True, False]
  for i in range(4):
    alone = fit_temperature(logits[i].astype("f4"), labels[i])
    assert together.temperature[i] == pytest.approx(float(alone.temperature), rel=1e-5)


def test_half_precision_is_computed_in_single():
  logits, labels = drawn(2)
  half = fit_temperature(jnp.asarray(logits, jnp.bfloat16), labels)
  assert half.temperature.dtype == jnp.float32
  single = fit_temperature(logits, labels)
  assert half.temperature == pytest.approx(float(single.temperature), rel=1e-2)


def test_mistakes_name_the_argument():
  with pytest.raises(ValueError, match=r"logits of shape \(3, 2\) and labels of shape \(2,\)"):
    fit_temperature(np.zeros((3, 2)), np.zeros(2, int))
  with pytest.raises(ValueError, match="at least one example"):
    fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
