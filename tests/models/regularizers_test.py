"""Regularisers by name: which parameters they look at, what they do to them, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, network, ops, program
from rankbias.config import base, override
from rankbias.models import HEADS, REGULARIZERS, build_head, check_regularizers, penalty
from rankbias.train import loop, parallel

RNG = np.random.default_rng(0)
PARAMS = {
  "model": {
    "conv1": {"kernel": RNG.normal(size=(3, 3, 2, 5)), "bias": np.ones(5)},
    "norm": {"scale": np.full(4, 7.0)},
  },
  "head": {"linear": {"kernel": RNG.normal(size=(5, 4)), "bias": np.ones(4)}},
}


def test_terms_look_at_their_kernels_and_add_up_with_their_weights():
  conv, head = PARAMS["model"]["conv1"]["kernel"], PARAMS["head"]["linear"]["kernel"]
  expected = {
    "orthogonality": ops.orthogonality(conv.reshape(18, 5)) + ops.orthogonality(head),
    "mean_cosine": ops.mean_cosine(head.T),
    "spectrum": ops.spectrum_spread(head),
  }
  assert set(expected) == set(REGULARIZERS)
  for name, value in expected.items():
    np.testing.assert_allclose(penalty({name: 0.5}, PARAMS), 0.5 * value, rtol=1e-6)
  weights = {"orthogonality": 2.0, "mean_cosine": 3.0, "spectrum": 0}
  total = 2 * expected["orthogonality"] + 3 * expected["mean_cosine"]
  np.testing.assert_allclose(penalty(weights, PARAMS), total, rtol=1e-6)
  assert penalty({"spectrum": 0.0}, PARAMS) == 0


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_a_kernel_of_classes(name):
  features = jax.ShapeDtypeStruct((2, 8), "float32")
  params = jax.eval_shape(build_head(name, 6).init, jax.random.key(0), features)["params"]
  for term in REGULARIZERS.values():
    assert jax.eval_shape(term, {"model": {}, "head": params}).shape == ()


@pytest.mark.parametrize(
  ("weights", "message"),
  [
    ({"ortogonality": 1.0}, "regularizers.ortogonality is unknown. Did you mean 'orthogonality'"),
    ({"l1": 1.0}, "regularizers.l1 is unknown. Known: mean_cosine, orthogonality, spectrum"),
    ({"spectrum": -1.0}, "regularizers.spectrum=-1.0 must be a finite number >= 0"),
    ({"spectrum": "big"}, "regularizers.spectrum='big' must be a finite number"),
    ({"spectrum": float("inf")}, "regularizers.spectrum=inf must be a finite number"),
    (0.1, "regularizers=0.1 must be empty or terms and weights"),
  ],
)
def test_refusals(weights, message):
  with pytest.raises(ValueError, match=message):
    check_regularizers(weights)
  check_regularizers({})


def config(**own):
  c = base("tiny")
  c.steps, c.batch_size = 20, 8
  c.model.update(name="mlp", depth=3, width=12)
  c.optimizer.learning_rate = 0.03
  return override(c, own)


def trained(own):
  """The parameters of two members that train as one program, and the last step's metrics."""
  source, seen = data.load("digits", limit=64), {}
  built = program.build([own, override(own, {"seed": 1, "temperature": 10.0})], source)
  state = loop.train(
    built.chunk,
    parallel.replicate(built.init()),
    built.constants(),
    rows=built.rows,
    start=0,
    steps=own.steps,
    length=built.length,
    hooks=[],
    on_metrics=lambda first, metrics, seconds: seen.update(metrics),
    on_interrupt=lambda *_: None,
  )
  return parallel.fetch(state)["params"], {name: values[-1] for name, values in seen.items()}


@pytest.mark.slow
def test_every_term_lowers_what_it_measures_in_members_side_by_side():
  free, metrics = trained(config())
  assert set(metrics) == {"loss", "accuracy"}
  weights = {"orthogonality": 0.3, "mean_cosine": 1.0, "spectrum": 0.1}
  held, metrics = trained(config(regularizers=weights))
  assert set(metrics) == {"loss", "accuracy", "penalty"}
  assert (metrics["loss"] < 2.3).all() and (metrics["penalty"] > 0).all()
  for m in range(2):
    before, after = (jax.tree.map(lambda x, m=m: x[m], tree) for tree in (free, held))
    for name, term in REGULARIZERS.items():
      assert term(after) < 0.9 * term(before), name


def test_the_loss_that_is_logged_is_the_cross_entropy_alone():
  source = data.load("digits", limit=64)
  rows = {"x": source.splits["train"]["x"][:8], "y": source.splits["train"]["y"][:8]}
  batch, found = rows | {"positions": np.arange(8)}, {}
  for name, weights in (("free", {}), ("held", {"mean_cosine": 2.0})):
    own = config(regularizers=weights)
    model, head = network.build(own, source)
    variables, head_variables = network.init_variables(
      model, head, source, jax.random.key(0), own.dtype
    )
    params = {"model": variables["params"], "head": head_variables["params"]}
    loss = network.make_loss(model, head, source, own)
    numbers = {"temperature": jnp.float32(2.0)}
    value, (metrics, _) = jax.jit(loss)(params, {}, batch, jax.random.key(1), numbers)
    found[name] = value, metrics
  (free, _), (held, metrics) = found["free"], found["held"]
  np.testing.assert_allclose(metrics["loss"], free, rtol=1e-6)
  np.testing.assert_allclose(held, free + metrics["penalty"], rtol=1e-6)
  expected = 2 * ops.mean_cosine(params["head"]["linear"]["kernel"].T)
  np.testing.assert_allclose(metrics["penalty"], expected, rtol=1e-6)
