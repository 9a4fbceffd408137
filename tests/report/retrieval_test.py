"""Sets of many sizes: the table and its t-test equal the result, the page says what was run."""

import csv
import html
import io
import re

import numpy as np
import pytest
from scipy.stats import ttest_rel

from rankbias import report, runs
from rankbias.report import plots, remedies, retrieval_tables
from rankbias.report.collect import collect

pytestmark = pytest.mark.filterwarnings("error")

SIZES = (16, 128, 1024)
COLUMNS = ("as_trained", "adaptive", "fitted", "log_n", "hard_max")  # as they are shown
MINE = ["retrieval", "entropy", "attention", "attention_adaptive", "attention_fitted"]
MINE += ["bounds", "inverse_temperature"]
TRAINED = ["training", "singular_values"]


@pytest.fixture
def written(synthetic, grid, tmp_path):
  """A sweep of five seeds, one of which diverged; returns its folder."""
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0,), seeds=5), heads={"sizes": SIZES}, diverged={3: 8})
  return tmp_path


def accuracies(folder, column):
  """[seeds, sizes] in %, straight from the result."""
  (run,) = (runs.read(path)["result"] for path in runs.find(folder))
  found = [m["retrieval"] for m in run["members"] if m["status"] == "finished"]
  rows = [r["ceiling"] if column == "ceiling" else r["accuracy"][column] for r in found]
  return 100 * np.array(rows)


def text_of(page):
  page = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.S)
  return html.unescape(re.sub(r"<[^>]+>", "", page))


def names(folder):
  (section,) = collect(folder).sections
  return [plot.name for plot in plots.shown(section)]


def test_csv_holds_what_the_seeds_did_and_the_t_test_of_scipy(written):
  rows = list(csv.DictReader(io.StringIO(retrieval_tables.csv_table(collect(written)))))
  assert [(row["n"], row["sets"], row["seeds"]) for row in rows] == [
    ("16", "256", "4"),
    ("128", "256", "4"),
    ("1024", "64", "4"),
  ]
  base = accuracies(written, "as_trained")
  for column in (*COLUMNS, "ceiling"):
    values = accuracies(written, column)
    for i, row in enumerate(rows):
      assert float(row[f"{column}_mean"]) == pytest.approx(values[:, i].mean(), rel=1e-12)
      sd = values[:, i].std(ddof=1)
      assert float(row[f"{column}_sd"]) == pytest.approx(sd, rel=1e-9, abs=1e-12)
      if column in COLUMNS[1:]:
        p = ttest_rel(values[:, i], base[:, i]).pvalue
        assert float(row[f"{column}_p"]) == pytest.approx(p, rel=1e-9)
        gain = (values - base)[:, i].mean()
        assert float(row[f"{column}_gain"]) == pytest.approx(gain, rel=1e-9)
  assert not {"as_trained_p", "ceiling_p"} & set(rows[0])
  assert {"spread_mean", "log_n_entropy_mean", "hard_max_max_weight_sd"} <= set(rows[0])


def test_html_has_one_row_a_size_and_the_same_numbers(written):
  (section,) = collect(written).sections
  heading, main, *_ = retrieval_tables.html_tables(section)
  assert "Accuracy (%)" in heading
  rows = re.findall(r"<tr>(.*?)</tr>", main)
  head, *cells = (re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows)
  assert [text_of(h) for h in head] == [
    *("n", "sets", "as trained", "adaptive temperature", "p", "fitted temperature", "p", "ceiling")
  ]
  assert [row[0] for row in cells] == ["16", "128", "1,024"]
  for i, row in enumerate(cells):
    values = accuracies(written, "adaptive")[:, i]
    assert text_of(row[3]) == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
    p = ttest_rel(values, accuracies(written, "as_trained")[:, i]).pvalue
    shown = text_of(row[4]).replace("·10−", "e-")
    assert float(shown) == pytest.approx(p, rel=0.51 if p < 0.01 else 0, abs=0.005 * (p >= 0.01))


def test_p_equals_scipys_and_is_none_where_there_is_none():
  rng = np.random.default_rng(0)
  for count in (2, 3, 10, 50):
    for shift in (0.0, 1.0, 20.0):
      a = rng.normal(size=count)
      b = a + shift + rng.normal(size=count)
      assert remedies.paired_p(b - a) == pytest.approx(ttest_rel(b, a).pvalue, rel=1e-9)
  assert remedies.paired_p(np.array([3.0])) is None
  assert remedies.paired_p(np.zeros(5)) is None
  assert remedies.paired_p(np.array([0.1 + 0.2, 0.3, 0.3])) is None  # the same but for rounding
  assert remedies.paired_p(np.array([0.1, np.nan])) is None


def test_one_seed_has_no_p_and_no_spread(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=1), heads={"sizes": SIZES})
  text = report.write_report(tmp_path, figures=False).read_text()
  main = re.search(r"Accuracy \(%\) against the size.*?</table>", text, flags=re.S)[0]
  assert "±" not in main
  assert main.count("<td>–</td>") == 2 * len(SIZES)


def test_page_says_what_was_found_and_what_was_run(written):
  page = report.write_report(written, figures=False).read_text()
  text = text_of(page)
  first, last = (
    {c: accuracies(written, c)[:, i].mean() for c in (*COLUMNS, "ceiling")} for i in (0, -1)
  )
  for n, means in (("16", first), ("1,024", last)):
    assert (
      f"among {n} items {means['as_trained']:.1f} % as trained, {means['adaptive']:.1f} % with "
      f"adaptive temperature, {means['fitted']:.1f} % with fitted temperature, "
      f"{means['ceiling']:.1f} % at the ceiling"
    ) in text
  assert "10 classes; 360 fixed test examples" in text
  assert "16 to 128 items: 256 sets of each size; 1,024 items: 64 sets of each size" in text
  assert "hard maximum: topk_softmax, k = 1" in text
  assert "over 4 seeds" in text
  assert "rank and temperature" not in text
  assert (written / "retrieval.csv").read_text().startswith("setting,n,sets,seeds,as_trained_mean")


def test_figures_are_shown_where_their_entries_are(synthetic, grid, tmp_path):
  build, one = synthetic(layers=1, width=16), grid((1.0,), seeds=1)
  ranks = ["rank", "layers", "spectra", "tolerance"]
  build.write(tmp_path / "a", one, heads={})
  assert names(tmp_path / "a") == [*MINE, *ranks, *TRAINED]
  build.write(tmp_path / "b", one, heads={"fitted": False}, without=("ranks", "tolerance", "norms"))
  assert names(tmp_path / "b") == [m for m in MINE if m != "attention_fitted"] + TRAINED
  build.write(tmp_path / "c", one)
  assert not set(MINE) & set(names(tmp_path / "c"))
  build.write(tmp_path / "d", one, heads={}, diverged={0: 5})
  assert names(tmp_path / "d") == TRAINED
  assert "every one diverged" in report.write_report(tmp_path / "d", figures=False).read_text()
  assert not (tmp_path / "d" / "retrieval.csv").exists()


@pytest.mark.parametrize("heads", [None, {}], ids=["images", "sets"])
@pytest.mark.parametrize("gone", [False, True], ids=["null", "absent"])
def test_a_run_that_evaluated_nothing_else_gets_a_page(heads, gone, synthetic, grid, tmp_path):
  entries = ("train", "test", "norms", "ranks", "tolerance")
  folder = synthetic(layers=1, width=16).write(
    tmp_path, grid((1.0, 10.0), seeds=1), heads=heads, without=entries
  )
  if gone:
    result = runs.read(folder)
    for m in result["result"]["members"]:
      for entry in entries:
        del m[entry]
    runs.finish(folder, result["result"], result["arrays"])
  text = text_of(report.write_report(tmp_path, figures=False).read_text())
  expected = "nothing was evaluated" if heads is None else "The class of the largest is found"
  assert expected in text
  assert "Rank of the logits" not in text
  header = (tmp_path / "table.csv").read_text().split("\n")[0]
  assert header == "setting,temperature,finished,diverged,learning_rate_mean,learning_rate_sd"


def test_temperatures_that_measured_sets_get_a_section_each(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path, grid((1.0, 10.0), seeds=2), heads={})
  sections = collect(tmp_path).sections
  assert [s.label for s in sections] == ["temperature = 1", "temperature = 10"]
  assert [s.temperatures for s in sections] == [[1.0], [10.0]]
