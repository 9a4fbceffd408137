"""Mixtures of softmaxes and of contexts: public implementations, dense formula, memory, rank."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rankbias import ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "bottleneck_mixtures.npz")
RNG = np.random.default_rng(0)
PRIOR, CONTEXTS = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3, 4))
KERNEL, BIAS = RNG.normal(size=(4, 7)), RNG.normal(size=7)


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def sigsoftmax(z):
  return z + jax.nn.log_sigmoid(z)


def dense(prior, contexts, kernel, bias, temperature=1.0, logit_map=lambda z: z):
  logits = logit_map(jnp.einsum("nkd,dv->nkv", contexts, kernel) + bias[None, None, :])
  logs = jax.nn.log_softmax(logits / temperature)
  return jax.nn.logsumexp(jax.nn.log_softmax(prior)[..., None] + logs, axis=1)


def golden_parts(name, features, dtype):
  """The prior logits, contexts, kernel and bias that an origin makes of features."""
  latent, decoder, prior = (
    np.asarray(GOLDEN[f"{name}/param_{k}.weight"], dtype) for k in ("latent.0", "decoder", "prior")
  )
  shift, bias = (
    np.asarray(GOLDEN[f"{name}/param_{k}.bias"], dtype) for k in ("latent.0", "decoder")
  )
  shape = (*features.shape[:-1], -1, decoder.shape[1])
  contexts = jnp.tanh(jnp.matmul(features, latent.T) + shift.reshape(1, 1, -1)).reshape(shape)
  return jnp.matmul(features, prior.T), contexts, decoder.T, bias


@pytest.mark.parametrize(("bits", "loose"), [("f32", 1e-5), ("f64", 1e-10)])
def test_mixture_of_its_authors(bits, loose):
  context = GOLDEN[f"mos_zihangdai/{bits}/context"]
  dtype = context.dtype

  @jax.jit
  def log_probs(context):
    return ops.mixture_log_probs(*golden_parts("mos_zihangdai", context, dtype))

  logs = log_probs(context)
  assert logs.dtype == dtype
  np.testing.assert_allclose(jnp.exp(logs), GOLDEN[f"mos_zihangdai/{bits}/prob"], atol=loose)


@pytest.mark.parametrize("name", ["mos_quettabit", "moc_quettabit"])
@pytest.mark.parametrize(("bits", "loose"), [("f32", 1e-5), ("f64", 1e-10)])
def test_value_and_gradient_of_others(name, bits, loose):
  dtype = f"float{bits[1:]}"

  @jax.jit
  def both(x, cotangent):
    def logs(x):
      parts = golden_parts(name, x, dtype)
      if name.startswith("mos"):
        return ops.mixture_log_probs(*parts).reshape(6, 9)
      prior, contexts, kernel, bias = parts
      return ops.log_softmax(
        ops.mixed_contexts(prior, contexts) @ kernel + bias[None, None]
      ).reshape(6, 9)

    y, pull = jax.vjp(logs, x)
    return y, pull(cotangent)[0]

  y, gradient = both(*(jnp.asarray(GOLDEN[f"{name}/{k}"], dtype) for k in ("x", "cotangent")))
  np.testing.assert_allclose(y, GOLDEN[f"{name}/{bits}/y"], rtol=loose, atol=loose)
  np.testing.assert_allclose(gradient, GOLDEN[f"{name}/{bits}/grad_x"], rtol=loose, atol=loose)


@pytest.mark.parametrize("logit_map", [None, sigsoftmax])
def test_all_gradients_are_those_of_the_dense_formula(logit_map):
  cotangent = RNG.normal(size=(6, 7))
  arguments = PRIOR, CONTEXTS, KERNEL, BIAS, 0.7

  def ours(prior, contexts, kernel, bias, t):
    return ops.mixture_log_probs(prior, contexts, kernel, bias, temperature=t, logit_map=logit_map)

  def theirs(*a):
    return dense(*a, **({} if logit_map is None else {"logit_map": logit_map}))

  def pulled(f):
    y, pull = jax.vjp(f, *arguments)
    return y, pull(cotangent)

  (y, grads), (expected, gradients) = jax.jit(lambda: (pulled(ours), pulled(theirs)))()
  np.testing.assert_allclose(y, expected, rtol=1e-12)
  for one, other in zip(grads, gradients, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_a_map_passes_gradients_to_what_it_closes_over():
  def loss(f, slope):
    return (f(slope) * np.arange(42.0).reshape(6, 7)).sum()

  def ours(s):
    return ops.mixture_log_probs(PRIOR, CONTEXTS, KERNEL, BIAS, logit_map=lambda z: s * jnp.tanh(z))

  def theirs(s):
    return dense(PRIOR, CONTEXTS, KERNEL, BIAS, logit_map=lambda z: s * jnp.tanh(z))

  @jax.jit
  def both(s):
    return jax.grad(loss, 1)(ours, s), jax.grad(loss, 1)(theirs, s)

  np.testing.assert_allclose(*both(1.5), rtol=1e-10)


def arrays_of(jaxpr):
  """The shapes of all arrays that a program and the programs in it make."""
  for equation in jaxpr.eqns:
    yield from (v.aval.shape for v in equation.outvars)
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from arrays_of(inner)


def test_no_array_has_components_times_classes():
  components, batch, classes = 15, 8, 1000
  shapes = [(batch, components), (batch, components, 4), (4, classes), (classes,)]

  def loss(*arguments):
    return ops.mixture_log_probs(*arguments, temperature=2.0)[:, 0].sum()

  program = jax.make_jaxpr(jax.grad(loss, (0, 1, 2, 3)))(*(jnp.ones(s) for s in shapes))
  sizes = [int(np.prod(shape)) for shape in arrays_of(program.jaxpr)]
  assert len(sizes) > 100
  assert max(sizes) == batch * classes


def test_temperature_acts_inside_the_components():
  def logs(t):
    return jnp.exp(ops.mixture_log_probs(PRIOR, CONTEXTS, KERNEL, BIAS, temperature=t))

  cold, hot = jax.jit(lambda: (logs(1e-4), logs(1e9)))()
  best = np.argmax(CONTEXTS @ KERNEL + BIAS, -1)
  votes = np.zeros((6, 7))
  np.add.at(votes, (np.arange(6)[:, None], best), np.exp(jax.nn.log_softmax(PRIOR)))
  np.testing.assert_allclose(cold, votes, atol=1e-12)
  np.testing.assert_allclose(hot, 1 / 7, rtol=1e-7)


def test_masked_classes_have_no_mass_and_no_gradient():
  bias = np.where(np.arange(7) < 3, BIAS, -np.inf)

  @jax.jit
  def both(kernel):
    def loss(kernel):
      logs = ops.mixture_log_probs(PRIOR, CONTEXTS, kernel, bias)
      return logs[:, :3].sum(), logs

    return jax.grad(loss, has_aux=True)(kernel)

  gradient, logs = both(KERNEL)
  expected = dense(PRIOR, CONTEXTS, KERNEL[:, :3], BIAS[:3])
  np.testing.assert_allclose(logs[:, :3], expected, rtol=1e-12)
  assert (logs[:, 3:] == -np.inf).all()
  assert np.isfinite(gradient).all() and (gradient[:, 3:] == 0).all()
  assert np.abs(gradient[:, :3]).min() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_input_dtype_returns_and_large_logits_stay_finite(dtype):
  contexts = jnp.asarray(1e3 * CONTEXTS, dtype)
  kernel, bias = jnp.asarray(KERNEL, dtype), jnp.asarray(BIAS, dtype)

  @jax.jit
  def both(contexts):
    y, pull = jax.vjp(
      lambda c: ops.mixture_log_probs(PRIOR.astype(dtype), c, kernel, bias), contexts
    )
    return y, *pull(jnp.ones_like(y))

  y, gradient = both(contexts)
  assert y.dtype == gradient.dtype == dtype
  assert np.isfinite(jnp.float32(y)).all() and np.isfinite(jnp.float32(gradient)).all()
  assert (y <= 0).all()


def test_only_the_mixture_of_softmaxes_leaves_the_bottleneck():
  rng = np.random.default_rng(1)
  prior, contexts = rng.normal(size=(60, 3)), rng.normal(size=(60, 3, 4))
  kernel, bias = rng.normal(size=(4, 50)), rng.normal(size=50)
  linear = ops.log_softmax(contexts[:, 0] @ kernel + bias)
  mixed_contexts = ops.log_softmax(ops.mixed_contexts(prior, contexts) @ kernel + bias[None])
  softmaxes = ops.mixture_log_probs(prior, contexts, kernel, bias)
  ranks = [np.linalg.matrix_rank(x) for x in (linear, mixed_contexts, softmaxes)]
  assert ranks[0] == ranks[1] == 6  # d + 2
  assert ranks[2] >= 49


def test_vmap_and_second_derivative():
  def one(prior, contexts):
    return ops.mixture_log_probs(prior, contexts, KERNEL, BIAS)

  f = jax.jit(lambda: (jax.vmap(one)(PRIOR, CONTEXTS), one(PRIOR, CONTEXTS)))
  np.testing.assert_allclose(*f(), rtol=1e-13)
  check_grads(jax.jit(one), (PRIOR[0], CONTEXTS[0]), order=2, modes=["rev"])


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r"prior_logits of shape \(6, 2\) does not fit contexts"):
    ops.mixture_log_probs(PRIOR[:, :2], CONTEXTS, KERNEL)
  with pytest.raises(ValueError, match=r"prior_logits of shape \(6, 2\) does not fit contexts"):
    ops.mixed_contexts(PRIOR[:, :2], CONTEXTS)
  with pytest.raises(ValueError, match=r"kernel of shape \(3, 7\) does not fit contexts"):
    ops.mixture_log_probs(PRIOR, CONTEXTS, KERNEL[:3])
  with pytest.raises(ValueError, match=r"bias of shape \(4,\) does not fit kernel"):
    ops.mixture_log_probs(PRIOR, CONTEXTS, KERNEL, BIAS[:4])
  with pytest.raises(ValueError, match=r"temperature = 0.0 must be positive"):
    ops.mixture_log_probs(PRIOR, CONTEXTS, KERNEL, temperature=0.0)
