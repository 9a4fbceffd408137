"""Targets drawn from a Dirichlet distribution: what they are, whose they are, what is refused."""

import jax
import numpy as np
import pytest

from rankbias import data
from rankbias.models import build_model


def test_rows_are_distributions_with_the_moments_of_their_concentration():
  for a in (0.01, 0.1, 1.0, 10.0):
    source = data.load("dirichlet", contexts=300, classes=40, concentration=a, draws=2)
    y = source.splits["train"]["y"]
    assert y.shape == (600, 40) and y.dtype == np.float32 and (y >= 0).all()
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(y.mean(), 1 / 40, rtol=1e-5)
    variance = (1 / 40) * (1 - 1 / 40) / (40 * a + 1)
    np.testing.assert_allclose(y.var(), variance, rtol=0.2)


def test_a_seed_chooses_its_draw_and_every_step_sees_the_whole_of_it():
  source = data.load("dirichlet", contexts=6, classes=4, draws=3)
  again = data.load("dirichlet", contexts=6, classes=4, draws=3)
  x, y = (source.splits["train"][name] for name in "xy")
  np.testing.assert_array_equal(y, again.splits["train"]["y"])
  for seed, draw in ((0, 0), (2, 2), (3, 0)):
    own = source.seen_by(seed).splits["train"]
    np.testing.assert_array_equal(own["x"], np.arange(6))
    np.testing.assert_array_equal(own["y"], y[6 * draw : 6 * draw + 6])
    rows = source.indices("train", 5, size=6, seed=seed)
    order = np.argsort(x[rows])
    np.testing.assert_array_equal(y[rows][order], own["y"])
  assert not np.array_equal(source.seen_by(0).splits["train"]["y"], y[6:12])
  fewer = data.load("dirichlet", contexts=6, classes=4, draws=1)
  np.testing.assert_array_equal(fewer.splits["train"]["y"], y[:6])  # more draws change none


def test_examples_are_indices_of_a_table_and_its_rows_are_the_features():
  source = data.load("dirichlet", contexts=6, classes=4, draws=2)
  batch = source.pick(source.constants(), np.array([7, 0, 6]))
  x, y, weights = source.examples(batch, None, 0, dtype="float32", crop=0, flip=False)
  assert x.tolist() == [1, 0, 0] and weights is None
  np.testing.assert_array_equal(y, source.splits["train"]["y"][[7, 0, 6]])
  model = build_model("contexts", count=6, width=3)
  (features, acts), variables = model.init_with_output(jax.random.key(0), x)
  table = variables["params"]["table"]["embedding"]
  assert table.shape == (6, 3)
  np.testing.assert_array_equal(features, table[x])
  np.testing.assert_array_equal(acts["contexts"], features)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"contexts": 0}, "data.contexts=0 must be at least 1"),
    ({"classes": 1}, "data.classes=1 must be at least 2"),
    ({"draws": 0}, "data.draws=0 must be at least 1"),
    ({"concentration": 0.0}, "data.concentration=0.0 must be a finite number > 0"),
    ({"limit": 3}, "data.limit=3: set data.contexts"),
  ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    data.load("dirichlet", **options)
  with pytest.raises(ValueError, match="measure.count must be 0 with data 'dirichlet'"):
    data.load("dirichlet", contexts=2, classes=2).fixed(1)
  with pytest.raises(ValueError, match="width=0 makes an empty table"):
    build_model("contexts", width=0)
