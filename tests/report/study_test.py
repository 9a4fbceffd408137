"""Studies: what is compared against what, intervals over seeds, and the page of many settings."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from rankbias import report
from rankbias.report import plots, study_figure, study_tables, style
from rankbias.report.collect import collect
from rankbias.report.quantities import QUANTITIES
from rankbias.report.readings import rank_at_loss
from rankbias.report.study import estimate, study

pytestmark = pytest.mark.filterwarnings("error")
TEST = next(q for q in QUANTITIES if q.key == "test_accuracy")
SCALE, WIDTH, DECAY = "init_scale", "model.width", "optimizer.weight_decay"
NORM = "model.norm"


@pytest.fixture
def made(synthetic, grid, tmp_path):
  """made([{field: value, ...}, ...], temperatures, seeds) -> the sweep of these settings."""

  def make(settings, temperatures=(1.0, 10.0), seeds=3, **options):
    members = [m for own in settings for m in grid(temperatures, seeds, **own)]
    synthetic(layers=2, width=16).write(tmp_path, members, **options)
    return collect(tmp_path)

  return make


def test_interval_is_students_and_of_the_seeds_that_finished(made):
  sweep = made([{SCALE: 0.5}, {SCALE: 1.0}], seeds=4, diverged={1: 5})
  (own, *_) = study(sweep).settings.values()
  members = [m for m in own if m.temperature == 1.0]
  values = [100 * m.record["test"]["accuracy"] for m in members if m.finished]
  found = estimate(members, TEST)
  low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  assert (found.n, len(members)) == (3, 4)
  assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9)
  assert estimate(members[:1], TEST) == (pytest.approx(values[0]), None, 1)
  assert estimate(members[1:2], TEST) == (None, None, 0)


def each(field, *values):
  return [{field: v} for v in values]


TWO = (1.0, 10.0)
ONE_AT_A_TIME = [{SCALE: s, DECAY: d} for s, d in ((1.0, 0.0), (2.0, 0.0), (1.0, 0.1), (1.0, 0.2))]
CHANGES = ["base", "weight decay = 0.1", "weight decay = 0.2", "init scale = 2"]


# Two fields change together in one setting, which is not a grid of them.
TOGETHER = [{SCALE: 1.0, DECAY: 0.0, WIDTH: 8}, {SCALE: 0.5, DECAY: 0.1, WIDTH: 8}]
TOGETHER += [{SCALE: 1.0, DECAY: 0.0, WIDTH: 16}, {SCALE: 1.0, DECAY: 0.1, WIDTH: 8}]
PAIRS = ["init scale = 0.5, weight decay = 0.1", "base", "width = 16", "weight decay = 0.1"]


@pytest.mark.parametrize(
  ("settings", "temperatures", "axis", "lines"),
  [
    (each(SCALE, 0.5, 2.0), TWO, "temperature", ["init scale = 0.5", "init scale = 2"]),
    (each(SCALE, 4.0, 0.5, 1.0), TWO, SCALE, ["𝑇 = 1", "𝑇 = 10"]),
    (each(WIDTH, 8, 32), (3.0,), WIDTH, [""]),
    (each(NORM, "none", "batch"), (1.0,), "", [""]),
    (each(NORM, "layer", "batch"), TWO, "temperature", ["norm = batch", "norm = layer"]),
    (ONE_AT_A_TIME, TWO, "temperature", CHANGES),
    (TOGETHER, TWO, "temperature", PAIRS),
  ],
)
def test_axis_and_lines(settings, temperatures, axis, lines, made):
  found = study(made(settings, temperatures, seeds=1))
  assert found.axis == axis
  assert list(found.lines) == lines
  assert sum(len(g) for line in found.lines.values() for g in line.values()) == len(settings) * len(
    temperatures
  )
  if axis == SCALE:
    assert found.values == [0.5, 1.0, 4.0]
  if not axis:
    assert found.values == ["norm = batch", "norm = none"]


def test_an_absent_regulariser_has_weight_0(made):
  penalties = ({}, {"orthogonality": 0.1}, {"orthogonality": 0.01})
  found = study(made([{"regularizers": p} for p in penalties], (1.0,), seeds=1))
  assert (found.axis, found.values) == ("regularizers.orthogonality", [0.0, 0.01, 0.1])
  assert list(found.settings) == [f"orthogonality = {v}" for v in ("0", "0.01", "0.1")]


def test_temperatures_alone_are_a_study_without_settings(made):
  sweep = made([{}], (1.0, 10.0, 100.0))
  found = study(sweep)
  assert (found.axis, found.fields, list(found.lines)) == ("temperature", [], [""])
  head, *_ = study_tables.html_tables(found)[1].partition("</thead>")
  assert "<tr><th><i>T</i></th><th>seeds</th>" in head


def test_one_setting_or_sets_of_many_sizes_are_no_study(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path / "a", grid((3.0,)))
  members = [{"temperature": 1.0, "seed": 0, "steps": n} for n in (10, 20)]
  synthetic(layers=1, width=16).write(tmp_path / "b", members, heads={})
  assert study(collect(tmp_path / "a")) is None
  assert study(collect(tmp_path / "b")) is None


def test_csv_has_every_quantity_of_every_setting(made):
  sweep = made([{SCALE: 0.5}, {SCALE: 1.0}], without=("norms",))
  rows = list(csv.DictReader(io.StringIO(study_tables.csv_table(sweep))))
  keys = {row["quantity"] for row in rows}
  assert keys == {
    "last_hidden_covariance_rank",
    "rank_at_loss",
    "logits_covariance_rank",
    "train_accuracy",
    "test_accuracy",
  }
  assert len(rows) == 2 * 2 * len(keys)
  members = study(sweep).settings["init scale = 1"]
  want = estimate([m for m in members if m.temperature == 10.0], TEST)
  (row,) = (
    r
    for r in rows
    if (r["init_scale"], r["temperature"], r["quantity"]) == ("1.0", "10.0", "test_accuracy")
  )
  assert (float(row["mean"]), float(row["half_width"]), row["n"]) == (want.mean, want.half, "3")


def at_loss(synthetic, grid, tmp_path, losses, ranks):
  """`rank_at_loss` at 0.01 of a member with these measurements; None stands for a NaN."""
  key = "layer2/relu:covariance_rank"
  synthetic(layers=2, width=16).write(tmp_path, grid((1.0,), 1))
  (member,) = collect(tmp_path).sections[0].members
  pairs = enumerate(zip(losses, ranks, strict=True))
  return rank_at_loss(member._replace(rows=[{"step": i, "loss": x, key: r} for i, (x, r) in pairs]))


@pytest.mark.parametrize(
  ("losses", "ranks", "expected"),
  [
    ((2.0, 0.04, 0.0025), (50, 40, 10), 20.0),  # half way in the logarithm of both
    ((2.0, 0.1, 0.001, 0.02, 0.001), (50, 40, 10, 7, 7), 20.0),  # the first time
    ((2.0, 1.0, 0.01), (50, 40, 10), 10.0),
    ((2.0, None, 0.08, None, 0.005, 0.001), (50, None, 40, None, 20, 8), 40 / 2**0.75),
    ((2.0, 1.0, 0.011), (50, 40, 10), None),
    ((0.009, 0.001), (50, 40), None),  # it was there before the first measurement
    ((2.0, 1.0, None, None), (50, 40, None, None), None),  # diverged
    ((), (), None),
  ],
)
def test_rank_at_a_loss(losses, ranks, expected, synthetic, grid, tmp_path):
  found = at_loss(synthetic, grid, tmp_path, losses, ranks)
  assert found == (expected if expected is None else pytest.approx(expected, rel=1e-9))


def test_figure_shows_means_and_intervals(made, is_legible):
  found = study(made([{SCALE: 0.5}, {SCALE: 1.0}]))
  with style.styled():
    figure = study_figure.draw(found)
    figure.draw_without_rendering()
  is_legible(figure)
  titles = [q.key for q in study_figure.panels(found)]
  ax = figure.axes[titles.index("test_accuracy")]
  for container, own in zip(ax.containers, found.settings.values(), strict=True):
    line, _, (bars,) = container.lines
    for i, t in enumerate((1.0, 10.0)):
      want = estimate([m for m in own if m.temperature == t], TEST)
      assert line.get_ydata()[i] == pytest.approx(want.mean)
      assert line.get_xdata()[i] == pytest.approx(t, rel=0.1)  # apart, so that bars are seen
      ends = bars.get_segments()[i][:, 1]
      assert ends == pytest.approx([want.mean - want.half, want.mean + want.half])
  caption = study_figure.caption(found)
  assert "mean over 3 seeds" in caption
  assert "95 % confidence interval of the mean, by Student's <i>t</i>" in caption


@pytest.mark.parametrize("shape", ["one seed", "numbers with 0", "names"])
def test_figure_is_legible_for_every_kind_of_axis(shape, made, is_legible):
  settings = {
    "one seed": [{SCALE: s} for s in (0.1, 0.3, 1.0, 3.0)],
    "numbers with 0": [{DECAY: d} for d in (0.0, 1e-4, 1e-3)],
    "names": [{"model.norm": n} for n in ("none", "batch", "layer")],
  }[shape]
  found = study(made(settings, (1.0,), seeds=1 if shape == "one seed" else 2))
  with style.styled():
    figure = study_figure.draw(found)
    figure.draw_without_rendering()
  is_legible(figure)
  assert ("Student" in study_figure.caption(found)) == (shape != "one seed")


def test_study_comes_first_and_few_settings_stand_open(made):
  sweep = made([{SCALE: 0.5}, {SCALE: 1.0}], seeds=2)
  text = report.write_report(sweep.folder, figures=False).read_text()
  assert text.index("<h2>Overview</h2>") < text.index("<h2>init_scale = 0.5</h2>")
  assert "<td>init scale = 0.5</td><td>1</td><td>2</td>" in text
  assert "Student's <i>t</i>" in text
  assert (sweep.folder / "study.csv").exists()
  assert not plots.is_folded(sweep)


def test_many_settings_are_folded_and_have_few_figures(made, monkeypatch):
  sweep = made([{SCALE: 0.5}, {SCALE: 10.0}], (1.0,), seeds=1)
  monkeypatch.setattr(plots, "MOST", 1)
  chosen = [p for p in plots.PLOTS if p.name in ("layers", "rank")]
  monkeypatch.setattr(plots, "PLOTS", chosen)
  text = report.write_report(sweep.folder).read_text()
  assert "<details><summary><b>init_scale = 10</b></summary>" in text
  assert text.count("<figure") == 1 + 2
  assert text.index("<b>Figure 1. All quantities side by side.</b>") < text.index("<b>Figure 2. ")
  assert "<b>Figure 3. Rank by layer.</b>" in text
  assert sorted(p.name for p in (sweep.folder / "figures").glob("*.svg")) == [
    "layers-2.svg",
    "layers.svg",
    "study.svg",
  ]
  assert [p.name for p in plots.shown(sweep.sections[0])] == ["rank", "layers"]
