"""Output layers of language models: one section for all, tables with t-tests, legible figures."""

import csv
import io
import re

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from rankbias import report, runs
from rankbias.report import language, language_tables, plots
from rankbias.report.collect import collect
from rankbias.report.retrieval_tables import p_text

pytestmark = pytest.mark.filterwarnings("error")

PLIF = {"name": "plif", "bound": 20.0, "use_bias": True}
HEADS = (
  {"name": "linear", "use_bias": True},
  {"name": "tanh_cap", "cap": 30.0, "use_bias": True},
  {**PLIF, "knots": 1000, "scale": 0.0, "frozen": False},
  {**PLIF, "knots": 100_000, "scale": 1.0, "frozen": False},
  {**PLIF, "knots": 100_000, "scale": 1.0, "frozen": True},
  {"name": "mixture_of_softmaxes", "components": 3, "use_bias": True},
)
NAMES = ("linear", "tanh cap", "PLIF, knots 1,000, scale 0", "PLIF, knots 100,000, scale 1")
NAMES += ("PLIF, frozen, knots 100,000, scale 1", "mixture of softmaxes")
RANKS = (202, 4096, 240, 230, 230, 4096)


def final(i, seed):
  rng = np.random.default_rng((i, seed))
  return 118.0 - 3 * i + rng.normal()


def write(root, heads=HEADS, seeds=3, steps=(500, 1000, 1500, 2000), **more):
  """One run folder for every head and seed, with the numbers that `final` says."""
  for i, head in enumerate(heads):
    for seed in range(seeds):
      member = {"head": head, "model.features": 200 - i, "seed": seed} | more
      config = {
        "data": {"name": "ptb"}, "model": {"name": "lstm", "features": 200 - i}, "head": head,
        "seed": seed, "temperature": 1.0, "steps": 2000, "select": {"split": "valid", "every": 500},
      }  # fmt: skip
      folder = runs.prepare(
        root / runs.run_id(config, [member]), name="lm_ptb", config=config, members=[member],
        environment={**runs.environment(["TFRT_CPU_0"]), "data": "ptb: made up"},
      )  # fmt: skip
      valid = final(i, seed)
      decay = [valid * (1 + 2.0 * np.exp(-step / 400)) for step in steps]
      rows = [
        {"step": s, "split": "valid", "perplexity": v} for s, v in zip(steps, decay, strict=True)
      ]
      train = [{"step": 10, "member": 0, "split": "train", "loss": 6.0, "accuracy": 0.1}]
      runs.append(folder, [*train, *({**row, "member": 0, "loss": 1.0} for row in rows)])
      times = [{"event": "compile", "step": 100, "seconds": 60.0}]
      times += [{"event": "train", "step": s, "seconds": 30.0} for s in (200, 300)]
      runs.append(folder, times, file="timing.jsonl")
      spectrum = np.exp(-np.arange(512) / (8 + 6 * i)) + 1e-8
      record = {
        "overrides": member, "temperature": 1.0, "seed": seed, "steps": 2000, "status": "finished",
        "learning_rate": 0.003, "stopped_at": None, "last": {"loss": 4.0, "accuracy": 0.2},
        "step_99": None, "train": None, "test": None, "norms": None, "ranks": None,
        "best": {"step": 2000 - 500 * (seed == 1), "loss": np.log(valid)},
        "perplexity": {"valid": valid, "test": valid - 3.5},
        "log_probability_rank": {
          "contexts": 512, "classes": 10_000, "press_rank": float(RANKS[i]),
          "effective_rank": {"0.001": 50.0 + i, "0.0001": 100.0, "1e-05": 200.0},
        },
        "last_layer": {
          "increasing": i < 5, "never_first": 30 + i if i < 5 else None,
          "width": None if i else 200, "features": 200,
        },
      }  # fmt: skip
      model = {"name": "lstm", "parameters": 5_450_000 + i, "weight_layers": 3, "layers": []}
      data = {"name": "ptb", "train": 26_559, "test": 2_355, "classes": 10_000}
      found = {"format": 1, "name": "lm_ptb", "data": data, "model": model, "members": [record]}
      runs.finish(folder, found, {"0/curves/log_probabilities": spectrum})
  return root


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  return write(tmp_path_factory.mktemp("lm"))


def test_all_output_layers_are_one_section_by_names_that_tell_them_apart(written):
  (section,) = collect(written).sections
  found = language.heads(section)
  assert tuple(found) == NAMES
  assert all([m.record["seed"] for m in own] == [0, 1, 2] for own in found.values())
  assert [plot.name for plot in plots.shown(section)] == ["perplexity", "log_probabilities"]


def test_what_differs_within_an_output_layer_is_a_section(tmp_path):
  write(tmp_path, HEADS[:2], seeds=1)
  write(tmp_path, HEADS[:2], seeds=1, **{"optimizer.learning_rate": 0.1})
  labels = [section.label for section in collect(tmp_path).sections]
  assert sorted(labels) == [f"optimizer.learning_rate = {x}" for x in ("0.1", "None")]


def test_a_learning_rate_of_its_own_makes_another_output_layer(tmp_path):
  rate = "optimizer.head_learning_rate"
  write(tmp_path, HEADS[:2], seeds=2, **{rate: 1.0})
  write(tmp_path, HEADS[:1], seeds=2, **{rate: 0.25})
  (section,) = collect(tmp_path).sections
  own = {name: len(members) for name, members in language.heads(section).items()}
  assert own == {"linear": 2, "linear, head learning rate 0.25": 2, "tanh cap": 2}


def test_csv_holds_what_the_seeds_did_and_the_tests_of_scipy(written):
  sweep = collect(written)
  table = list(csv.DictReader(io.StringIO(language_tables.csv_table(sweep))))
  assert [row["output_layer"] for row in table] == list(NAMES)
  base = np.array([final(0, seed) for seed in range(3)])
  for i, row in enumerate(table):
    values = np.array([final(i, seed) for seed in range(3)])
    assert float(row["valid_mean"]) == pytest.approx(values.mean())
    assert float(row["test_sd"]) == pytest.approx(values.std(ddof=1))
    assert float(row["Press_rank_mean"]) == RANKS[i]
    assert float(row["milliseconds_mean"]) == pytest.approx(300)  # 60 s after the first 100 steps
    assert float(row["best_step_mean"]) == pytest.approx(5500 / 3)
    assert row["never_first_mean"] == (f"{30.0 + i}" if i < 5 else "")
    assert row["estimated_width_mean"] == ("" if i else "200.0")
    if i:
      welch, paired = ttest_ind(values, base, equal_var=False), ttest_rel(values, base)
      assert float(row["valid_p_welch"]) == pytest.approx(welch.pvalue, rel=1e-9)
      assert float(row["valid_p_paired"]) == pytest.approx(paired.pvalue, rel=1e-9)
  assert table[0]["valid_p_welch"] == ""


def test_the_page_has_the_table_and_the_frozen_map_against_the_learned(written):
  page = report.write_report(written, figures=False).read_text()
  assert (written / "language.csv").exists()
  row = re.search(r"<td>PLIF, frozen, knots 100,000, scale 1</td>(.*?)</tr>", page).group(1)
  means = [np.mean([final(4, seed) for seed in range(3)]) - drop for drop in (0, 3.5)]
  assert all(f"<td>{mean:.2f} <span>" in row for mean in means)
  a, b = (np.array([final(i, seed) - 3.5 for seed in range(3)]) for i in (3, 4))
  p = ttest_ind(a, b, equal_var=False).pvalue
  told = f"scale 1: learned {a.mean():.2f}, frozen {b.mean():.2f} (test; <i>p</i> = "
  assert f"{told}{p_text(p)}" in page
  assert "with the layer best on valid, mixture of softmaxes" in page
  assert "512 contexts and 10,000 tokens" in page
  assert "Training</h3>" not in page  # tables by temperature say nothing here


def test_one_seed_has_no_test_and_a_missing_linear_layer_no_comparison(tmp_path, drawn):
  write(tmp_path, HEADS[1:3], seeds=1)
  sweep = collect(tmp_path)
  for row in language_tables.rows(sweep, sweep.sections[0]):
    assert not [key for key in row if key.endswith(" p")]
  assert len(drawn(sweep.sections[0], "perplexity").axes) == 1
  assert report.write_report(tmp_path, figures=False).exists()


def test_welch_equals_scipy_and_is_none_where_it_does_not_exist():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=4), 2 + 3 * rng.normal(size=7)
  assert language.welch_p(a, b) == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)
  assert language.welch_p(a[:1], b) is None
  assert language.welch_p(np.ones(3), np.zeros(3)) is None


@pytest.mark.parametrize("name", ["perplexity", "log_probabilities"])
def test_figures_are_legible_and_show_what_was_measured(written, drawn, is_legible, name):
  (section,) = collect(written).sections
  figure = drawn(section, name)
  is_legible(figure)
  lines = {line.get_label(): line for line in figure.axes[0].lines}
  assert set(NAMES) <= set(lines)
  if name == "perplexity":
    last = np.mean([final(0, seed) for seed in range(3)]) * (1 + 2 * np.exp(-5))
    assert lines["linear"].get_ydata()[-1] == pytest.approx(last)
    above = {line.get_label(): line for line in figure.axes[1].lines}
    assert np.abs(above["linear"].get_ydata()).max() < 1e-9


def test_a_long_spectrum_is_drawn_by_few_points_and_with_its_edge():
  logs = np.stack([np.linspace(0, -5, 4096), np.linspace(0, -6, 4096)])
  logs[1, 1777:] -= 20
  drawn = language._drawn(logs)
  assert len(drawn) <= language.POINTS + 2 and {0, 1776, 1777, 4095} <= set(drawn)
  assert np.diff(np.log(drawn + 1)).max() < np.log(2) + 1e-9
  assert np.diff(np.log(drawn[200:] + 1)).max() < 0.03


def test_the_linear_layer_comes_before_itself_at_a_rate_of_its_own():
  layers = [{"name": "mixtape"}, {"name": "linear", "head_learning_rate": 0.25}, {"name": "linear"}]
  found = sorted(layers, key=language._place)
  assert language._names(found) == ["linear", "linear, head learning rate 0.25", "Mixtape"]


def test_seeds_that_ended_early_are_compared_where_all_were_measured(tmp_path):
  write(tmp_path, HEADS[:1], seeds=2)
  (folder, *_) = runs.find(tmp_path)
  text = (folder / "metrics.jsonl").read_text().splitlines()
  (folder / "metrics.jsonl").write_text("\n".join(text[:-1]) + "\n")
  (section,) = collect(tmp_path).sections
  steps, curves = language._curves(language.heads(section)["linear"])
  assert steps == [500, 1000, 1500] and curves.shape == (2, 3)
