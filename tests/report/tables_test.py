"""Tables: means and standard deviations, in CSV and in HTML."""

import csv
import io

import numpy as np
import pytest

from rankbias import runs
from rankbias.report import tables
from rankbias.report.collect import collect


@pytest.fixture
def sweep(synthetic, grid, tmp_path):
  synthetic(layers=2, width=32).write(tmp_path, grid((1.0, 10.0, 1e4)), diverged={0: 5})
  return collect(tmp_path)


def test_csv_holds_mean_and_deviation_of_the_finished_seeds(sweep):
  rows = list(csv.DictReader(io.StringIO(tables.csv_table(sweep))))
  assert [float(row["temperature"]) for row in rows] == [1.0, 10.0, 1e4]
  assert [(row["finished"], row["diverged"]) for row in rows] == [
    ("2", "1"),
    ("3", "0"),
    ("3", "0"),
  ]
  (run,) = (runs.read(path)["result"] for path in runs.find(sweep.folder))
  for row in rows:
    members = [m for m in run["members"] if m["temperature"] == float(row["temperature"])]
    members = [m for m in members if m["status"] == "finished"]
    for key, get in {
      "test_accuracy": lambda m: 100 * m["test"]["accuracy"],
      "last_hidden_covariance_rank": lambda m: m["ranks"]["layer2/relu"]["covariance_rank"],
      "logits_stable_rank": lambda m: m["ranks"]["logits"]["stable_rank"],
      "logits_tempered_spectral_norm": lambda m: m["norms"]["tempered_spectral_norm"],
    }.items():
      values = np.array([get(m) for m in members])
      assert float(row[f"{key}_mean"]) == pytest.approx(values.mean(), rel=1e-12)
      assert float(row[f"{key}_sd"]) == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_csv_says_how_many_reached_99_percent(sweep):
  rows = list(csv.DictReader(io.StringIO(tables.csv_table(sweep))))
  assert [row["step_99_reached"] for row in rows] == ["2", "3", "0"]
  assert rows[2]["step_99_mean"] == ""


def test_html_rounds_to_the_columns_precision(sweep):
  (section,) = sweep.sections
  section.members[3].record["ranks"]["logits"]["stable_rank"] = 4.0
  section.members[4].record["ranks"]["logits"]["stable_rank"] = 5.0
  section.members[5].record["ranks"]["logits"]["stable_rank"] = None
  columns = [
    c for c in tables.tables(section)["Rank of the logits"] if c.key.endswith("stable_rank")
  ]
  html = tables.html_table(section, columns)
  assert "<td>4.5 <span>± 0.7</span> <b>(2 of 3)</b></td>" in html
  assert "<td>2 <b>+ 1 diverged</b></td>" in html


def test_large_norms_keep_three_digits_and_no_exponent(sweep):
  (section,) = sweep.sections
  for m in section.members[-3:]:
    m.record["norms"]["mean_norm"] = 123456.7
  columns = [c for c in tables.tables(section)["Training"] if c.key == "mean_norm"]
  assert "<td>123,457 <span>± 0</span></td>" in tables.html_table(section, columns)
