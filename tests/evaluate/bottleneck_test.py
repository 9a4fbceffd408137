"""What an output layer makes of targets, for layers whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias import data, ops, rank
from rankbias.evaluate import Predictor, accuracy, check_options
from rankbias.evaluate.bottleneck import bottleneck
from rankbias.evaluate.spectra import at_first_label
from rankbias.models import build_head, build_model

CONTEXTS, CLASSES, WIDTH = 40, 30, 3


def predictor(name, temperature=1.0, spread=1.0, **options):
  """A random network with this head."""
  model = build_model("contexts", count=CONTEXTS, width=WIDTH)
  head = build_head(name, CLASSES, **options)
  x = jnp.arange(CONTEXTS)
  (features, _), variables = model.init_with_output(jax.random.key(0), x)
  own = head.init(jax.random.key(1), features)
  if "linear" in own["params"]:
    own["params"]["linear"]["kernel"] *= spread
    own["params"]["linear"]["bias"] = jax.random.normal(jax.random.key(2), (CLASSES,))
  return Predictor(
    model.apply,
    variables,
    head.apply,
    own,
    temperature,
    lambda v, f, t: head.apply(v, f, t, method="log_probs"),
  )


def source(targets=None):
  drawn = data.load("dirichlet", contexts=CONTEXTS, classes=CLASSES, draws=1)
  if targets is None:
    return drawn
  return drawn._replace(splits={"train": drawn.splits["train"] | {"y": np.float32(targets)}})


@pytest.fixture(scope="module")
def linear():
  return predictor("linear", temperature=2.0, spread=3.0)


def test_targets_that_the_layer_can_say_are_fitted(linear):
  logs = linear.log_probs(linear.apply(linear.params, np.arange(CONTEXTS))[0])
  found = bottleneck(linear, source(np.exp(logs)))
  own = found["bottleneck"]
  assert own["kl"] == pytest.approx(0, abs=1e-6) and own["mode_match"] == 1
  assert own["press_rank"] == WIDTH + 2
  assert own["parameters"] == CONTEXTS * WIDTH + WIDTH * CLASSES + CLASSES
  values = np.linalg.svd(np.float64(logs), compute_uv=False)
  np.testing.assert_allclose(found["curves"]["spectrum"][:5], values[:5], rtol=1e-5)
  share = np.cumsum(values**2) / np.sum(values**2)
  assert own["effective_rank"]["0.001"] == 1 + np.sum(share < 1 - 1e-3)
  kernel, bias = (linear.head_params["params"]["linear"][name] for name in ("kernel", "bias"))
  assert own["argmaxable"] == rank.argmaxable(kernel, bias).argmaxable.sum() < CLASSES
  assert own["increasing"]
  np.testing.assert_allclose(found["curves"]["map"], 0, atol=1e-5)


def test_divergence_and_modes_of_targets_with_zeros():
  targets = np.zeros((CONTEXTS, CLASSES))
  targets[:, 0] = targets[:, 1] = 0.5
  targets[0] = np.eye(CLASSES)[2]
  flat = predictor("linear")
  flat = flat._replace(head_params=jax.tree.map(jnp.zeros_like, flat.head_params))
  found = bottleneck(flat, source(targets))["bottleneck"]
  entropy = np.log(2) * (CONTEXTS - 1) / CONTEXTS
  assert found["kl"] == pytest.approx(np.log(CLASSES) - entropy, rel=1e-5)
  assert found["mode_match"] == 1 - 1 / CONTEXTS  # the first of equals on either side
  assert found["argmaxable"] == 0 and found["press_rank"] == 1


def test_accuracy_of_distributions_is_the_part_of_modes_and_the_loss_is_kl_and_entropy(linear):
  own = source()
  found = bottleneck(linear, own)["bottleneck"]
  (split,) = accuracy(linear, own).values()
  p = np.float64(own.splits["train"]["y"])
  entropy = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), -1).mean()
  assert split["accuracy"] == pytest.approx(found["mode_match"])
  assert split["loss"] == pytest.approx(found["kl"] + entropy, rel=1e-5)
  act = np.ones((CONTEXTS, WIDTH))
  assert at_first_label(act, own.splits["train"]["y"]) is act


def test_the_learned_map_is_read_off_the_logits():
  own = predictor("plif", spread=4.0, knots=12, bound=6.0, scale=1.0)
  found = bottleneck(own, source(), points=50)
  parameters = own.head_params["params"]
  places, curve = (found["curves"][name] for name in ("inputs", "map"))
  features = own.apply(own.params, np.arange(CONTEXTS))[0]
  inputs = features @ parameters["linear"]["kernel"] + parameters["linear"]["bias"][None, :]
  np.testing.assert_allclose([places[0], places[-1]], [inputs.min(), inputs.max()], rtol=1e-5)
  expected = np.asarray(ops.plif(places, parameters["plif"], bound=6.0)) - places
  inside = slice(5, -5)  # between sparse logits a line is drawn past a knot
  np.testing.assert_allclose(np.diff(curve[inside]), np.diff(expected[inside]), atol=0.05)
  assert np.ptp(curve) > 0.5
  same = bottleneck(own._replace(log_head=None, **as_linear(own)), source())
  assert found["bottleneck"]["argmaxable"] == same["bottleneck"]["argmaxable"]


def as_linear(own):
  """The linear layer below a map, as fields of a predictor."""
  return {
    "head": build_head("linear", CLASSES).apply,
    "head_params": {"params": {"linear": own.head_params["params"]["linear"]}},
  }


def test_a_kernel_that_the_head_makes_is_read_off_its_logits():
  own = predictor("drill", spread=3.0)
  layers = own.head_params["params"]
  layers["labels"] = jax.tree.map(lambda a: 4 * a, layers["labels"])
  head = build_head("drill", CLASSES)
  _, kernel, bias = head.apply(own.head_params, jnp.zeros((1, WIDTH)), method="last")
  found = bottleneck(own, source())
  count = rank.argmaxable(kernel, bias).argmaxable.sum()
  raw = layers["linear"]
  assert count != rank.argmaxable(raw["kernel"], raw["bias"]).argmaxable.sum()
  assert found["bottleneck"]["argmaxable"] == count < CLASSES
  np.testing.assert_allclose(found["curves"]["map"], 0, atol=1e-5)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mixture_of_contexts", {}),
    ("mixture_of_softmaxes", {}),
    ("drill", {"dual": True}),
    ("mixtape", {}),
  ],
)
def test_what_is_no_map_of_a_linear_layer_is_not_taken_for_one(name, options):
  found = bottleneck(predictor(name, spread=2.0, **options), source())
  assert not found["bottleneck"]["increasing"] and found["bottleneck"]["argmaxable"] is None
  assert set(found["curves"]) == {"spectrum"}
  assert found["bottleneck"]["kl"] > 0


def test_it_asks_for_data_with_distributions():
  with pytest.raises(ValueError, match="evaluate.bottleneck needs data.name 'dirichlet'"):
    check_options({"bottleneck": {}}, {"data.name": "digits"})
  with pytest.raises(ValueError, match="evaluate.bottleneck.points=0 must be at least 1"):
    check_options({"bottleneck": {"points": 0}}, {"data.name": "dirichlet"})
