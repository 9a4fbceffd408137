"""Temperatures that change while training: their values, the learning rate, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rankbias.train import temperature
from rankbias.train.optimizer import LEARNING_RATE_RULES

T = np.array([1.0, 10.0, 1000.0])  # of three members


def annealed(kind, at, start=100.0, rule="same", length=None):
  """The numbers of three members at the steps `at` of a run of 200: arrays [3, steps]."""
  options = {"kind": kind, "start": start} | ({"steps": length} if length else {})
  anneal = temperature.make_anneal(options, 200, rule, 8)
  own = {
    "temperature": jnp.asarray(T),
    "learning_rate": jnp.full(3, 0.1),
    "weight_decay": jnp.full(3, 1e-3),
  }
  out = jax.jit(jax.vmap(anneal, (None, 0), 1))(own, jnp.asarray(at, jnp.int32))
  return jax.tree.map(np.asarray, out)


@pytest.mark.parametrize(
  ("kind", "quarter", "half"),
  [
    ("linear", 100 + (T - 100) / 4, (100 + T) / 2),
    ("cosine", 100 + (T - 100) * (1 - np.sqrt(0.5)) / 2, (100 + T) / 2),
    ("geometric", 100**0.75 * T**0.25, np.sqrt(100 * T)),
  ],
)
def test_every_kind_goes_from_its_start_to_the_members_own_temperature(kind, quarter, half):
  found = annealed(kind, [0, 25, 50, 99, 100, 150], length=100)["temperature"]
  expected = np.stack([np.full(3, 100.0), quarter, half], 1)
  np.testing.assert_allclose(found[:, :3], expected, rtol=1e-5)
  np.testing.assert_array_equal(found[:, 4:], np.stack([T, T], 1))  # to the bit
  assert (np.sign(found[:, 4] - found[:, 3]) == np.sign(T - 100)).all()  # up or down


def test_the_whole_run_is_the_default_length():
  found = annealed("linear", [0, 100, 200])["temperature"]
  np.testing.assert_allclose(found, np.stack([np.full(3, 100), (100 + T) / 2, T], 1), rtol=1e-6)


@pytest.mark.parametrize("rule", LEARNING_RATE_RULES)
def test_the_learning_rate_is_that_of_its_rule_at_the_temperature_of_the_step(rule):
  """0.1 is the rate at T, after the rule: the base rate is 0.1 / rule(T)."""
  factor = LEARNING_RATE_RULES[rule]
  found = annealed("geometric", [0, 50, 200], rule=rule)
  base = 0.1 / np.array([factor(t, 8) for t in T])[:, None]
  expected = base * np.broadcast_to(factor(found["temperature"], 8), (3, 3))
  np.testing.assert_allclose(found["learning_rate"], expected, rtol=1e-4)
  np.testing.assert_allclose(found["weight_decay"], 1e-3)


def test_without_a_schedule_the_numbers_are_the_same_objects():
  own = {"temperature": 3.0}
  assert temperature.make_anneal({}, 200, "same", 8)(own, 7) is own


def test_the_type_of_the_numbers_stays():
  anneal = temperature.make_anneal({"kind": "cosine", "start": 2}, 10, "equivalent", 3)
  with jax.enable_x64(True):
    for dtype in ("float32", "float64"):
      one = jnp.ones((), dtype)
      own = {"temperature": one, "learning_rate": one}
      shapes = jax.eval_shape(anneal, own, jax.ShapeDtypeStruct((), "int32"))
      assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (3.0, r"temperature_schedule=3.0 must be empty or"),
    ({"kind": "linear"}, "temperature_schedule.start is missing"),
    ({"start": 2.0}, "temperature_schedule.kind is missing"),
    ({"kind": "cos", "start": 2.0}, "kind='cos' is unknown; use linear, cosine, geometric"),
    ({"kind": "linear", "start": 0.0}, "start=0.0 must be a finite number > 0"),
    ({"kind": "linear", "start": float("nan")}, "start=nan must be a finite number > 0"),
    ({"kind": "linear", "start": 2.0, "end": 1.0}, "temperature_schedule.end is unknown; use kind"),
    ({"kind": "linear", "start": 2.0, "steps": 11}, r"steps=11 must lie in \[0, steps=10\]"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    temperature.check(options, 10)


def test_what_is_right_passes():
  for options in ({}, {"kind": "linear", "start": 2}, {"kind": "cosine", "start": 0.1, "steps": 0}):
    temperature.check(options, 10)
