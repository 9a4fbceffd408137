"""Programs that differ in numbers alone share what is compiled, and nothing else."""

import jax
import numpy as np
import pytest

from rankbias import data, program
from rankbias.config import base, override
from rankbias.train import loop, parallel


@pytest.fixture(scope="module")
def source():
  return data.load("digits", limit=64)


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
  monkeypatch.setattr(program, "latest", {})


def tiny(**own):
  c = base("tiny")
  c.steps, c.batch_size = 3, 16
  c.model.update(name="mlp", depth=3, width=8)
  return override(c, own)


def trained(built):
  state = loop.train(
    built.chunk,
    parallel.replicate(built.init()),
    built.constants(),
    rows=built.rows,
    start=0,
    steps=3,
    length=built.length,
    hooks=[],
    on_metrics=lambda *_: None,
    on_interrupt=lambda *_: None,
  )
  return parallel.fetch(state)


@pytest.fixture
def traces(monkeypatch):
  """Grows by one whenever the training loss is traced."""
  seen, make_loss = [], program.network.make_loss

  def counted(*args):
    loss = make_loss(*args)
    return lambda *own: seen.append(1) or loss(*own)

  monkeypatch.setattr(program.network, "make_loss", counted)
  return seen


def test_a_program_of_other_numbers_compiles_nothing_and_is_as_if_alone(source, traces):
  other = {"temperature": 5.0, "seed": 3, "init_scale": 0.5, "optimizer.learning_rate": 0.02}
  first = program.build([tiny()], source)
  second = program.build([tiny(**other)], source)
  assert second.chunk is first.chunk and second.predictor is first.predictor
  assert second.numbers != first.numbers
  before, count = trained(first), len(traces)
  shared = trained(second)
  assert len(traces) == count > 0
  program.latest.clear()
  alone = program.build([tiny(**other)], source)
  assert alone.chunk is not second.chunk
  jax.tree.map(np.testing.assert_array_equal, shared, trained(alone))
  leaves = zip(jax.tree.leaves(before["params"]), jax.tree.leaves(shared["params"]), strict=True)
  assert all((a != b).any() for a, b in leaves)


@pytest.mark.parametrize(
  "own", [{"steps": 4}, {"model.width": 9}, {"label_smoothing": 0.1}, {"optimizer.momentum": 0.5}]
)
def test_another_structure_shares_nothing(source, own):
  first = program.build([tiny()], source)
  assert program.build([tiny(**own)], source).chunk is not first.chunk


def test_other_images_or_another_number_of_members_share_nothing(source):
  first = program.build([tiny()], source)
  assert program.build([tiny()] * 2, source).chunk is not first.chunk
  again = program.build([tiny()], source)
  assert program.build([tiny()], data.load("digits", limit=64)).chunk is not again.chunk


def test_a_config_changed_later_does_not_change_a_program(source):
  """Functions are traced when first called, after the caller may have gone on with its config."""
  config = tiny()
  expected = trained(program.build([tiny()], source))
  program.latest.clear()
  built = program.build([config], source)
  config.label_smoothing, config.data.crop = 0.5, 2
  jax.tree.map(np.testing.assert_array_equal, trained(built), expected)
