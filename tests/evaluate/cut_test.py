"""After which layer the others are superfluous: layers that are right as often as is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from rankbias.config.studies import PROBE
from rankbias.evaluate import Predictor
from rankbias.evaluate.cut import MAX_FEATURES, superfluous_after

LABELS = np.random.default_rng(0).integers(0, 3, 400).astype(np.int32)


def known_layers(*wrong):
  """Layers that show the label, but another one for a share of the rows; there is no test split."""
  rng = np.random.default_rng(3)
  shown = [np.where(rng.random(400) < share, (LABELS + 1) % 3, LABELS) for share in wrong]
  x = np.concatenate([np.eye(3, dtype="f4")[labels] for labels in shown], 1)

  def run(params, x, **_):
    return x[:, -3:], {f"layer{i}": params * x[:, 3 * i : 3 * i + 3] for i in range(len(wrong))}

  held = np.random.default_rng(0).permutation(400)[::5]
  right = [np.mean(labels[held] == LABELS[held]) for labels in shown]
  source = SimpleNamespace(splits={"train": {"x": x, "y": LABELS}}, num_classes=3)
  return Predictor(run, np.float32(2), lambda params, z: z, ()), source, right


@pytest.mark.parametrize(
  ("wrong", "tolerance", "expected"),
  [
    ((0.3, 0.1, 0.0, 0.0), None, 2),  # its standard error is 0
    ((0.3, 0.1, 0.0, 0.0), 0.15, 1),
    ((0.3, 0.1, 0.0, 0.0), 0.9, 0),
    ((0.3, 0.1, 0.14), None, 1),  # by less than a standard error worse
    ((0.3, 0.1, 0.14), 0.0, 2),
    ((0.4, 0.0, 0.2, 0.1), None, 1),  # better than the last
    ((0.3, 0.2, 0.1, 0.0), None, 3),  # none is superfluous
  ],
)
def test_layers_are_superfluous_after_the_first_that_is_as_good(wrong, tolerance, expected):
  predictor, source, right = known_layers(*wrong)
  found = superfluous_after(predictor, source, tolerance)
  assert found["held_out"] == pytest.approx({f"layer{i}": p for i, p in enumerate(right)})
  assert (found["layer"], found["rows"]) == (f"layer{expected}", 80)
  own = np.sqrt(right[-1] * (1 - right[-1]) / 80) if tolerance is None else tolerance
  assert found["tolerance"] == pytest.approx(own)


def test_rows_that_score_choose_nothing():
  """The probe and its strength are those of the other rows: what is said of these is unseen."""
  predictor, source, _ = known_layers(0.3, 0.1)
  held = np.random.default_rng(0).permutation(400)[::5]
  y = LABELS.copy()
  y[held] = (y[held] + 2) % 3
  source.splits["train"]["y"] = y
  found = superfluous_after(predictor, source)
  shown = np.argmax(np.asarray(source.splits["train"]["x"])[held].reshape(80, 2, 3), 2)
  expected = {f"layer{i}": np.mean(shown[:, i] == y[held]) for i in range(2)}
  assert found["held_out"] == pytest.approx(expected)


def test_probes_see_what_those_of_the_studies_see():
  assert PROBE["max_features"] == MAX_FEATURES


def test_a_tolerance_that_is_none():
  predictor, source, _ = known_layers(0.1, 0.0)
  with pytest.raises(ValueError, match=r"tolerance=1.5 must lie in \[0, 1\), a share of right"):
    superfluous_after(predictor, source, 1.5)
