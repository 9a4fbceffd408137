"""The head contract: log_probs sums to one, the loss is minus log_probs at the label."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import HEADS, build_head, scale_kernels

# Half the compile time, which is all that programs of this size cost.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick = functools.partial(jax.jit, compiler_options=QUICK)
F = np.random.default_rng(0).normal(size=(6, 12))
Y = np.array([0, 1, 2, 3, 4, 0])
TARGETS = np.random.default_rng(1).dirichlet(np.ones(5), size=6)
TEMPERATURES = np.array([0.1, 1.0, 100.0])
TINY = {
  "linear": {},
  "sigsoftmax": {},
  "generalized_sigsoftmax": {},
  "tanh_cap": {"cap": 2.0},
  "plif": {"knots": 16, "bound": 2.0, "scale": 0.5},
  "dropout_decoupled": {"weight_dropout": 0.5},
  "mixture_of_softmaxes": {"components": 3, "width": 7, "dropout": 0.3},
  "mixture_of_contexts": {"components": 3, "width": 7},
  "mixtape": {"width": 7, "gate_width": 4, "frequent": 0.5},
  "partitioned": {"partitions": 2},
  "multi_facet": {"partitions": 2, "softmaxes": 2},
  "drill": {"depth": 2, "dual": True, "dropout": 0.3},
}
MIXED = {"mixture_of_softmaxes", "multi_facet"}  # log-probabilities in the place of logits
HIGH = {"mixture_of_softmaxes", "mixtape", "multi_facet", "partitioned"}  # rank above d + 2
HIGH |= {"sigsoftmax", "generalized_sigsoftmax", "tanh_cap", "plif"}
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield DOUBLE


def test_every_head_has_tiny_options():
  assert set(TINY) == set(HEADS)


@functools.cache
def measured(name):
  """All that the contract speaks of, by one program; the temperatures are a vmapped axis."""
  head = build_head(name, 5, **TINY[name], **DOUBLE)

  def loss(variables, temperature, labels=Y, features=F, method="loss", **own):
    own |= {"temperature": temperature, "method": method}
    return head.apply(variables, features, labels, **own)

  def at(variables, temperature):
    return {
      "log_p": head.apply(variables, F, temperature, method="log_probs"),
      "loss": loss(variables, temperature),
      "soft": loss(variables, temperature, TARGETS),
      "smooth": loss(variables, temperature, label_smoothing=0.2),
      "scored": loss(variables, temperature, method="scored"),
      "scored soft": loss(variables, temperature, TARGETS, method="scored"),
      "grads": jax.grad(lambda *a: loss(*a).mean(), (0, 1))(variables, temperature),
    }

  @quick
  def everything(keys):
    members = jax.vmap(head.init, (0, None))(keys, F)
    variables = jax.tree.map(lambda x: x[0], members)
    features = np.stack([F, F[::-1]])
    together = jax.vmap(lambda v, x: loss(v, 1.0, features=x))(members, features)
    second = loss(jax.tree.map(lambda x: x[1], members), 1.0, features=F[::-1])
    out = jax.vmap(at, (None, 0))(variables, TEMPERATURES)
    return out | {"raw": head.apply(variables, F), "together": together, "second": second}

  with jax.enable_x64(True):
    return jax.device_get(everything(jax.random.split(jax.random.key(0), 2)))


@pytest.mark.parametrize("name", sorted(HEADS))
class TestContract:
  def test_probabilities_sum_to_one(self, name):
    log_p = measured(name)["log_p"]
    assert log_p.shape == (3, 6, 5)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-12)
    assert (log_p <= 0).all()

  def test_loss_is_minus_the_log_probability_of_the_label(self, name):
    out = measured(name)
    log_p = out["log_p"]
    np.testing.assert_allclose(out["loss"], -log_p[:, np.arange(6), Y], rtol=1e-10)
    np.testing.assert_allclose(out["soft"], -(TARGETS * log_p).sum(-1), rtol=1e-10)
    smooth = 0.8 * log_p[:, np.arange(6), Y] + 0.2 * log_p.mean(-1)
    np.testing.assert_allclose(out["smooth"], -smooth, rtol=1e-10)

  def test_scored_is_the_loss_and_whether_it_is_right(self, name):
    out = measured(name)
    likeliest = out["log_p"].argmax(-1)
    for case, loss, labels in (("scored", "loss", Y), ("scored soft", "soft", TARGETS.argmax(-1))):
      losses, correct = out[case]
      np.testing.assert_array_equal(losses, out[loss])
      np.testing.assert_array_equal(correct, likeliest == labels)

  def test_gradients_are_finite_and_temperature_has_one(self, name):
    variables, temperature = measured(name)["grads"]
    for gradient in jax.tree.leaves(variables):
      assert np.isfinite(gradient).all()
      assert np.abs(gradient).max() > 0
    assert (np.abs(temperature) > 0).all()

  def test_raw_outputs_and_what_the_temperature_does_to_them(self, name, double):
    out = measured(name)
    raw, log_p = out["raw"], out["log_p"]
    if name in MIXED:  # the temperature acts inside, not on what the head returns
      np.testing.assert_allclose(raw, log_p[1], rtol=1e-10)
      assert np.abs(log_p[2] - np.log(0.2)).max() < 0.2
    else:
      z = raw[None] / TEMPERATURES[:, None, None]
      logs = jax.device_get(jax.nn.logsumexp(z, -1, keepdims=True))
      np.testing.assert_allclose(log_p, z - logs, rtol=1e-9, atol=1e-12)

  def test_members_of_one_program_are_members_alone(self, name):
    out = measured(name)
    np.testing.assert_allclose(out["together"][0], out["loss"][1], rtol=1e-10)
    np.testing.assert_allclose(out["together"][1], out["second"], rtol=1e-10)

  def test_shapes_dtypes_and_names(self, name):
    head = build_head(name, 5, **TINY[name], dtype="bfloat16")
    for features in (jnp.ones((2, 3, 12), jnp.bfloat16), jnp.ones(12)):
      variables = jax.eval_shape(head.init, jax.random.key(0), features)
      assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
      out = jax.eval_shape(head.apply, variables, features)
      assert out.shape == (*features.shape[:-1], 5) and out.dtype == jnp.bfloat16
    assert "kernel" in variables["params"]["linear"]


@pytest.mark.parametrize("name", sorted(HEADS))
def test_which_heads_leave_the_bottleneck(name, double):
  narrow = {"width": None, "frequent": 1.0}  # contexts as wide as the features, gates for all
  own = TINY[name] | {k: v for k, v in narrow.items() if k in TINY[name]}
  head = build_head(name, 30, **own, **double)
  features = np.random.default_rng(2).normal(size=(40, 3))

  @quick
  def log_probs(key):
    keys = jax.random.split(key, 100)
    variables = head.init(keys[0], features)
    leaves, tree = jax.tree.flatten(variables)  # large weights: bent far from the linear start
    leaves = [x + jax.random.normal(k, x.shape) for x, k in zip(leaves, keys[1:], strict=False)]
    return head.apply(jax.tree.unflatten(tree, leaves), features, method="log_probs")

  rank = np.linalg.matrix_rank(log_probs(jax.random.key(0)))
  assert rank > 5 if name in HIGH else rank <= 5  # d + 2


def test_linear_head_is_an_affine_map_with_zero_bias(double):
  head = build_head("linear", 5, **double)
  variables = head.init(jax.random.key(0), F)
  linear = variables["params"]["linear"]
  assert set(linear) == {"kernel", "bias"}
  np.testing.assert_array_equal(linear["bias"], 0.0)
  np.testing.assert_allclose(head.apply(variables, F), F @ linear["kernel"], rtol=1e-12)
  bare = build_head("linear", 5, use_bias=False).init(jax.random.key(0), F)
  assert set(bare["params"]["linear"]) == {"kernel"}


def test_the_kernel_has_half_of_the_variance_of_he():
  features = jnp.zeros((1, 400))
  kernel = build_head("linear", 400).init(jax.random.key(0), features)["params"]["linear"]["kernel"]
  np.testing.assert_allclose(float(kernel.var()) * 400, 1.0, atol=0.02)


def test_temperature_is_the_inverse_scale_of_a_linear_head(double):
  head = build_head("linear", 5, **double)
  variables = head.init(jax.random.key(0), F)
  smaller = {"params": scale_kernels(variables["params"], 1 / 7.0)}
  np.testing.assert_allclose(
    head.apply(variables, F, 7.0, method="log_probs"),
    head.apply(smaller, F, method="log_probs"),
    rtol=1e-12,
  )


def test_an_unknown_head_is_refused_with_the_nearest_name():
  with pytest.raises(ValueError, match=r"'liner' is no known head. Did you mean 'linear'\?"):
    build_head("liner", 5)
