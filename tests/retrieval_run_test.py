"""Max retrieval from a config to a result: several static forms of a batch in one program."""

import pathlib

import jax
import numpy as np
import pytest

from rankbias import experiment, program
from rankbias.config import load, override
from rankbias.train import loop, parallel

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "retrieval_adaptive.py"


@pytest.fixture(scope="module")
def source():
  return experiment.load_data(load(CONFIG, "smoke")[0])


def trained(source, length, members=({"seed": 0}, {"seed": 1}), **own):
  """The final state and the losses of the smoke config."""
  config = override(load(CONFIG, "smoke")[0], {"steps_per_call": length, **own})
  built = program.build([override(config, member) for member in members], source)
  losses = []
  state = loop.train(
    built.chunk,
    parallel.replicate(built.init()),
    built.constants(),
    rows=built.rows,
    variant=built.variant,
    start=0,
    steps=config.steps,
    length=built.length,
    hooks=[],
    on_metrics=lambda first, metrics, seconds: losses.append(metrics["loss"]),
    on_interrupt=lambda *_: None,
  )
  return parallel.fetch(state), np.concatenate(losses)


@pytest.mark.slow
def test_steps_a_call_and_company_do_not_matter(source):
  state, losses = trained(source, 40)
  assert losses.shape == (40, 2)
  _, again = trained(source, 7)
  np.testing.assert_allclose(again, losses, rtol=1e-4)
  alone, own = trained(source, 40, members=({"seed": 1},))
  np.testing.assert_allclose(own[:, 0], losses[:, 1], rtol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b[1], rtol=1e-2, atol=1e-4),
    alone["params"],
    state["params"],
  )


def test_it_learns(source):
  _, losses = trained(source, 100, steps=300, **{"optimizer.learning_rate": 1e-2})
  assert losses[:20].mean() > 2.1  # log 10 is 2.30
  assert losses[-20:].mean() < 1.6


@pytest.mark.slow
def test_result_of_the_smoke_config(source, tmp_path):
  config, sweep = load(CONFIG, "smoke")
  result = experiment.run(config, tmp_path, members=sweep(config), source=source)
  assert result["data"] == {"name": "max_retrieval", "test": 2048, "classes": 10}
  for member in result["members"]:
    found = member["retrieval"]
    assert found["sizes"] == [16, 64]
    assert found["sets"] == [128, 128]
    columns = {"as_trained", "fitted", *config.evaluate.retrieval.remedies}
    assert all(set(found[kind]) == columns for kind in ("accuracy", "entropy", "max_weight"))
    assert member["train"] is None
    assert set(member["test"]) == {"loss", "accuracy"}
    assert set(member["ranks"]) == {*result["model"]["layers"], "logits"}
