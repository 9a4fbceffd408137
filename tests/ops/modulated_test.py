"""Tests of MultiMax: the public implementation, knots, masks, order, large logits, gradients."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/multimax.npz")
RUNS = sorted(key.removesuffix("/f64/y") for key in GOLDEN.files if key.endswith("/f64/y"))
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 6)).astype(np.float32)
MASK = np.arange(6) < np.array([6, 3, 1, 0])[:, None]
RANGES = np.array([-0.5, 0.8, -0.3, 1.1], np.float32)
SLOPES = np.array([-0.4, -0.6, -0.25, 0.35], np.float32)
multimax = partial(ops.multimax, ranges=RANGES, slopes=SLOPES)


def naive(z, ranges, slopes):
  """The formula as it stands, in float64."""
  z = np.asarray(z, np.float64)
  relu = partial(np.maximum, 0)
  (b0, d1, b2, d3), (t0, t1, t2, t3) = np.float64(ranges), np.float64(slopes)
  s = z + t0 * relu(b0 - z) + t1 * relu(z - d1) + t2 * relu(b2 - z) ** 2 + t3 * relu(z - d3) ** 2
  s = np.exp(s - s.max(-1, keepdims=True))
  return s / s.sum(-1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("run", RUNS)
def test_public_implementation(run, dtype):
  with jax.enable_x64(dtype == np.float64):
    prefix, case = run.rsplit("/", 1)
    x, cotangent = (jnp.asarray(GOLDEN[f"{k}/{case}"], dtype) for k in ("x", "cotangent"))
    own = [jnp.asarray(GOLDEN[f"{prefix}/param_{k}"], dtype) for k in ("ranges", "ts")]
    where = None
    if prefix.startswith("multimax_masked_after"):
      where = np.broadcast_to(GOLDEN[f"{prefix}/additive_mask"] == 0, x.shape)
    y, pull = jax.vjp(lambda x, r, t: ops.multimax(x, ranges=r, slopes=t, where=where), x, *own)
    loose = 1e-10 if dtype == np.float64 else 1e-3 if case == "large" else 1e-5
    results = zip((y, *pull(cotangent)), ("y", "grad_x", "grad_ranges", "grad_ts"), strict=True)
    for ours, key in results:
      # Squares of 200 that cancel to 1: theirs loses 3e-5 in float32, ours does not.
      lost = case == "all_negative" and key == "grad_ts"
      theirs = GOLDEN[f"{run}/f{64 if lost else jnp.finfo(dtype).bits}/{key}"]
      known = np.isfinite(theirs)  # -inf that enters the modulation is NaN there
      assert np.isfinite(ours).all() and (known.all() or case == "masked_neginf")
      error = np.abs(np.asarray(ours) - theirs) / np.maximum(1, np.abs(theirs))
      assert error[known].max(initial=0) < loose


def test_closed_form_and_first_order():
  z, own = np.array([0.0, 1, 2], np.float32), {"ranges": (0.5, 1.5), "slopes": (-1.0, -0.5)}
  expected = ops.softmax(np.array([-0.5, 1, 1.75]))
  np.testing.assert_allclose(ops.multimax(z, **own), expected, atol=1e-6)
  padded = {name: np.array([*values, 0.3, 0.0]) for name, values in own.items()}
  padded["slopes"][2:] = 0
  np.testing.assert_allclose(ops.multimax(z, **padded), expected, atol=1e-6)
  np.testing.assert_allclose(multimax(LOGITS), naive(LOGITS, RANGES, SLOPES), atol=1e-6)


def test_slopes_of_zero_are_softmax():
  zeros = ops.multimax(LOGITS, ranges=RANGES, slopes=np.zeros(4), where=MASK)
  np.testing.assert_allclose(zeros, ops.softmax(LOGITS, where=MASK), atol=1e-7)


def test_squares_of_large_logits_keep_the_digits_of_their_differences():
  z = (1e4 + RNG.normal(size=(4, 6))).astype(np.float32)
  slopes = np.array([0, -0.5, 0, 1e-4], np.float32)  # s' = 2.5 there
  expected = naive(z, RANGES, slopes)
  np.testing.assert_allclose(ops.multimax(z, ranges=RANGES, slopes=slopes), expected, atol=1e-5)
  close = LOGITS * np.float32(1e-6)
  np.testing.assert_allclose(multimax(close), naive(close, RANGES, SLOPES), atol=1e-6)
  np.testing.assert_allclose(multimax(np.full((2, 5), 1e4, np.float32)), 1 / 5, atol=1e-6)


def test_keeps_the_order_under_the_stated_condition():
  z = np.linspace(-6, 6, 200, dtype=np.float32)
  assert (jnp.diff(ops.multimax(z, ranges=(-0.5, 0.8), slopes=(0.9, -0.9))) > 0).all()
  assert (jnp.diff(multimax(z)) >= 0).all()  # t2 <= 0 <= t3
  assert (jnp.diff(ops.multimax(z, ranges=(-0.5, 0.8), slopes=(1.5, 0.0))) < 0).any()
  assert (jnp.diff(ops.multimax(z, ranges=(0.8, -0.5), slopes=(0.6, -0.6))) < 0).any()
  assert jnp.abs(multimax(LOGITS + 1) - multimax(LOGITS)).max() > 1e-2  # no invariance to shifts


def test_masks_empty_rows_and_what_they_hold():
  p = multimax(LOGITS, where=MASK)
  assert (p[~MASK] == 0).all() and (p[3] == 0).all() and p[2, 0] == 1
  np.testing.assert_allclose(p[1, :3], multimax(LOGITS[1, :3]), atol=1e-6)
  weights = RNG.normal(size=p.shape).astype(np.float32)
  for hidden in (-np.inf, np.nan, np.inf):
    z = np.where(MASK, LOGITS, np.float32(hidden))
    np.testing.assert_array_equal(multimax(z, where=MASK), p)

    def value(z, ranges, slopes):
      return jnp.sum(weights * ops.multimax(z, ranges=ranges, slopes=slopes, where=MASK))

    gradients = jax.grad(value, (0, 1, 2))(z, RANGES, SLOPES)
    assert (gradients[0][~MASK] == 0).all()
    assert all(jnp.isfinite(g).all() and jnp.abs(g).max() > 0 for g in gradients)
  np.testing.assert_array_equal(multimax(np.where(MASK, LOGITS, -np.inf)), p)
  for bad in (np.nan, np.inf):
    assert jnp.isnan(multimax(np.array([1.0, bad, 0.0], np.float32))).all()


def test_own_arguments_of_every_head_and_traced():
  z = RNG.normal(size=(2, 3, 5)).astype(np.float32)
  heads = RNG.normal(size=(2, 4, 3)).astype(np.float32) / 2
  ranges, slopes = heads[..., None]  # [4, heads, 1]
  out = jax.jit(lambda z, r, t: ops.multimax(z, ranges=r, slopes=t))(z, ranges, slopes)
  for h in range(3):
    one = ops.multimax(z[:, h], ranges=heads[0, :, h], slopes=list(heads[1, :, h]))
    np.testing.assert_allclose(out[:, h], one, atol=1e-6)
  mapped = jax.vmap(lambda z, r, t: ops.multimax(z, ranges=r, slopes=t), (1, 1, 1), 1)
  np.testing.assert_allclose(mapped(z, heads[0], heads[1]), out, atol=1e-6)


@pytest.mark.parametrize("knots", [2, 4])
def test_gradients(knots):
  with jax.enable_x64(True):
    z, ranges, slopes = (jnp.asarray(x, jnp.float64) for x in (LOGITS, RANGES, SLOPES))

    def f(z, ranges, slopes):
      return ops.multimax(z, ranges=ranges, slopes=slopes, where=MASK)

    arguments = (z, ranges[:knots], slopes[:knots])
    loose = {"modes": ("fwd", "rev"), "atol": 1e-4, "rtol": 1e-4, "eps": 1e-6}
    check_grads(jax.jit(f), arguments, order=2 if knots == 4 else 1, **loose)


def test_at_a_knot_the_slope_does_not_count():
  row = jnp.array([-0.5, 0.8, 0.2])
  ours = jax.jacobian(lambda z: ops.multimax(z, ranges=RANGES[:2], slopes=SLOPES[:2]))(row)
  np.testing.assert_allclose(ours, jax.jacobian(ops.softmax)(row), atol=1e-6)


@pytest.mark.parametrize(("ranges", "slopes"), [(3, 3), (4, 2), (0, 0)])
def test_static_mistakes(ranges, slopes):
  message = f"ranges has {ranges} entries and slopes has {slopes}: give both 2 .* or both 4"
  with pytest.raises(ValueError, match=message):
    ops.multimax(LOGITS, ranges=np.zeros(ranges), slopes=np.zeros(slopes))
