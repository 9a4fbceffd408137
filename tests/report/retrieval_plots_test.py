"""Figures of sets of many sizes: that they show the numbers, hold the theory and can be read."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.text import Text

from rankbias import ops, report
from rankbias.report import dispersion, plots
from rankbias.report.collect import collect

pytestmark = pytest.mark.filterwarnings("error")

DOUBLED = tuple(2**k for k in range(4, 15))
SHAPES = {
  "usual": ({"sizes": DOUBLED}, 4),
  "not fitted, one seed": ({"fitted": False}, 1),
  "two sizes, small spread": ({"sizes": (16, 64), "spread": 0.7}, 2),
  "one size, no spread": ({"sizes": (16,), "spread": 0.0}, 2),
  "one item": ({"sizes": (1, 2, 4)}, 2),
}


@pytest.fixture
def make(synthetic, grid, tmp_path):
  """make(heads, seeds=...) -> the only section of a sweep."""

  def make(heads, seeds=3):
    synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=seeds), heads=heads)
    (section,) = collect(tmp_path).sections
    return section

  return make


def lines(ax):
  return {line.get_label(): line for line in ax.lines}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_is_legible(shape, make, is_legible, drawn):
  heads, seeds = SHAPES[shape]
  section = make(heads, seeds)
  for plot in plots.shown(section)[: 7 if heads.get("fitted", True) else 6]:
    figure = drawn(section, plot.name)
    is_legible(figure)
    # As texts: the extent of an annotation includes its line.
    notes = [Text.get_window_extent(text) for ax in figure.axes for text in ax.texts]
    for a, b in itertools.combinations(notes, 2):
      assert not a.padded(-2).overlaps(b), plot.name


def test_heat_maps_show_the_weights_of_the_first_seed_by_size(make, drawn):
  section, sizes = make({}), (16, 128, 1024)
  for name, column in (("attention", "as_trained"), ("attention_fitted", "fitted")):
    frames = [ax for ax in drawn(section, name).axes if ax.images]
    assert [ax.get_title() for ax in frames] == [f"𝑛 = {n:,}" for n in sizes]
    for ax, n in zip(frames, sizes, strict=True):
      (image,) = ax.images
      np.testing.assert_array_equal(image.get_array(), section.members[0].weights[f"{column}/{n}"])
      assert image.get_clim() == (0, 1)
      left, right, bottom, top = image.get_extent()
      assert left > right  # ascending order: the first rank, the largest item, is the last column
      assert bottom > top  # the first set is the uppermost


def test_accuracy_shows_means_the_paired_gain_ceiling_and_chance(make, drawn):
  section = make({"sizes": DOUBLED})
  left, right = drawn(section, "retrieval").axes
  found = [m.record["retrieval"] for m in section.members]

  def mean(column):
    return 100 * np.mean([f["accuracy"][column] for f in found], 0)

  own, gains = lines(left), lines(right)
  np.testing.assert_array_equal(own["as trained"].get_xdata(), DOUBLED)
  np.testing.assert_allclose(own["adaptive temperature"].get_ydata(), mean("adaptive"))
  np.testing.assert_allclose(own["ceiling"].get_ydata(), 100 * np.array(found[0]["ceiling"]))
  assert own["chance"].get_ydata()[0] == 10  # of ten classes
  for label, column in (("log n", "log_n"), ("fitted temperature", "fitted")):
    np.testing.assert_allclose(gains[label].get_ydata(), mean(column) - mean("as_trained"))


def test_entropy_shows_every_remedy_below_a_uniform_row(make, drawn):
  section = make({"sizes": DOUBLED})
  (ax,) = drawn(section, "entropy").axes
  own = lines(ax)
  assert len(own) == 6
  uniform = own.pop("log 𝑛, a uniform row").get_ydata()
  np.testing.assert_allclose(uniform, np.log(DOUBLED))
  assert all((line.get_ydata() <= uniform).all() for line in own.values())
  assert sorted(text.get_text() for text in ax.texts) == sorted([*own, "log 𝑛, a uniform row"])


@pytest.mark.parametrize("spread", [0.0, 0.7, 5.0, 60.0])
def test_bounds_are_those_of_the_operation_and_hold_what_lies_between(spread):
  n = np.array([1, 2, 16, 16384])
  low, high = dispersion.log_bounds(n, np.full(4, spread))
  expected = [np.log(np.asarray(bound, float)) for bound in ops.weight_bounds(n, spread)]
  np.testing.assert_allclose(low, expected[0], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(high, expected[1], rtol=1e-5, atol=1e-6)
  spaced = np.log(dispersion.evenly_spaced(n, np.full(4, spread)))
  assert (low - 1e-12 <= spaced).all()
  assert (spaced <= high + 1e-12).all()
  assert spaced[1] == pytest.approx(high[1])  # of two logits all spacings are one


def test_bounds_far_away_are_given_in_words(make, drawn):
  section = make({"sizes": DOUBLED, "spread": 300.0})
  left, _ = drawn(section, "bounds").axes
  assert "lower bound" not in lines(left)
  (note,) = (text.get_text() for text in left.texts)
  spread = np.mean([m.record["retrieval"]["spread"][0] for m in section.members])
  powers = [-(spread + np.log(n - 1)) / np.log(10) for n in (16, 16384)]
  assert re.findall(r"\{(-\d+)\}", note) == [f"{power:.0f}" for power in powers]
  assert left.get_ylim()[0] < 1 / DOUBLED[-1]


def test_near_bounds_are_drawn(make, drawn):
  left, _ = drawn(make({"sizes": (16, 64), "spread": 0.7}), "bounds").axes
  own = lines(left)
  assert not left.texts
  assert (own["lower bound"].get_ydata() < own["uniform row: 1/𝑛"].get_ydata()).all()
  assert (own["uniform row: 1/𝑛"].get_ydata() < own["upper bound"].get_ydata()).all()


def test_polynomial_is_that_of_the_operation_with_its_range():
  entropy = np.linspace(0, 10, 201)
  expected = np.asarray(ops.entropy_polynomial(entropy.astype(np.float32)))
  np.testing.assert_allclose(dispersion.polynomial(entropy), expected, rtol=1e-4)
  low, high = dispersion.valid_range()
  assert (round(low, 3), round(high, 3)) == (0.849, 5.945)


def test_fitted_curves_are_drawn_for_every_seed(make, drawn):
  section = make({"sizes": DOUBLED}, seeds=3)
  _, right = drawn(section, "inverse_temperature").axes
  curves = [line for line in right.lines if line.get_marker() == "o"]
  assert len(curves) == 3
  for line, m in zip(curves, section.members, strict=True):
    fitted = m.record["retrieval"]["fitted"]
    np.testing.assert_array_equal(line.get_xydata(), np.transpose(list(fitted.values())))


def test_the_page_holds_the_figures_and_needs_nothing_else(make, tmp_path, monkeypatch):
  wanted = ("attention", "inverse_temperature")
  monkeypatch.setattr(plots, "PLOTS", [p for p in plots.PLOTS if p.name in wanted])
  make({"sizes": (16, 64)}, seeds=2)
  page = report.write_report(tmp_path).read_text()
  assert page.count("<svg") == page.count("</figure>") == 2
  assert "Seed 0." in page
  assert "2 seeds." in page
  references = set(re.findall(r'(?:href|src)="([^"]+)"', page))
  assert all(r.startswith(("#", "data:", "figures/", "retrieval.csv", "table.csv"))
             for r in references)  # fmt: skip
