"""The theory of dispersion, as numbers: bounds, their equality cases, and where they bite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import ops

SIZES = [2**k for k in range(4, 17, 3)]  # 16 ... 65,536


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("n", SIZES)
def test_weights_and_entropy_lie_within_both_forms_of_the_bounds(n, temperature):
  rng = np.random.default_rng(n)
  z = np.concatenate([rng.uniform(-3, 3, size=(4, n)), rng.normal(size=(4, n))]).astype("f4")
  spread = np.ptp(z, axis=-1)
  p = ops.softmax(z, temperature=temperature)
  (low, high), (low_simple, high_simple) = (
    ops.weight_bounds(n, spread, temperature, sharp=sharp) for sharp in (True, False)
  )
  room = 1 + 1e-5  # of rounding
  least, largest = p.min(-1), p.max(-1)
  assert (low_simple <= low * room).all() and (low <= least * room).all()
  assert (largest <= high * room).all() and (high <= high_simple * room).all()
  h = ops.entropy(z, temperature=temperature)
  sharp, simple = (ops.entropy_bound(n, spread, temperature, sharp=s) for s in (True, False))
  assert (simple <= sharp + 1e-5).all() and (sharp <= h + 1e-5).all()


@pytest.mark.parametrize("n", [2, *SIZES])
def test_sharp_bounds_are_attained_by_one_logit_against_all_others(n):
  delta, temperature = 5.0, np.float32([0.5, 1, 3])[:, None]
  one = np.eye(1, n, dtype="f4").repeat(3, 0)
  one_above = ops.softmax(one * delta, temperature=temperature)
  one_below = ops.softmax(one * -delta, temperature=temperature)
  lower, upper = ops.weight_bounds(n, delta, temperature[:, 0])
  np.testing.assert_allclose(one_above[:, 0], upper, rtol=1e-5)
  np.testing.assert_allclose(one_below[:, 0], lower, rtol=1e-5)


def test_the_entropy_falls_with_beta_by_its_product_with_the_variance():
  with jax.enable_x64(True):
    z = jnp.asarray(np.random.default_rng(0).normal(size=20) * 2)

    @jax.jit
    def h(beta):
      return ops.entropy(beta * z)

    for beta in (0.3, 1.0, 2.5):
      p = ops.softmax(beta * z)
      expected = float(-beta * (jnp.sum(p * z**2) - jnp.sum(p * z) ** 2))
      assert expected < 0
      assert jax.grad(h)(beta) == pytest.approx(expected, rel=1e-12)
      step = 1e-5
      difference = (h(beta + step) - h(beta - step)) / (2 * step)
      assert difference == pytest.approx(expected, rel=1e-8)


def test_spread_is_bounded_by_the_singular_values_of_the_projections():
  rng = np.random.default_rng(1)
  for width, depth in itertools.product((3, 8), (2, 16)):
    q, k = rng.normal(size=(depth, width)), rng.normal(size=(depth, width))
    y, x = rng.normal(size=(50, width)), rng.normal(size=(30, width))
    spread = np.ptp((y @ q.T) @ (x @ k.T).T, axis=-1)
    bound = 2 * np.linalg.svd(q)[1][0] * np.linalg.svd(k)[1][0] * np.linalg.norm(y, axis=-1)
    bound *= np.linalg.norm(x, axis=-1).max()
    assert (spread <= bound).all()
    np.testing.assert_allclose(ops.spread_bound(q, k, y, x), bound, rtol=1e-5)


def test_spread_attains_its_bound_along_the_strongest_directions():
  rng = np.random.default_rng(2)
  u = np.linalg.qr(rng.normal(size=(5, 5)))[0]  # the projections share their left vectors
  (v, w), strength = (
    (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2)),
    np.arange(5, 0, -1),
  )
  q, k = u * strength @ v.T, u * strength**2 @ w.T
  y, x = 3 * v[:, :1].T, 2 * np.stack([w[:, 0], -w[:, 0], w[:, 1]])
  spread = np.ptp((y @ q.T) @ (x @ k.T).T)
  assert spread == pytest.approx(2 * 5 * 25 * 3 * 2)
  np.testing.assert_allclose(ops.spread_bound(q, k, y, x), spread, rtol=1e-5)


def slopes(largest, sizes):
  return np.diff(np.log(np.float64(largest))) / np.diff(np.log(sizes))


def test_the_largest_weight_of_bounded_logits_falls_as_one_over_n():
  z = np.random.default_rng(3).uniform(-2, 2, size=65536).astype("f4")
  z[0] = 2
  found = slopes([ops.softmax(z[:n]).max() for n in SIZES], SIZES)
  assert found[-1] == pytest.approx(-1, abs=0.01)
  assert np.abs(found + 1).max() < 0.3


@pytest.mark.parametrize("reach", [0.5, 1.5])
def test_scalable_softmax_stays_sharp_where_scale_times_gap_exceeds_one(reach):
  """Against equal rivals the weight is 1 / (1 + (n - 1) n^(-s gap))."""
  gap = 2.0
  largest = [
    ops.scalable_softmax(np.eye(1, n, dtype="f4") * gap, scale=reach / gap).max() for n in SIZES
  ]
  found = slopes(largest, SIZES)
  if reach > 1:
    assert (found >= 0).all() and largest[-1] > 0.99
  else:
    assert found[-1] == pytest.approx(reach - 1, abs=0.02)


@pytest.mark.parametrize(("s", "n"), [(310, 16384), (100, 4096), (714, 65536)])
def test_logits_proportional_to_uniform_priorities(s, n):
  """For n >> s the largest weight is about s / n, and the entropy about 1 + log(n / s)."""
  z = s * np.random.default_rng(4).random((128, n), dtype="f4")
  assert float(ops.softmax(z).max(-1).mean()) == pytest.approx(s / n, rel=0.04)
  assert float(ops.entropy(z).mean()) == pytest.approx(1 + np.log(n / s), abs=0.03)


# A frozen random Transformer over a finite vocabulary, without positions.

LAYERS, HEADS, WIDTH, VOCABULARY = 4, 2, 16, 5


def frozen(seed):
  """Weights of the layers and an embedding; large enough that the heads start out sharp."""
  rng = np.random.default_rng(seed)
  shapes = {"q": (HEADS, WIDTH, 8), "k": (HEADS, WIDTH, 8), "v": (HEADS, WIDTH, 8)}
  shapes |= {"o": (HEADS, 8, WIDTH), "up": (WIDTH, 32), "down": (32, WIDTH)}
  layers = [
    {name: np.float32(rng.normal(size=s) * 1.5 / np.sqrt(s[-2])) for name, s in shapes.items()}
    for _ in range(LAYERS)
  ]
  return layers, np.float32(rng.normal(size=(VOCABULARY, WIDTH)))


@jax.jit
def attention_of_layers(layers, h, where):
  """Returns of every layer the weights, the spread of the logits and its bound by the weights."""
  found = []
  for w in layers:
    x = h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)
    q, k, v = (jnp.einsum("nd,hde->hne", x, w[name]) for name in "qkv")
    z = jnp.einsum("hqe,hke->hqk", q, k) / np.sqrt(8.0)
    p = ops.softmax(z, where=where)
    bound = jax.vmap(ops.spread_bound, (0, 0, None, None))(w["q"], w["k"], x, x) / np.sqrt(8.0)
    found.append((p, jnp.ptp(z, -1), bound))
    h = h + jnp.einsum("hqk,hke,hed->qd", p, v, w["o"])
    h = h + jax.nn.gelu(h @ w["up"]) @ w["down"]
  return found


@pytest.mark.parametrize("causal", [False, True])
def test_every_layer_of_a_frozen_transformer_disperses(causal):
  """n max p <= e^spread, spread <= bound, and the bound knows nothing of n."""
  layers, embedding = frozen(0)
  tokens = np.random.default_rng(5).integers(0, VOCABULARY, 1024)
  peaks, bounds = [], []
  for n in (16, 128, 1024):
    where = np.tri(n, dtype=bool) if causal else np.ones((n, n), bool)
    found = jax.device_get(attention_of_layers(layers, embedding[tokens[:n]], where[None]))
    weights = [p.max(-1) * where.sum(-1) for p, _, _ in found]
    for weight, (_, spread, bound) in zip(weights, found, strict=True):
      assert (weight <= np.exp(spread) * (1 + 1e-5)).all() and (spread <= bound).all()
    peaks.append([weight[:, -1].max() for weight in weights])
    bounds.append([bound.max() for _, _, bound in found])
  peaks = np.array(peaks)
  assert (peaks[0] > 2).all()  # no layer is uniform to begin with
  assert (peaks[1:] < 2 * peaks[0]).all()  # 64 times the tokens, a 32nd of the weight or less
  np.testing.assert_allclose(bounds[1:], np.stack([bounds[0]] * 2), rtol=1e-2)


def test_repeating_the_tokens_divides_every_weight():
  """Without positions r copies of a text share its weights: max weight times n is constant."""
  layers, embedding = frozen(1)
  text = np.array([0, 1, 2, 3, 4, 0, 0, 3])
  peaks = []
  for r in (1, 8, 64):
    tokens = np.tile(text, r)
    whole = np.ones((1, len(tokens), len(tokens)), bool)
    found = attention_of_layers(layers, embedding[tokens], whole)
    peaks.append([len(tokens) * np.asarray(p.max((1, 2))) for p, *_ in found])
  assert np.shape(peaks) == (3, LAYERS, HEADS)
  np.testing.assert_allclose(peaks[1], peaks[0], rtol=2e-3)
  np.testing.assert_allclose(peaks[2], peaks[0], rtol=2e-3)


def test_the_published_polynomial_is_not_read_backwards():
  """At H = 3 it is 2.25 and in the other order -31.6; at 1 both are 1.27, which shows nothing."""
  np.testing.assert_allclose(ops.entropy_polynomial(np.array([1.0, 3.0])), [1.27, 2.25], atol=1e-5)
  row = np.eye(1, 20, dtype="f4")  # H = 2.95
  weight, sharper = ops.softmax(row)[0, 0], ops.adaptive_temperature_softmax(row)[0, 0]
  beta = np.log(sharper * 19 / (1 - sharper))
  assert weight < 0.13 and beta == pytest.approx(2.245, abs=1e-3)
