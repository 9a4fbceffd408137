"""Figures of probes, collapse, detection, calibration, mechanism, CKA and compression."""

import numpy as np
import pytest

from rankbias.report import foreign, mechanism, plots, reliability, similarity
from rankbias.report.collect import collect
from rankbias.report.plots import caption, shown
from rankbias.report.quantities import QUANTITIES

pytestmark = pytest.mark.filterwarnings("error")
LAYERS = ["layer1/relu", "layer2/relu", "logits"]
KERNELS = ["layer1", "layer2", "head/linear"]
NAMES = {"probes", "detection", "collapse", "alignment", "growth", "gradients"}
NAMES |= {"similarity", "reliability", "compression"}


def entries(seed):
  """What the evaluations find of a member, with the shapes that they give it."""
  noise = 0.01 * seed
  layers = {k: {"train": 1.0, "test": 0.9 - noise - 0.1 * i} for i, k in enumerate(LAYERS)}
  table = {"edges": [0.0, 0.5, 1.0], "confidence": [0.4, 0.9], "count": [4.0, 96.0]}
  table["accuracy"] = [0.25, 0.8 + noise]
  own = {"ece": 0.1, "ece_mass": 0.1, "mce": 0.2, "loss": 0.5, "reliability": table}
  nc = {"nc1": 0.5 + noise, "nc1_trace_ratio": 0.1, "cdnv": 0.2, "nc2": 0.7, "ortho_dev": 0.3}
  head = {"nc2_kernel": 0.6, "nc3": 0.4 + noise, "nc4": 0.99, "mean_logits_norm": 1.0}
  measures = {"aupr_in": 0.8, "aupr_out": 0.7, "fpr95": 0.4, "fpr95_out": 0.4}
  curve = [
    {"method": method, "rtol": r, "parameters": p, "saved": 1 - p / 1000, "loss": 0.3,
     "accuracy": 0.9 - r + noise, "ranks": {"layer2": 3}}
    for r, p in ((0.1, 200), (0.01, 600)) for method in ("activations", "weights")
  ]  # fmt: skip
  cuts = {k: {"parameters": p, "saved": 1 - p / 1000, "accuracy": 0.9}
          for k, p in zip(LAYERS[:2], (300, 700), strict=True)}  # fmt: skip
  return {
    "probe": {
      "method": "ridge", "layers": LAYERS, "id": layers, "ood": layers,
      "effective_depth": {"0.95": 0.5, "0.99": 1.0}, "ood_drop": 0.1, "best_layer": LAYERS[0],
    },
    "calibration": {"relative_temperature": 1.5, "before": own, "after": own},
    "collapse": {"layers": {k: nc | (head if k == LAYERS[1] else {}) for k in LAYERS}},
    "ood": {k: {"auroc": 0.8 + noise, **measures} for k in ("neco", "energy_untempered", "msp")},
    "ortho_dev": 0.3,
    "neco_by_dimension": {"dimension": [1, 2, 4 + seed], "auroc": [0.6, 0.7, 0.8], "rank": 4},
    "compression": {
      "parameters": 1000, "accuracy": 0.9, "curve": curve, "cuts": cuts,
      "superfluous_after": {"layer": LAYERS[seed % 2], **cuts[LAYERS[seed % 2]]},
    },
  }  # fmt: skip


@pytest.fixture
def section(synthetic, grid, tmp_path):
  """Members of which everything was measured."""
  synthetic(layers=2, width=16).write(tmp_path, grid((1.0, 10.0)), entries=entries)
  (found,) = collect(tmp_path).sections
  for m in found.members:
    for row in m.rows:
      for i, k in enumerate(KERNELS):
        row |= {f"{k}:alignment": 0.1 * (i + 1), f"{k}:gradient_numerical_rank": 3.0 + i}
        row |= {f"{k}:log_weights": 0.5, f"{k}:log_gain": -1.0, f"{k}:log_nonlinearity": 0.0}
    m.rows[-1]["layer1:log_gain"] = -0.5 * m.temperature
    m.similarity.update({k: np.linspace(1, 0.5, 6) for k in LAYERS})
  return found


def test_what_was_not_measured_is_not_shown(synthetic, grid, tmp_path, section):
  synthetic(layers=2, width=16).write(tmp_path / "bare", grid((1.0,), seeds=1))
  (bare,) = collect(tmp_path / "bare").sections
  assert not NAMES & {plot.name for plot in shown(bare)}
  assert {plot.name for plot in shown(section)} >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_figure_is_legible(name, section, drawn, is_legible):
  is_legible(drawn(section, name))
  (plot,) = (p for p in plots.PLOTS if p.name == name)
  ending = caption(plot, section).rpartition(". ")[2]
  assert "seed" in ending


def test_probes_show_both_tasks_by_layer(section, drawn):
  own, other = drawn(section, "probes").axes
  for ax in (own, other):
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [89, 79, 69])
  section.members[0].record["probe"]["ood"] = None
  assert len(drawn(section, "probes").axes) == 2
  for m in section.members:
    m.record["probe"]["ood"] = None
  assert len(drawn(section, "probes").axes) == 1


def test_detectors_are_those_of_tempered_logits(section, drawn):
  assert list(foreign.detectors(section)) == ["msp", "neco"]
  auroc, fpr, neco = drawn(section, "detection").axes
  np.testing.assert_allclose(auroc.containers[0].lines[0].get_ydata(), [0.81, 0.81])
  np.testing.assert_allclose(fpr.containers[0].lines[0].get_ydata(), [0.4, 0.4])
  np.testing.assert_array_equal(neco.lines[0].get_xdata(), [1, 2])  # which all seeds have


def test_reliability_pools_seeds_by_their_images(section):
  members = section.finished(1.0)
  members[0].record["calibration"]["before"]["reliability"] |= {"count": [40.0, 0.0]}
  confidence, accuracy = reliability.pooled(members, "before")
  np.testing.assert_allclose(confidence, [0.4, 0.9])
  np.testing.assert_allclose(accuracy, [0.25, 0.815])
  members[0].record["calibration"]["before"]["reliability"] |= {"count": [0.0, 0.0]}
  confidence, _ = reliability.pooled(members, "before")
  np.testing.assert_allclose(confidence, [0.9])  # eight images are too few to be shown


def test_growth_is_the_sum_of_its_parts(section, drawn):
  left, right = drawn(section, "growth").axes
  np.testing.assert_allclose(left.lines[0].get_ydata(), [0, 0, -0.5, -1.0])
  weights, gain, between = (c.lines[0].get_ydata() for c in right.containers)
  np.testing.assert_allclose(weights, [0, 0], atol=1e-12)
  np.testing.assert_allclose(gain, [0.5, -4.0])
  np.testing.assert_allclose(between, [0, 0])
  assert mechanism.kernels(section.members, "alignment") == KERNELS


def test_gradients_are_held_against_what_comes_in(section, drawn):
  *_, scatter = drawn(section, "gradients").axes
  member = section.finished(1.0)[0]
  first = scatter.lines[0].get_xydata()[0]
  np.testing.assert_allclose(first, [member.rows[0]["layer1/relu:numerical_rank"], 4.0])
  section.layers.append("more")  # no chain: what comes into a kernel is not known
  assert len(drawn(section, "gradients").axes) == 2


def test_similarity_compares_networks_of_other_seeds(section):
  low, high = section.finished(1.0), section.finished(10.0)
  values = np.linspace(1, 0.5, 6)  # of every member with each of the program
  assert similarity.between(high[:1], low, "logits") == pytest.approx(values[[1, 2]])
  assert similarity.between(high[:1], low[:1], "logits") == pytest.approx(values[[0]])


def test_similarity_is_read_from_the_arrays_of_the_program(synthetic, grid, tmp_path):
  folder = synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=2))
  with np.load(folder / "arrays.npz") as found:
    arrays = dict(found)
  matrix = np.array([[1.0, 0.3], [0.3, 1.0]])
  np.savez(folder / "arrays.npz", **arrays, **{"similarity/logits": matrix})
  (section,) = collect(tmp_path).sections
  first, second = similarity.compared(section)
  assert similarity.between([first], [second], "logits") == [0.3]


def test_compression_goes_from_many_parameters_to_few(section, drawn):
  activations, weights, cut = drawn(section, "compression").axes
  for ax in (activations, weights):
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.6, 0.2])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [90, 81])
  np.testing.assert_allclose(cut.lines[0].get_xdata(), [0.7, 0.3])
  rings = [line for line in cut.lines if line.get_markerfacecolor() == "none"]
  assert len(rings) == 2  # temperatures, each with a ring of every seed
  for ring in rings:
    np.testing.assert_allclose(ring.get_xydata(), [[0.3, 90], [0.7, 90], [0.3, 90]])
  for m in section.members:
    del m.record["compression"]["superfluous_after"]  # of a run from before it was found
  assert len(drawn(section, "compression").axes[2].lines) == len(cut.lines) - 2


def test_collapse_shows_what_was_measured(section, drawn):
  by_layer = ["NC1", "NC1 of traces", "CDNV", "NC2", "OrthoDev (NC5)"]
  of_head = ["NC2 of the classifier", "NC3", "NC4"]
  axes = drawn(section, "collapse").axes
  assert [ax.get_title() for ax in axes] == by_layer + of_head
  np.testing.assert_allclose(axes[1].lines[0].get_ydata(), [0.1] * 3)
  np.testing.assert_allclose(axes[2].lines[0].get_ydata(), [0.2] * 3)
  np.testing.assert_allclose(axes[6].containers[0].lines[0].get_ydata(), [0.41, 0.41])
  for m in section.members:
    for own in m.record["collapse"]["layers"].values():
      for key in ("ortho_dev", "nc2_kernel", "nc3", "nc4"):
        own.pop(key, None)
  assert [ax.get_title() for ax in drawn(section, "collapse").axes] == by_layer[:4]


def test_a_study_compares_collapse_and_size(section):
  own = {q.key: [q.get(m) for m in section.finished(1.0)] for q in QUANTITIES}
  assert own["nc1"] == pytest.approx([0.5, 0.51, 0.52])
  assert (own["nc1_trace_ratio"], own["cdnv"]) == ([0.1] * 3, [0.2] * 3)
  assert own["factored_saved"] == pytest.approx([40.0] * 3)  # at 0.01, by outputs
  assert own["factored_accuracy"] == pytest.approx([89.0, 90.0, 91.0])
  assert own["superfluous_saved"] == pytest.approx([70.0, 30.0, 70.0])
  assert own["superfluous_accuracy"] == pytest.approx([90.0] * 3)
