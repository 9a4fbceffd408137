"""Tests of neural collapse: public implementations, a collapsed network, empty classes, padding."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import rank
from rankbias.rank import geometry

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/neural_collapse.npz")
CASES = ["generic", "imbalanced", "near_collapsed", "d_less_than_K"]
# Their names of our measures, their global mean, and whether their classifier has its bias.
PUBLIC = {
  "rhubarbwu": (
    {
      "nc1": "nc1_pinv",
      "nc1_trace_ratio": "nc1_quotient",
      "cdnv": "nc1_cdnv",
      "nc2": "nc2_etf_error",
      "nc3": "nc3_self_duality",
      "nc4": "nc4_agreement",
    },
    "classes",
    False,
  ),
  "tding1": (
    {
      "nc1": "nc1_collapse_metric",
      "nc2_kernel": "nc2_etf_of_W",
      "nc3": "nc3_WH",
      "mean_logits_norm": "nc4_Wh_b",
    },
    "samples",
    True,
  ),
}
RNG = np.random.default_rng(0)


def simplex(k, d):
  """Returns k unit vectors [k, d] of which all pairs have the same angle, d >= k."""
  centred = np.eye(k) - 1 / k
  rotation = np.linalg.qr(RNG.normal(size=(d, d)))[0][:k]
  return (centred * np.sqrt(k / (k - 1)) @ rotation).astype(np.float32)


@pytest.mark.parametrize("project", PUBLIC)
@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES)
def test_public_implementations(case, bits, project):
  names, global_mean, with_bias = PUBLIC[project]
  with jax.enable_x64(bits == "f64"):

    def read(key):
      return jnp.asarray(GOLDEN[f"{case}/{key}"], f"float{bits[1:]}")

    ours = rank.neural_collapse(
      read("features"),
      GOLDEN[f"{case}/labels"],
      num_classes=int(GOLDEN[f"{case}/num_classes"]),
      kernel=read("W").T,
      bias=read("bias") if with_bias else None,
      global_mean=global_mean,
    )
    for name, theirs in names.items():
      expected = float(GOLDEN[f"{case}/{project}/{bits}/{theirs}"])
      loose = 1e-4 if bits == "f32" else 1e-8
      assert float(getattr(ours, name)) == pytest.approx(expected, rel=loose, abs=loose * 1e-3)


@pytest.mark.parametrize("bits", ["f32", "f64"])
def test_class_statistics_golden(bits):
  case = "imbalanced"
  with jax.enable_x64(bits == "f64"):
    ours = rank.class_statistics(
      jnp.asarray(GOLDEN[f"{case}/features"], f"float{bits[1:]}"),
      GOLDEN[f"{case}/labels"],
      num_classes=5,
    )
    names = {"class_means": ours.means, "within_cov": ours.within, "var_norms": ours.variances}
    for name, value in names.items():
      expected = GOLDEN[f"{case}/rhubarbwu/{bits}/{name}"]
      np.testing.assert_allclose(value, expected, atol=1e-5 if bits == "f32" else 1e-12)


@pytest.mark.parametrize("global_mean", ["classes", "samples"])
def test_a_collapsed_network(global_mean):
  means = simplex(4, 7)
  labels = np.repeat(np.arange(4), 5)
  # The offset is exact in float32 and bigger than the simplex.
  features = np.float32(np.round(means * 64) / 64 + 8)[labels]
  ours = rank.neural_collapse(
    features, labels, num_classes=4, kernel=means.T, bias=-8 * means.sum(1), global_mean=global_mean
  )
  assert ours.nc1 == ours.nc1_trace_ratio == ours.cdnv == 0
  assert ours.nc2 < 0.05 and ours.nc2_kernel < 1e-6 and ours.nc3 < 0.05 and ours.nc4 == 1


def test_closed_form_of_two_classes():
  # Class means at -2 and 2 on the first axis, variances 1 within, on the second axis.
  features = np.array([[-2, -1], [-2, 1], [2, -1], [2, 1]], np.float32)
  ours = rank.neural_collapse(features, np.array([0, 0, 1, 1]), num_classes=2)
  # Sigma_W has nothing along the axis of the means: the pseudo-inverse sees no spread.
  np.testing.assert_allclose(ours[:4], [0, 1 / 4, 1 / 16, 0], atol=1e-6)
  assert ours.nc2_kernel is ours.nc3 is ours.nc4 is None
  turned = features[:, ::-1] + features  # spread now shares the axis of the means
  ours = rank.neural_collapse(turned, np.array([0, 0, 1, 1]), num_classes=2)
  sigma_b, sigma_w = np.full((2, 2), 4.0), np.full((2, 2), 1.0)
  expected = np.trace(np.linalg.pinv(sigma_b) @ sigma_w) / 2
  np.testing.assert_allclose(ours.nc1, expected, rtol=1e-5)


def test_a_large_offset_does_not_invert_rounding():
  features = RNG.normal(size=(60, 5)).astype(np.float32)
  labels = np.arange(60) % 3
  near = rank.neural_collapse(features, labels, num_classes=3)
  far = rank.neural_collapse(features + 1000, labels, num_classes=3)
  np.testing.assert_allclose(far[:4], near[:4], rtol=5e-3)


def test_classes_without_samples_are_left_out():
  features, kernel = RNG.normal(size=(40, 6)), RNG.normal(size=(6, 4))
  labels = RNG.integers(0, 4, 40)
  spread = np.array([0, 2, 3, 6])  # of seven classes, three are empty
  wide = np.zeros((6, 7))
  wide[:, spread] = kernel
  few = rank.neural_collapse(features, labels, num_classes=4, kernel=kernel)
  many = rank.neural_collapse(features, spread[labels], num_classes=7, kernel=wide)
  np.testing.assert_allclose(many[:6], few[:6], rtol=1e-4)
  one = rank.neural_collapse(features, np.zeros(40, int), num_classes=3, kernel=kernel[:, :3])
  assert np.isnan([one.nc1, one.cdnv, one.nc2, one.nc3]).all()


def test_padding_counts_nowhere():
  features, kernel = RNG.normal(size=(30, 4)), RNG.normal(size=(4, 3))
  labels = RNG.integers(0, 3, 30)
  padded = np.concatenate([features, np.full((5, 4), np.nan)])
  marks = np.concatenate([labels, [-1, -1, 3, 99, -7]])
  for global_mean in ("classes", "samples"):
    keywords = {"num_classes": 3, "kernel": kernel, "global_mean": global_mean}
    plain = rank.neural_collapse(features, labels, **keywords)
    np.testing.assert_allclose(rank.neural_collapse(padded, marks, **keywords), plain, rtol=1e-6)


def test_vmap_over_members_and_half_precision():
  features, kernel = RNG.normal(size=(2, 24, 5)).astype(np.float32), RNG.normal(size=(2, 5, 3))
  labels = np.arange(24) % 3

  def measure(x, w):
    return rank.neural_collapse(x, labels, num_classes=3, kernel=w)

  both = jax.jit(jax.vmap(measure))(features, kernel)
  for i in range(2):
    alone = measure(features[i], kernel[i])
    np.testing.assert_allclose([m[i] for m in both], alone, rtol=1e-5)
  half = measure(jnp.asarray(features[0], jnp.bfloat16), kernel[0])
  assert half.nc1.dtype == jnp.float32 and abs(half.nc1 / both.nc1[0] - 1) < 0.05


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_derivatives(shape):
  k, d = shape
  labels = np.arange(20) % k
  with jax.enable_x64(True):
    features = jnp.asarray(RNG.normal(size=(20, d)) + 2 * RNG.normal(size=(k, d))[labels])
    kernel = jnp.asarray(RNG.normal(size=(d, k)))

    def smooth(features, kernel):
      ours = rank.neural_collapse(features, labels, num_classes=k, kernel=kernel)
      return [ours.nc1, ours.nc1_trace_ratio, ours.cdnv, ours.nc2, ours.nc2_kernel, ours.nc3]

    check_grads(smooth, (features, kernel), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_ortho_dev_closed_forms():
  means = np.array([[3.0, 0, 0], [0, 1e-30, 0], [1e30, 1e30, 0]], np.float32)
  along = rank.ortho_dev(means, np.array([-7.0, 0, 0], np.float32))  # |cosines| 1, 0, 1 / sqrt 2
  assert float(along) == pytest.approx((1 + np.sqrt(0.5)) / 3, rel=1e-6)
  assert rank.ortho_dev(means, np.array([0.0, 0, 2], np.float32)) == 0
  assert rank.ortho_dev(means[:1], -means[0]) == pytest.approx(1, rel=1e-6)


def test_ortho_dev_does_not_center_and_leaves_out_what_has_no_direction():
  means, foreign = RNG.normal(size=(5, 7)) + 2, RNG.normal(size=7)
  with jax.enable_x64(True):
    cosines = means @ foreign / np.linalg.norm(means, axis=1) / np.linalg.norm(foreign)
    assert rank.ortho_dev(means, foreign) == pytest.approx(np.abs(cosines).mean(), rel=1e-14)
    padded = np.concatenate([means, np.zeros((2, 7))])  # two classes without samples
    assert rank.ortho_dev(padded, foreign) == pytest.approx(np.abs(cosines).mean(), rel=1e-14)
    check_grads(rank.ortho_dev, (jnp.asarray(means), jnp.asarray(foreign)), 1, atol=1e-6)
    assert np.isfinite(jax.grad(rank.ortho_dev)(jnp.asarray(padded), jnp.asarray(foreign))).all()
  assert np.isnan(rank.ortho_dev(np.zeros((2, 7)), foreign))
  assert np.isnan(rank.ortho_dev(means, np.zeros(7)))
  both = jax.vmap(rank.ortho_dev, (0, None))(np.stack([means, 2 * means[::-1]]), foreign)
  np.testing.assert_allclose(both, np.abs(cosines).mean(), rtol=1e-5)


def test_a_kernel_of_other_classes():
  with pytest.raises(ValueError, match=r"kernel has 4 columns for num_classes = 2: .* \[d, K\]"):
    rank.neural_collapse(
      np.ones((4, 2)), np.array([0, 0, 1, 1]), num_classes=2, kernel=np.ones((2, 4))
    )


def test_unknown_global_mean():
  statistics = rank.class_statistics(np.ones((4, 2)), np.array([0, 0, 1, 1]), num_classes=2)
  with pytest.raises(ValueError, match="global_mean = 'median' is unknown: use 'classes'"):
    geometry.center_of(statistics, "median")
