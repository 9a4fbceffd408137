"""A study in one sentence: the ends of its axis, how sure they are, and nothing of why."""

import numpy as np
import pytest
from scipy import stats

from rankbias import report
from rankbias.report import finding
from rankbias.report.collect import collect
from rankbias.report.study import study

pytestmark = pytest.mark.filterwarnings("error")
SCALE, NORM = "init_scale", "model.norm"
TWO = [{SCALE: 0.5}, {SCALE: 1.0}]


@pytest.fixture
def made(synthetic, grid, tmp_path):
  """made([{field: value, ...}, ...], temperatures, seeds) -> the sweep of these settings."""

  def make(settings, temperatures=(1.0, 10.0), seeds=3, **options):
    members = [m for own in settings for m in grid(temperatures, seeds, **own)]
    synthetic(layers=2, width=16).write(tmp_path, members, **options)
    return collect(tmp_path)

  return make


def said(sweep, rank):
  """The sentence of a study whose last hidden layer has rank(member), whatever was written."""
  for section in sweep.sections:
    for m in section.members:
      if m.finished:
        m.record["ranks"]["layer2/relu"]["covariance_rank"] = rank(m)
        m.record["test"]["accuracy"] = 0.1 if m.temperature == 1.0 else 0.9
  return finding.of_study(study(sweep)).replace("<span>", "").replace("</span>", "")


START = "The covariance rank of the last hidden layer "
END = "; mean test accuracies are 10.0 to 90.0 %)."


def test_a_study_is_said_in_one_sentence(made):
  sweep = made(TWO, diverged={4: 5})  # a seed of 0.5 at T = 10
  text = said(
    sweep, lambda m: 10 * m.setting[SCALE] * (m.temperature == 10.0) + 20 + m.record["seed"]
  )
  half = stats.t.ppf(0.975, 2) / np.sqrt(3)
  two = stats.t.ppf(0.975, 1) * 1.0  # of 25 and 27
  assert text == (
    f"{START}from <i>T</i> = 1 to 10: 21.0 ± {half:.1f} to 26.0 ± {two:.1f} (init scale = 0.5); "
    f"21.0 ± {half:.1f} to 31.0 ± {half:.1f} (init scale = 1) (means over seeds with their 95 % "
    f"confidence intervals, which overlap for init scale = 0.5 and not elsewhere{END}"
  )
  apart = said(sweep, lambda m: 10 * m.temperature + 0.1 * m.record["seed"])
  assert "which do not overlap in any line;" in apart
  assert "which overlap in every line;" in said(sweep, lambda m: 10.0 + m.record["seed"])


def test_a_line_without_an_end_says_where_it_is(made):
  sweep = made(TWO, diverged={3: 5, 4: 5, 5: 5})
  text = said(sweep, lambda m: 10.0 * m.temperature)
  assert f"{START}from <i>T</i> = 1 to 10: 10.0 ± 0.0 at <i>T</i> = 1 (init scale = 0.5); " in text
  assert "which do not overlap;" in text


def test_single_seeds_have_no_interval(made):
  text = said(made([{SCALE: 0.5}, {SCALE: 2.0}], seeds=1), lambda m: 10.0 * m.temperature)
  assert "10.0 to 100.0 (init scale = 2) (single seeds have no interval; mean" in text


def test_what_was_not_measured_is_not_said(made):
  assert finding.of_study(study(made(TWO, without=("ranks", "test")))) == ""


def test_settings_without_an_axis_are_ordered_by_what_is_said(made):
  sweep = made([{NORM: name} for name in ("none", "batch", "layer")], (1.0,))
  by_norm = {"none": 30.0, "batch": 50.0, "layer": 10.0}
  text = said(sweep, lambda m: by_norm[m.setting[NORM]] + m.record["seed"])
  assert text.startswith(f"{START}is lowest, 11.0 ± 2.5, with norm = layer and highest, 51.0 ± ")
  assert "with norm = batch (means over seeds" in text and "which do not overlap;" in text
  page = report.write_report(sweep.folder, figures=False).read_text()
  assert f'<p class="lead">{START}is lowest' in page
