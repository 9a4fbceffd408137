"""Options of the output layers: dropout, chunks, starts, frozen maps, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.models import HEADS, build_head
from rankbias.models.heads.contract import is_argmax

# Half the compile time, which is all that programs of this size cost.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick = functools.partial(jax.jit, compiler_options=QUICK)
F = np.random.default_rng(0).normal(size=(6, 12))
Y = np.array([0, 1, 2, 3, 4, 0])
TARGETS = np.full((6, 5), 0.2)
DROPPING = {
  "dropout_decoupled": {},
  "mixture_of_softmaxes": {"components": 3},
  "mixture_of_contexts": {"components": 3},
  "mixtape": {},
  "drill": {"depth": 2},
}


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield {"dtype": "float64", "param_dtype": "float64"}


def test_every_head_with_dropout_is_tested():
  fields = {name: {field.name for field in dataclasses.fields(HEADS[name])} for name in HEADS}
  assert {name for name in HEADS if "dropout" in fields[name]} == set(DROPPING)


@pytest.mark.parametrize(("name", "own"), DROPPING.items())
def test_dropout_acts_with_a_key_alone(name, own):
  head = build_head(name, 5, **own, dropout=0.5)
  without = build_head(name, 5, **own, dropout=0.0)

  @quick
  def outputs(features):
    variables = head.init(jax.random.key(0), features)
    keys = [{"dropout": jax.random.key(i)} for i in (1, 2)]
    return [
      without.apply(variables, features),
      head.apply(variables, features),
      *(head.apply(variables, features, rngs=rngs) for rngs in keys),
    ]

  none, silent, one, other = outputs(jnp.float32(F))
  np.testing.assert_array_equal(none, silent)
  assert np.abs(one - silent).max() > 1e-3 and np.abs(one - other).max() > 1e-3


def test_weight_dropout_keeps_the_expectation(double):
  head = build_head("dropout_decoupled", 5, dropout=0.0, weight_dropout=0.5, **double)

  @quick
  def outputs(key):
    variables = head.init(key, F)
    keys = jax.random.split(key, 4000)
    draws = jax.vmap(lambda k: head.apply(variables, F, rngs={"dropout": k}))(keys)
    return head.apply(variables, F), draws.mean(0), draws.std(0)

  plain, mean, deviation = outputs(jax.random.key(0))
  assert (deviation > 0.1).all()
  np.testing.assert_array_less(np.abs(mean - plain), 5 * deviation / 4000**0.5)


def test_a_mask_is_one_of_the_example_for_its_whole_sequence(double):
  """The linear map is the identity, so that what is dropped can be read off the logits."""
  head = build_head("dropout_decoupled", 12, dropout=0.5, use_bias=False, **double)
  params = {"linear": {"kernel": jnp.eye(12)}}

  @quick
  def kept(features, positions):
    variables = {"params": params, "batch": {"positions": positions}}
    return head.apply(variables, features, rngs={"dropout": jax.random.key(3)})

  rows = kept(jnp.ones((6, 12)), jnp.arange(6))
  sequences = kept(jnp.ones((6, 4, 12)), jnp.arange(6))
  np.testing.assert_array_equal(sequences, np.repeat(rows[:, None], 4, 1))
  assert set(np.unique(rows)) == {0, 2} and len(np.unique(rows, axis=0)) == 6
  np.testing.assert_array_equal(kept(jnp.ones((2, 12)), jnp.array([4, 1])), rows[np.array([4, 1])])


CHUNKED = {
  "linear": {},
  "sigsoftmax": {},
  "generalized_sigsoftmax": {},
  "tanh_cap": {"cap": 2.0},
  "plif": {"knots": 16, "bound": 2.0, "scale": 0.5},
  "mixture_of_contexts": {"components": 3, "width": 7},
  "mixture_of_softmaxes": {"components": 3, "width": 7},
  "drill": {"depth": 2, "dual": True},
  "dropout_decoupled": {},
  "partitioned": {"partitions": 3, "hidden": 4},
  "multi_facet": {"partitions": 3, "softmaxes": 2, "hidden": 4},
}


@pytest.mark.parametrize("name", CHUNKED)
def test_chunked_is_the_dense_loss(name, double):
  """Two members of one program, with temperatures of their own."""
  features, labels = (
    np.random.default_rng(3).normal(size=(3, 4, 12)),
    np.arange(12).reshape(3, 4) % 5,
  )

  @quick
  def both(temperatures, keys):
    out = []
    for chunked in (False, True):
      head = build_head(name, 5, chunked=chunked, **CHUNKED[name], **double)

      def objective(v, h, t, head=head):
        losses, correct = head.apply(v, h, labels, t, method="scored")
        return jnp.sum(losses**2), (losses, correct)

      variables = jax.vmap(head.init, (0, None))(keys, features)
      gradient = jax.vmap(jax.grad(objective, (0, 1, 2), has_aux=True), (0, None, 0))
      out.append(gradient(variables, features, temperatures))
    return out

  dense, chunked = both(jnp.array([0.3, 1.7]), jax.random.split(jax.random.key(0)))
  assert dense[1][1].any() and not dense[1][1].all()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), chunked, dense)


def test_chunked_holds_no_matrix_of_logits():
  head = build_head("plif", 3000, chunked=True)
  features, labels = jnp.ones((2500, 4)), jnp.zeros(2500, int)
  variables = jax.eval_shape(head.init, jax.random.key(0), features)
  run = jax.grad(lambda v: head.apply(v, features, labels, method="loss").sum())
  assert "2500,3000" not in str(jax.make_jaxpr(run)(variables))


@pytest.mark.parametrize(
  ("labels", "smoothing"), [(TARGETS, 0.0), (Y, 0.1)], ids=["distributions", "smoothing"]
)
def test_chunked_refuses_other_targets(labels, smoothing):
  head = build_head("linear", 5, chunked=True)
  variables = {"params": {"linear": {"kernel": jnp.ones((12, 5)), "bias": jnp.ones(5)}}}
  with pytest.raises(ValueError, match=f"label_smoothing={smoothing} and labels of dtype"):
    head.apply(variables, jnp.float32(F), labels, 1.0, smoothing, method="loss")


def test_partitions_start_as_the_linear_head_and_need_hidden_features(double):
  features = np.random.default_rng(2).normal(size=(40, 3))

  @quick
  def everything(key):
    logits = []
    for hidden in (0, 8):
      head = build_head("partitioned", 30, partitions=2, hidden=hidden, **double)
      variables = head.init(key, features)
      start = head.apply(variables, features)
      linear = jnp.matmul(features, variables["params"]["linear"]["kernel"])
      facets = jax.random.normal(key, variables["params"]["facets"]["kernel"].shape)
      params = variables["params"] | {"facets": {"kernel": facets}}
      logits.append((start, linear, head.apply({"params": params}, features)))
    return logits

  for (start, linear, drawn), rank in zip(everything(jax.random.key(0)), (3, 6), strict=True):
    np.testing.assert_allclose(start, linear, atol=1e-2)
    assert np.linalg.matrix_rank(drawn) == rank  # min(P d, size of q)


def test_plif_starts_as_the_identity_or_random_and_can_be_frozen(double):
  @quick
  def everything(key):
    out = {}
    for case, own in {"identity": {}, "random": {"scale": 1.0, "frozen": True}}.items():
      head = build_head("plif", 5, knots=64, **own, **double)
      variables = head.init(key, F)
      logits = build_head("linear", 5, **double).apply(
        {"params": {"linear": variables["params"]["linear"]}}, F
      )
      gradient = jax.grad(lambda v, head=head: head.apply(v, F, Y, method="loss").sum())(variables)
      out[case] = head.apply(variables, F), logits, gradient["params"]
    return out

  out = everything(jax.random.key(0))
  mapped, logits, gradient = out["identity"]
  np.testing.assert_allclose(mapped, logits, rtol=1e-6)  # the parameters are drawn in float32
  assert np.abs(gradient["plif"]).max() > 1e-3
  mapped, logits, gradient = out["random"]
  assert np.abs(mapped - logits).max() > 0.1
  assert (gradient["plif"] == 0).all() and np.abs(gradient["linear"]["kernel"]).max() > 1e-3


BAD = [
  ("tanh_cap", {"cap": 0.0}, "cap = 0.0 must be positive"),
  ("generalized_sigsoftmax", {"slope": 0.0}, "slope = 0.0 must be positive"),
  ("plif", {"knots": 1}, "num_knots = 1 must be at least 2"),
  ("plif", {"bound": -1.0}, "bound = -1.0 must be positive"),
  ("mixture_of_softmaxes", {"components": 0}, "components=0 must be at least 1"),
  ("mixture_of_contexts", {"width": 0}, "width=0 must be at least 1"),
  ("mixtape", {"frequent": 2.0}, r"frequent=2.0 must lie in \[0, 1\]"),
  ("partitioned", {"partitions": 0}, "partitions=0 must be at least 1"),
  ("multi_facet", {"softmaxes": -1}, "softmaxes=-1 must be at least 0"),
  ("partitioned", {"hidden": -1}, "hidden=-1 must be at least 0"),
  ("drill", {"activation": "gelu"}, "activation='gelu' is unknown: choose one of sigmoid, relu"),
  ("drill", {"depth": -1}, "depth=-1 must be at least 0"),
  ("dropout_decoupled", {"weight_dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\)"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_out_of_range_are_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(build_head(name, 5, **options).init, jax.random.key(0), jnp.ones((2, 3)))


def test_is_argmax_is_that_of_numpy_at_ties_too():
  logits = np.random.default_rng(0).integers(-2, 2, (40, 3, 6)).astype("float32")
  logits[0, 0] = -np.inf
  index = np.arange(6, dtype="int32")[:, None, None]
  expected = logits.argmax(-1) == index
  found = jax.vmap(is_argmax, (None, 0))(logits, np.broadcast_to(index, (6, 40, 3)))
  np.testing.assert_array_equal(found, expected)
  tied = np.zeros((1, 300), "float32")  # a narrow index must not cut the places
  assert not is_argmax(tied, np.array([200], "uint8"))[0] and is_argmax(tied, np.zeros(1, "u1"))[0]
  logits[1, :, 2] = np.nan
  assert not is_argmax(logits, np.zeros((40, 3), "int32"))[1].any()
