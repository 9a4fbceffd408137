"""Learning-rate rules, schedules, groups and weight decay of the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.config import base
from rankbias.train import optimizer

PARAMS = {"model": {"kernel": jnp.array([1.0, -2.0])}, "head": {"kernel": jnp.array([3.0])}}
GRADS = {"model": {"kernel": jnp.array([0.5, 0.25])}, "head": {"kernel": jnp.array([-1.0])}}


def options(**own):
  config = base("test").optimizer
  config.update(momentum=0.0, **own)
  return config.to_dict()


def one_update(own, rate=0.1, decay=0.0, steps=100):
  built = optimizer.make_optimizer(own, steps)({"learning_rate": rate, "weight_decay": decay})
  updates, _ = built.update(GRADS, built.init(PARAMS), PARAMS)
  return updates


def test_rules_in_temperature():
  rules = optimizer.LEARNING_RATE_RULES
  assert rules["same"](100.0, 8) == 1
  assert rules["equivalent"](256.0, 8) == 4
  assert rules["linear"](100.0, 8) == 100
  assert rules["quadratic"](100.0, 8) == 1e4
  assert all(rule(1.0, 5) == 1 for rule in rules.values())


def test_sgd_with_weight_decay_and_head_factors():
  own = options(head_learning_rate=2.0, head_weight_decay=3.0)
  updates = one_update(own, rate=0.1, decay=0.01)
  expected = -0.1 * (GRADS["model"]["kernel"] + 0.01 * PARAMS["model"]["kernel"])
  np.testing.assert_allclose(updates["model"]["kernel"], expected, rtol=1e-6)
  expected = -0.2 * (GRADS["head"]["kernel"] + 0.03 * PARAMS["head"]["kernel"])
  np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-6)


def test_decay_of_adam_passes_its_moments_and_that_of_adamw_does_not():
  """The first step of Adam is the sign of the gradient, whatever is added to it."""
  rate, decay = 0.1, 0.05
  sign = jax.tree.map(jnp.sign, GRADS)
  for name, shrunk in (("adam", 0.0), ("adamw", decay)):
    updates = one_update(options(name=name), rate, decay)
    expected = jax.tree.map(lambda s, p, shrunk=shrunk: -rate * (s + shrunk * p), sign, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)


def test_clipping_uses_the_norm_over_all_groups():
  own = options(clip_norm=0.1)
  norm = np.sqrt(0.25 + 0.0625 + 1)
  updates = one_update(own)
  np.testing.assert_allclose(updates["head"]["kernel"], [0.1 * 0.1 / norm], rtol=1e-6)


@pytest.mark.parametrize(
  ("schedule", "expected"),
  [("constant", [1, 1, 1, 1]), ("cosine", [1, 0.5, 0, 0]), ("step", [1, 0.1, 0.01, 0.01])],
)
def test_schedules(schedule, expected):
  factor = optimizer.make_schedule(options(schedule=schedule), steps=100)
  np.testing.assert_allclose([factor(s) for s in (0, 50, 100, 200)], expected, atol=1e-6)


def test_warmup_rises_linearly_and_delays_the_schedule():
  factor = optimizer.make_schedule(options(schedule="cosine", warmup_steps=10), steps=110)
  np.testing.assert_allclose(
    [factor(s) for s in (0, 4, 9, 10, 60)], [0.1, 0.5, 1, 1, 0.5], rtol=1e-6
  )


def test_adam_matches_its_formula_on_the_first_step():
  updates = one_update(options(name="adam"), rate=0.1)
  np.testing.assert_allclose(updates["model"]["kernel"], [-0.1, -0.1], rtol=1e-5)


def test_numbers_may_be_traced_and_vmapped():
  own = options()
  updates = jax.vmap(lambda rate: one_update(own, rate=rate))(jnp.array([0.1, 0.2]))
  np.testing.assert_allclose(updates["head"]["kernel"], [[0.1], [0.2]], rtol=1e-6)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("name", "sgdd"),
    ("schedule", "cos"),
    ("learning_rate_rule", "sqrt"),
    ("learning_rate", float("nan")),
    ("weight_decay", -1.0),
  ],
)
def test_bad_options_are_named(field, value):
  with pytest.raises(ValueError, match=rf"optimizer\.{field}={value!r}"):
    optimizer.check(options(**{field: value}))
