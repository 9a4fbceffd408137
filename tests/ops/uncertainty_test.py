"""Uncertainty of sampled predictions: values of others, bounds, zeros, masks and gradients."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.stats import entropy as scipy_entropy

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "uncertainty.npz")
MEASURES = {
  "predictive_entropy": ops.predictive_entropy,
  "expected_entropy": ops.expected_entropy,
  "mutual_information": ops.mutual_information,
  "variation_ratio": ops.variation_ratio,
}
ENTROPIES = [name for name in MEASURES if name != "variation_ratio"]
BATCHBALD = {
  "predictive_entropy": "entropy",
  "expected_entropy": "conditional_entropy",
  "mutual_information": "bald",
}


def draws(samples=7, batch=5, classes=4, spread=1.0, seed=0):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(1, batch, classes)) + spread * rng.normal(size=(samples, batch, classes))
  return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def golden(case):
  """Probabilities [samples, batch, classes]; they are stored as [batch, samples, classes]."""
  return GOLDEN[f"{case}/probs_B_T_C"].swapaxes(0, 1)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
class TestGolden:
  @pytest.mark.parametrize("case", ["logits8", "exact_onehot"])
  @pytest.mark.parametrize("name", ENTROPIES)
  def test_entropies_are_those_of_torch_uncertainty(self, dtype, case, name):
    with jax.enable_x64(dtype == "f64"):
      found = MEASURES[name](golden(case).astype(f"float{dtype[1:]}"))
      assert found.dtype == f"float{dtype[1:]}"
    expected = GOLDEN[f"{case}/torch_uncertainty/{dtype}/{name}"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

  @pytest.mark.parametrize("name", ENTROPIES)
  def test_entropies_are_those_of_batchbald(self, dtype, name):
    with jax.enable_x64(dtype == "f64"):
      found = MEASURES[name](golden("logits8").astype(f"float{dtype[1:]}"))
    expected = GOLDEN[f"logits8/batchbald_redux/{dtype}/{BATCHBALD[name]}"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

  def test_both_variation_ratios(self, dtype):
    """The two definitions differ on two rows."""
    p = golden("logits8").astype(f"float{dtype[1:]}")
    expected = GOLDEN["logits8/scipy/variation_ratio_mode"]
    other = GOLDEN[f"logits8/torch_uncertainty/{dtype}/variation_ratio_votes_for_argmax_of_mean"]
    np.testing.assert_allclose(ops.variation_ratio(p), expected, atol=1e-6)
    np.testing.assert_allclose(ops.variation_ratio(p, of_mean=True), other, atol=1e-6)
    assert np.sum(~np.isclose(expected, other)) == 2


def test_every_measure_is_found_by_its_name():
  assert ops.UNCERTAINTIES == MEASURES


def test_entropies_are_those_of_scipy():
  p = draws()
  np.testing.assert_allclose(
    ops.predictive_entropy(p), scipy_entropy(p.mean(0), axis=-1), rtol=1e-6
  )
  np.testing.assert_allclose(ops.expected_entropy(p), scipy_entropy(p, axis=-1).mean(0), rtol=1e-6)


def test_the_whole_is_noise_plus_disagreement_and_each_lies_within_its_bounds():
  p = draws(samples=3, batch=200, spread=4.0)
  total, noise, disagreement = (MEASURES[name](p) for name in ENTROPIES)
  np.testing.assert_allclose(total, noise + disagreement, rtol=1e-5, atol=1e-6)
  assert (disagreement >= 0).all() and (disagreement <= np.log(3)).all()
  assert (total <= np.log(4) + 1e-6).all()
  mode, mean = ops.variation_ratio(p), ops.variation_ratio(p, of_mean=True)
  assert (mode >= 0).all() and (mode <= 2 / 3 + 1e-6).all() and (mean >= mode).all()
  assert (mean > mode).any()


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_little_disagreement_is_measured_in_float32(spread):
  """About spread^2 / 4 nats: at 1e-4 far below the rounding of the entropies."""
  p = draws(samples=20, spread=spread)
  q = p.mean(0)
  exact = np.sum(p * np.log(p / q) - p + q, -1).mean(0)
  found = ops.mutual_information(p.astype(np.float32))
  np.testing.assert_allclose(found, exact, rtol=1e-3)
  difference = ops.predictive_entropy(p.astype("f4")) - ops.expected_entropy(p.astype("f4"))
  if spread == 1e-4:
    assert np.abs(difference / exact - 1).max() > 0.9


def test_samples_that_agree_have_no_information_to_give():
  p = np.broadcast_to(draws(samples=1, batch=512), (30, 512, 4)).astype(np.float32)
  np.testing.assert_allclose(ops.mutual_information(p), 0, atol=1e-12)
  np.testing.assert_array_equal(ops.variation_ratio(p), 0)
  assert (ops.mutual_information(p) >= 0).all()


def test_sure_and_contrary_against_unsure_and_agreed():
  contrary, agreed = np.eye(2).reshape(2, 1, 2), np.full((2, 1, 2), 0.5)
  np.testing.assert_allclose(ops.mutual_information(contrary), np.log(2), rtol=1e-6)
  np.testing.assert_array_equal(ops.expected_entropy(contrary), 0)
  np.testing.assert_array_equal(ops.mutual_information(agreed), 0)
  np.testing.assert_allclose(ops.expected_entropy(agreed), np.log(2), rtol=1e-6)


def test_lukewarm_samples_outvote_sure_ones():
  p = np.array([[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]])
  assert ops.variation_ratio(p) == pytest.approx(1 / 3)
  assert ops.variation_ratio(p, of_mean=True) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", sorted(MEASURES))
class TestContract:
  def test_any_batch_jit_and_vmap(self, name):
    p = draws(batch=6)
    expected = MEASURES[name](p)
    for shape in ((), (6,), (2, 3), (2, 1, 3)):
      q = p[:, 0] if shape == () else p.reshape(7, *shape, 4)
      assert MEASURES[name](q).shape == shape
      np.testing.assert_allclose(np.ravel(MEASURES[name](q)), expected[: np.prod(shape, dtype=int)])
    np.testing.assert_allclose(jax.jit(MEASURES[name])(p), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(MEASURES[name], 1)(p), expected, rtol=1e-6)

  @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
  def test_half_precision_is_summed_in_float32(self, name, dtype):
    """Over 3,000 samples a half precision sum would stop growing."""
    p = jnp.asarray(draws(samples=3000, batch=2), dtype)
    found = MEASURES[name](p)
    assert found.dtype == dtype
    expected = MEASURES[name](p.astype(jnp.float32))
    np.testing.assert_array_equal(found, expected.astype(dtype))

  def test_masked_classes_are_as_if_they_were_not_there(self, name):
    p = draws(classes=3)
    wide = np.concatenate([np.full((7, 5, 1), np.nan), p, np.full((7, 5, 1), 9.0)], -1)
    where = np.array([[False, True, True, True, False]])
    np.testing.assert_allclose(MEASURES[name](wide, where=where), MEASURES[name](p), rtol=1e-6)
    grads = jax.grad(lambda x: MEASURES[name](x, where=where).sum())(jnp.asarray(wide))
    inner = jax.grad(lambda x: MEASURES[name](x).sum())(jnp.asarray(p))
    np.testing.assert_array_equal(grads[..., [0, 4]], 0)
    np.testing.assert_allclose(grads[..., 1:4], inner, rtol=1e-5, atol=1e-7)
    nothing = MEASURES[name](wide, where=np.zeros((1, 5), bool))
    np.testing.assert_array_equal(nothing, 0)

  def test_nan_is_not_hidden(self, name):
    p = draws()
    p[3, 2, 1] = np.nan
    found = MEASURES[name](p)
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, False, False])

  def test_exact_zeros_give_finite_values_and_gradients(self, name):
    p = np.zeros((4, 2, 3))
    p[:, 0, 1] = 1
    p[[0, 1, 2, 3], 1, [0, 0, 2, 1]] = 1
    value, grads = jax.value_and_grad(lambda x: MEASURES[name](x).sum())(jnp.asarray(p))
    assert np.isfinite(value) and np.isfinite(grads).all()

  def test_no_samples_are_refused(self, name):
    with pytest.raises(ValueError, match=r"shape \(0, 5, 4\) hold no sample; axis 0 needs"):
      MEASURES[name](np.zeros((0, 5, 4)))


@pytest.mark.parametrize("name", ENTROPIES)
@pytest.mark.slow
def test_gradients_through_a_softmax_are_those_of_differences(name):
  with jax.enable_x64(True):
    z = jnp.asarray(np.random.default_rng(3).normal(size=(3, 2, 4)))

    def f(z):
      return MEASURES[name](ops.softmax(z)).sum()

    check_grads(f, (z,), order=2, modes=("fwd", "rev"), rtol=1e-6)


def test_gradients_through_an_underflowing_softmax_are_finite():
  z = jnp.array([[[0.0, -200.0, 3.0]], [[0.0, 5.0, -1e4]]])
  for name in ENTROPIES:
    grads = jax.grad(lambda z, name=name: MEASURES[name](ops.softmax(z)).sum())(z)
    assert np.isfinite(grads).all()


def test_the_variation_ratio_has_no_gradient():
  grads = jax.grad(lambda p: ops.variation_ratio(p).sum())(jnp.asarray(draws()))
  np.testing.assert_array_equal(grads, 0)
