"""Maps of logits: public implementations, closed forms, order, derivatives, digits, refusals."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "plif.npz")
KEY = jax.random.key(0)
SLOPED = ["random", "ties", "tiny", "all_negative"]
DRAWN = np.random.default_rng(9).normal(0.5, 1, 7)
MAPS = {
  "sigsoftmax": ops.sigsoftmax_logits,
  "two slopes": lambda z: ops.generalized_sigsoftmax_logits(z, knee=-1.5, slope=2.5),
  "flat below": lambda z: ops.generalized_sigsoftmax_logits(z, knee=0.5, slope=0.25),
  "tanh cap": lambda z: ops.tanh_cap(z, cap=30.0),
  "plif": lambda z: ops.plif(z, DRAWN.astype(z.dtype), bound=3.0),
  "plif, even": lambda z: ops.plif(z, DRAWN[:6].astype(z.dtype), bound=3.0),
}


def softplus(x):
  return np.logaddexp(x, 0)


def golden(prefix, case, bits):
  stored = {k: GOLDEN[f"{prefix}/{case}/{bits}/{k}"] for k in ("y", "grad_x")}
  dtype = np.dtype(f"float{bits[1:]}")
  return GOLDEN[f"x/{case}"].astype(dtype), GOLDEN[f"cotangent/{case}"].astype(dtype), stored


@pytest.mark.parametrize("bits", ["f32", "f64"])
@pytest.mark.parametrize("case", ["random", "ties", "large"])
def test_plif_of_others(case, bits):
  """The origin has f(-bound) = 0; here f(0) = 0, which changes values by a constant."""
  parameters = GOLDEN["plif_transform/T5_K40/param_plif_w"]
  width, half = 10 / 40, np.arange(40) < 20
  offset = width * softplus(parameters[half]).sum()
  x, cotangent, stored = golden("plif_transform/T5_K40", case, bits)
  sums = half * width * cotangent.sum(dtype=float) / (1 + np.exp(-parameters))
  d_parameters = GOLDEN[f"plif_transform/T5_K40/{case}/{bits}/grad_plif_w"] - sums
  with jax.enable_x64(bits == "f64"):
    wide = jnp.asarray(parameters, x.dtype)
    y, pull = jax.jit(lambda *p: jax.vjp(lambda x, w: ops.plif(x, w, bound=5.0), *p))(x, wide)
    d_x, d_w = pull(jnp.asarray(cotangent))
  assert y.dtype == x.dtype
  tolerance = 1e-10 if bits == "f64" else 1e-5
  for ours, theirs in ((y, stored["y"] - offset), (d_x, stored["grad_x"]), (d_w, d_parameters)):
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize(("name", "knee", "slope"), [("c0_k2", 0.0, 2.0), ("c1_k3", 1.0, 3.0)])
@pytest.mark.parametrize(("bits", "tolerance"), [("f32", 1e-5), ("f64", 1e-10)])
def test_two_slopes_of_others(name, knee, slope, bits, tolerance, compiled_quickly):
  cases = [golden(f"gss_logit_transform/{name}", case, bits) for case in SLOPED]
  x, cotangent = (np.concatenate([c[i].ravel() for c in cases]) for i in (0, 1))

  @compiled_quickly
  def run(x, cotangent):
    y, pull = jax.vjp(lambda x: ops.generalized_sigsoftmax_logits(x, knee=knee, slope=slope), x)
    return y, *pull(cotangent)

  with jax.enable_x64(bits == "f64"):
    results = run(x, cotangent)
  for ours, key in zip(results, ("y", "grad_x"), strict=True):
    theirs = np.concatenate([c[2][key].ravel() for c in cases])
    np.testing.assert_allclose(ours, theirs, atol=tolerance * max(1, np.abs(theirs).max()))


def test_sigsoftmax_is_the_softmax_of_its_logits():
  z = np.float32(np.random.default_rng(0).normal(size=(4, 9)) * 20)
  np.testing.assert_allclose(ops.softmax(ops.sigsoftmax_logits(z)), ops.sigsoftmax(z), atol=1e-6)


def test_plif_starts_at_the_identity():
  z = np.linspace(-30, 30, 1001, dtype=np.float32)
  for knots in (3, 1000):
    y = jax.jit(lambda k: ops.plif(z, ops.plif_init(KEY, k), bound=20.0), static_argnums=0)(knots)
    np.testing.assert_allclose(y, z, rtol=2e-7, atol=1e-7)


def test_drawn_slopes_have_the_published_moments():
  """Mean 1.110 and standard deviation .629 of softplus(N(log(e - 1), 1))."""
  slopes = softplus(np.asarray(ops.plif_init(KEY, 100_000, scale=1.0)))
  assert slopes.mean() == pytest.approx(1.110, abs=0.01)
  assert slopes.std() == pytest.approx(0.629, abs=0.01)


def test_plif_keeps_its_digits_with_many_knots():
  """Against float64: one float32 sum over 1e5 slopes is wrong by 1e-4."""
  parameters = np.asarray(ops.plif_init(KEY, 100_000, scale=1.0))
  knots = np.linspace(-20, 20, 100_001)
  heights = np.concatenate([[0], np.cumsum(softplus(np.float64(parameters)))]) * 4e-4
  z = np.linspace(-20, 20, 20_011).astype(np.float32)
  exact = np.interp(z.astype(float), knots, heights) - heights[50_000]
  np.testing.assert_allclose(ops.plif(z, parameters, bound=20.0), exact, atol=5e-6)


def test_plif_is_continuous_and_goes_on_with_its_end_slopes():
  slopes, knots = softplus(DRAWN), np.linspace(-3, 3, 8)
  with jax.enable_x64(True):
    points = np.concatenate([knots - 1e-9, knots + 1e-9, [-9.0, -5.0, 0.0, 5.0, 9.0]])
    below, above, far = np.split(np.asarray(jax.jit(MAPS["plif"])(points)), [8, 16])
  np.testing.assert_allclose(below, above, atol=2e-8)
  np.testing.assert_allclose(np.diff(above) / np.diff(knots), slopes, rtol=1e-7)
  np.testing.assert_allclose(np.diff(far)[[0, 3]] / 4, slopes[[0, -1]], rtol=1e-12)
  assert abs(far[2]) < 1e-15


@pytest.mark.parametrize("name", MAPS)
def test_larger_logits_stay_larger(name):
  with jax.enable_x64(True):
    z = jnp.linspace(-40, 40, 4001)
    assert (np.diff(jax.jit(MAPS[name])(z)) > 0).all()


@pytest.mark.parametrize("name", MAPS)
def test_masks_nan_and_dtypes(name):
  z = jnp.array([-jnp.inf, jnp.nan, -3e37, 3e37, 1.0, 0.0])
  y, slope = jax.jit(lambda z: (MAPS[name](z), jax.grad(lambda z: MAPS[name](z).sum())(z)))(z)
  assert y[0] == -jnp.inf and jnp.isnan(y[1]) and jnp.isfinite(y[2:]).all()
  assert slope[0] == 0 and jnp.isfinite(slope[2:]).all() and (slope[4:] > 0).all()
  for dtype in (jnp.bfloat16, jnp.float16):
    narrow = MAPS[name](z[4:].astype(dtype))
    assert narrow.dtype == dtype
    np.testing.assert_allclose(narrow.astype(np.float32), y[4:], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives(name):
  z = np.array([-5.3, -2.2, -1.4, -0.6, 0.3, 0.5, 1.6, 2.4, 3.7])  # off the knots
  z = z if "plif" in name else np.append(z, 0.0)  # where a layer of zeros starts
  with jax.enable_x64(True):
    check_grads(jax.jit(MAPS[name]), (jnp.asarray(z),), 1, ("fwd", "rev"), 1e-6, 1e-6, 1e-5)


def test_parameters_of_the_maps_have_derivatives():
  z = np.random.default_rng(2).normal(size=30) * 2

  def all_maps(parameters, knee, slope, cap):
    two = ops.generalized_sigsoftmax_logits(z, knee=knee, slope=slope)
    return ops.plif(z, parameters, bound=3.0) + two + ops.tanh_cap(z, cap=cap)

  with jax.enable_x64(True):
    point = jnp.asarray(DRAWN), jnp.asarray(-1.0), jnp.asarray(2.5), jnp.asarray(3.0)
    check_grads(jax.jit(all_maps), point, 1, ("fwd", "rev"), 1e-6, 1e-6, 1e-5)


def test_the_derivative_of_plif_is_two_histograms_and_a_cumulative_sum():
  """dL/ds_k = G1_k + width sum_(l > k) G0_l; the anchor drops out, as sum_k G0_k = 0."""
  rng, knots, width = np.random.default_rng(3), 50, 6 / 50
  z, labels = rng.normal(size=(20, 30)) * 2, rng.integers(0, 30, 20)
  parameters = rng.normal(size=knots)

  def loss(p):
    return ops.cross_entropy(ops.plif(z, p, bound=3.0), labels).sum()

  with jax.enable_x64(True):
    ours = jax.jit(jax.grad(loss))(parameters)
    g = jax.jit(lambda p: ops.softmax(ops.plif(z, p, bound=3.0)))(parameters) - np.eye(30)[labels]
  g, bins = np.asarray(g).ravel(), np.clip(np.floor((z.ravel() + 3) / width), 0, knots - 1)
  first, second = (
    np.bincount(bins.astype(int), x, knots) for x in (g, g * (z.ravel() + 3 - bins * width))
  )
  assert abs(first.sum()) < 1e-13
  slopes = second + width * (first[::-1].cumsum()[::-1] - first)
  np.testing.assert_allclose(ours, slopes / (1 + np.exp(-parameters)), atol=1e-12)


def test_the_histograms_are_two():
  program = str(
    jax.make_jaxpr(jax.grad(lambda p: ops.plif(jnp.ones(9), p, bound=3.0).sum()))(DRAWN)
  )
  assert program.count("scatter-add") == 2


PARAMETERS = np.zeros(4, np.float32)
REFUSED = {
  "one parameter": (lambda: ops.plif(0.0, PARAMETERS[:1], bound=1.0), r"shape \(1,\).* K >= 2"),
  "a matrix": (lambda: ops.plif_map(PARAMETERS[None], bound=1.0), r"shape \(1, 4\).*vector"),
  "no bound": (lambda: ops.plif(0.0, PARAMETERS, bound=0.0), "bound = 0.0 must be positive"),
  "NaN bound": (lambda: ops.plif(0.0, PARAMETERS, bound=np.nan), "bound = nan"),
  "one knot": (lambda: ops.plif_init(KEY, 1), "num_knots = 1 must be at least 2"),
  "scale": (lambda: ops.plif_init(KEY, 5, scale=-1.0), "scale = -1.0 must not be negative"),
  "cap": (lambda: ops.tanh_cap(0.0, cap=0.0), "cap = 0.0 must be positive"),
  "slope": (
    lambda: ops.generalized_sigsoftmax_logits(0.0, knee=0.0, slope=-1.0),
    "slope = -1.0 must be positive",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments(case):
  call, message = REFUSED[case]
  with pytest.raises(ValueError, match=message):
    call()
