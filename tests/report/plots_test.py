"""Figures: that they show the numbers, can be read, and are drawn again when they must be."""

import itertools
import os

import matplotlib
import numpy as np
import pytest

from rankbias.report import plots, style
from rankbias.report.collect import collect

pytestmark = pytest.mark.filterwarnings("error")


def drawn(section, name):
  (plot,) = (p for p in plots.PLOTS if p.name == name)
  with style.styled():
    figure = plot.draw(section)
    figure.draw_without_rendering()
  return figure


@pytest.fixture
def section(synthetic, grid, tmp_path):
  synthetic(layers=3, width=32).write(tmp_path, grid((1.0, 10.0, 100.0)))
  return collect(tmp_path).sections[0]


NAMES = ("rank", "accuracy", "layers", "spectra", "tolerance", "training", "singular_values")
SHAPES = {
  "usual": ({}, {}, {}),
  "one member": ({"layers": 1}, {"temperatures": (3.0,), "seeds": 1}, {}),
  "some diverged": ({"layers": 2}, {"temperatures": (0.1, 1.0, 10.0)}, {0: 5, 4: 34, 8: 0}),
  "all diverged": ({"layers": 2}, {"temperatures": (1.0, 10.0), "seeds": 1}, {0: 0, 1: 8}),
  "never 99 %": ({"layers": 2}, {"temperatures": (1e4, 1e5)}, {}),
  "many": (
    {"layers": 39, "width": 16, "classes": 100},
    {"temperatures": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 200.0, 1e3, 1e4), "seeds": 2},
    {},
  ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_is_legible_for_every_shape_of_sweep(
  shape, synthetic, grid, tmp_path, is_legible
):
  build, members, diverged = SHAPES[shape]
  synthetic(**{"width": 32} | build).write(tmp_path, grid(**members), diverged=diverged)
  (section,) = collect(tmp_path).sections
  names = [plot.name for plot in plots.shown(section)]
  assert names == (["training", "singular_values"] if shape == "all diverged" else list(NAMES))
  for name in names:
    is_legible(drawn(section, name))


def test_rank_figure_shows_mean_and_range_over_seeds(section):
  figure = drawn(section, "rank")
  for ax, layer in zip(figure.axes, section.layers[-2:], strict=True):
    for container, measure in zip(
      ax.containers, ("covariance_rank", "numerical_rank", "effective_rank"), strict=False
    ):
      line, _, (bars,) = container.lines
      for t, x, y, bar in zip(
        section.temperatures, line.get_xdata(), line.get_ydata(), bars.get_segments(), strict=True
      ):
        values = section.values(t, lambda m, k=layer, by=measure: m.rank(k, by))
        assert (x, y) == (t, pytest.approx(values.mean()))
        if values.min() < values.max():
          assert (bar[0, 1], bar[1, 1]) == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("name", ["layers", "tolerance"])
def test_panels_that_share_an_axis_hold_each_others_lines(name, section):
  for m in section.members:  # little spread in the first panel, and further ones far from it
    for i, (layer, ranks) in enumerate(m.record["ranks"].items()):
      ranks |= {"covariance_rank": 9.0 + i, "numerical_rank": 90.0}
      sweep, count = m.record["tolerance"], len(m.record["tolerance"]["rtol"])
      sweep["covariance_rank"][layer] = list(np.linspace(9, 12, count) * (1 + 9 * (i > 2)))
      sweep["numerical_rank"][layer] = list(np.linspace(90, 120, count) * (1 + 9 * (i > 2)))
  for ax in drawn(section, name).axes:
    low, high = ax.get_ylim()
    shown = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) > 2]
    assert shown
    assert all(low <= np.min(y) <= np.max(y) <= high for y in shown)


def test_training_figure_shows_step_0_apart_from_step_1(section):
  ax = drawn(section, "training").axes[0]
  assert 0 in ax.lines[0].get_xdata()
  (zero, _), (one, _), (end, _) = ax.transAxes.inverted().transform(
    ax.transData.transform([(0, 10), (1, 10), (4000, 10)])
  )
  assert 0 <= zero < one - 0.05 < end <= 1


def test_spectra_figure_is_normalised_and_marks_what_is_counted(section):
  raw = drawn(section, "spectra").axes[0]
  line = raw.lines[0]
  (member, *_) = section.finished(1.0)
  assert line.get_ydata()[0] == 1
  tolerance = raw.lines[-1].get_ydata()[0]
  counts = [m.rank(section.last_hidden, "numerical_rank") for m in section.finished(1.0)]
  assert min(counts) - 1 <= np.sum(line.get_ydata() > tolerance) <= max(counts) + 1
  assert len(member.spectra["logits"]) == 10


def test_singular_values_of_100_classes_are_thinned_evenly(synthetic, grid, tmp_path):
  synthetic(layers=1, classes=100).write(tmp_path, grid((1.0,), seeds=1))
  (section,) = collect(tmp_path).sections
  lines = drawn(section, "singular_values").axes[0].lines[:-1]
  last = section.members[0].rows[-1]["logits:singular_values"]
  assert 10 <= len(lines) <= 20
  assert lines[0].get_ydata()[-1] == pytest.approx(last[0])
  assert lines[-1].get_ydata()[-1] == pytest.approx(last[-1])


@pytest.mark.parametrize("count", [2, 4, 10])
def test_looks_differ_in_greyscale_too(count):
  looks = list(style.looks([float(i) for i in range(count)]).values())
  colors = np.array([matplotlib.colors.to_rgb(look["color"]) for look in looks])
  luminance = colors @ [0.2126, 0.7152, 0.0722]
  assert np.all(np.diff(luminance) > 0.02)
  assert luminance.max() < 0.8  # still seen on white
  assert len({look["marker"] for look in looks}) == count
  assert all(str(a["linestyle"]) != str(b["linestyle"]) for a, b in itertools.pairwise(looks))


def test_captions_say_what_the_spread_is(section, synthetic, grid, tmp_path):
  by_name = {plot.name: plot for plot in plots.PLOTS}
  caption = plots.caption(by_name["rank"], section)
  assert caption.endswith("Mean over 3 seeds; bars from the lowest to the highest seed.")
  caption = plots.caption(by_name["spectra"], section)
  assert caption.endswith("Geometric mean over 3 seeds; bands from the lowest to the highest seed.")
  synthetic(layers=1, width=16).write(tmp_path / "one", grid((1.0,), seeds=1))
  (single,) = collect(tmp_path / "one").sections
  assert plots.caption(by_name["rank"], single).endswith("hence no spread.")
  synthetic(layers=1, width=16).write(tmp_path / "two", grid((1.0, 2.0)), diverged={0: 3})
  (lost,) = collect(tmp_path / "two").sections
  assert "Mean over 2 to 3 seeds" in plots.caption(by_name["rank"], lost)


def test_drawing_leaves_the_callers_matplotlib_alone(section):
  before = dict(matplotlib.rcParams)
  matplotlib.rcParams["font.size"] = 31
  drawn(section, "accuracy")
  assert matplotlib.rcParams["font.size"] == 31
  matplotlib.rcParams["font.size"] = before["font.size"]
  assert dict(matplotlib.rcParams) == before


def test_figures_are_drawn_when_missing_or_older(synthetic, grid, tmp_path, monkeypatch):
  monkeypatch.setattr(plots, "PLOTS", [p for p in plots.PLOTS if p.name in ("rank", "layers")])
  run = synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=1))
  sweep = collect(tmp_path)

  def draw(**options):
    """Draws, returns the names of the files written and makes all as old as the result."""
    plots.draw(sweep, **options)
    files = sorted((tmp_path / "figures").iterdir())
    changed = [f.name for f in files if f.stat().st_mtime_ns != old]
    for f in files:
      os.utime(f, ns=(old, old))
    return changed

  old = (run / "result.json").stat().st_mtime_ns + 1
  every = ["layers.png", "layers.svg", "rank.png", "rank.svg"]
  assert draw() == every
  assert draw() == []
  (tmp_path / "figures" / "rank.svg").unlink()
  assert draw() == ["rank.png", "rank.svg"]
  assert draw(redraw=True) == every
  os.utime(run / "result.json", ns=(old + 1, old + 1))
  assert draw() == every


def test_drawing_twice_gives_the_same_bytes_and_pdf_when_asked(
  synthetic, grid, tmp_path, monkeypatch
):
  monkeypatch.setattr(plots, "PLOTS", [p for p in plots.PLOTS if p.name in ("rank", "layers")])
  synthetic(layers=2, width=16).write(tmp_path, grid((1.0, 10.0), seeds=2))
  sweep = collect(tmp_path)
  found = []
  for _ in range(2):
    plots.draw(sweep, formats=("svg", "png", "pdf"), redraw=True)
    found.append({f.name: f.read_bytes() for f in (tmp_path / "figures").iterdir()})
  assert found[0] == found[1]
  assert sorted(found[0]) == [
    f"{n}.{k}" for n in ("layers", "rank", "study") for k in ("pdf", "png", "svg")
  ]
  assert found[0]["rank.pdf"].startswith(b"%PDF")
