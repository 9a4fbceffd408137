"""Figures and tables of output layers: the better rate, every cell in its place, legible."""

import csv
import itertools

import numpy as np
import pytest

from rankbias import report, runs
from rankbias.report import bottleneck, bottleneck_tables
from rankbias.report.collect import collect

pytestmark = pytest.mark.filterwarnings("error")

HEADS = (
  {"name": "linear"},
  {"name": "plif", "knots": 1000, "scale": 1.0},
  {"name": "mixture_of_softmaxes", "components": 5},
)
MIXTURE = "mixture of softmaxes, components = 5, features of 5 𝑑"
GAIN = (0.0, 0.1, 0.4)  # of KL, by head
WIDTHS, CONCENTRATIONS, RATES = (5, 100), (0.01, 0.1, 1.0, 10.0), (0.03, 0.1)


def kl(a, d, i, rate, seed):
  """The first rate is better at width 5, the second elsewhere."""
  good = rate == RATES[0 if d == 5 else 1]
  return (1.0 - GAIN[i]) * 2 / np.sqrt(d) / (1 + a) + 0.01 * seed + (0 if good else 0.2)


def write(root, heads=HEADS, widths=WIDTHS, concentrations=CONCENTRATIONS, seeds=3):
  """One run folder for each head, width and concentration."""
  for a, d, (i, head) in itertools.product(concentrations, widths, enumerate(heads)):
    head = {"use_bias": True, **head} | ({"width": d} if i == 2 else {})
    common = {"data.concentration": a, "model.width": 5 * d if i == 2 else d, "head": head}
    members = [
      {**common, "seed": s, "optimizer.learning_rate": r} for s in range(seeds) for r in RATES
    ]
    config = {
      "data": {"name": "dirichlet", "concentration": a, "contexts": 40},
      "model": {"name": "contexts", "width": 5 * d if i == 2 else d},
      "head": head,
      "temperature": 1.0,
      "optimizer": {"learning_rate": 0.03},
    }
    folder = runs.prepare(
      root / runs.run_id(config, members),
      name="bottleneck_dirichlet",
      config=config,
      members=members,
      environment={**runs.environment(["TFRT_CPU_0"]), "data": "drawn"},
    )
    arrays, records = {}, []
    for index, member in enumerate(members):
      seed, rate = member["seed"], member["optimizer.learning_rate"]
      records.append(record(member, kl(a, d, i, rate, seed), d, i))
      arrays[f"{index}/curves/spectrum"] = 9.0 * np.exp(-np.arange(30) / (d + 5 * i)) * (1 + seed)
      if i < 2:
        arrays[f"{index}/curves/inputs"] = z = np.linspace(-5, 5 + seed, 20)
        arrays[f"{index}/curves/map"] = i * np.sin(z)
    timing = [{"event": "compile", "seconds": 9.0, "step": 100}]
    timing += [{"event": "train", "seconds": 1.2, "step": s} for s in (200, 300)]
    runs.append(folder, timing, file="timing.jsonl")
    data = {"name": "dirichlet", "train": 40, "classes": 30}
    model = {"name": "contexts", "parameters": 10 * d, "weight_layers": 2, "layers": ["contexts"]}
    result = {"format": 1, "name": "bottleneck_dirichlet", "data": data, "model": model}
    runs.finish(folder, {**result, "members": records}, arrays)


def record(member, divergence, d, i):
  own = {"kl": divergence, "mode_match": 0.5 + 0.1 * i, "press_rank": d + 2}
  own |= {"effective_rank": {"0.001": d}, "increasing": i < 2, "parameters": 10 * d}
  own["argmaxable"] = 20 if i < 2 else None
  return {
    "overrides": member, "temperature": 1.0, "seed": member["seed"], "steps": 300,
    "learning_rate": member["optimizer.learning_rate"], "status": "finished", "stopped_at": None,
    "last": {"loss": 1.0, "accuracy": 0.5}, "step_99": None, "bottleneck": own,
    **dict.fromkeys(("train", "test", "norms", "ranks", "tolerance")),
  }  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs") / "bottleneck_dirichlet"
  write(root)
  return collect(root)


def test_a_sweep_is_one_section_whose_cells_have_the_better_rate(sweep):
  (section,) = sweep.sections
  assert section.label == ""
  found = bottleneck.cells(section)
  assert len(found) == 24 and all(len(cell.members) == 3 for cell in found.values())
  for key, cell in found.items():
    assert cell.rate == (0.03 if key.width == 5 else 0.1)
  assert bottleneck.axes_of(found) == (
    [0.01, 0.1, 1, 10],
    [5, 100],
    [
      "linear",
      "PLIF, knots = 1000, scale = 1",
      MIXTURE,
    ],
  )
  own = found[bottleneck.Key(0.1, 5, "linear")]
  np.testing.assert_allclose(own.values("kl"), [kl(0.1, 5, 0, 0.03, s) for s in range(3)])
  np.testing.assert_array_equal(own.values("effective_rank", "0.001"), [5, 5, 5])


def test_figures_show_every_head_and_can_be_read(sweep, drawn, is_legible):
  (section,) = sweep.sections
  figures = {name: drawn(section, name) for name in ("fit", "maps", "log_spectra")}
  for figure, count in zip(figures.values(), (8, 4, 4), strict=True):
    is_legible(figure)
    assert len(figure.axes) == count
  top = figures["fit"].axes[1]
  lines = {line.get_label(): line for line in top.lines}
  expected = [np.mean([kl(0.1, d, 2, 0, s) for s in range(3)]) - 0.2 for d in WIDTHS]
  found = lines[MIXTURE]
  np.testing.assert_array_equal(found.get_xdata(), WIDTHS)
  np.testing.assert_allclose(found.get_ydata(), expected)
  labels = {line.get_label() for line in figures["maps"].axes[0].lines}
  assert "linear" not in labels and "PLIF, knots = 1000, scale = 1" in labels


def test_one_cell_with_one_seed_is_drawn_too(tmp_path, drawn, is_legible):
  write(tmp_path, HEADS[:2], (5,), (0.1,), seeds=1)
  (section,) = collect(tmp_path).sections
  for name in ("fit", "maps", "log_spectra"):
    is_legible(drawn(section, name))


def test_page_tables_and_csv(sweep):
  page = report.write_report(sweep.folder, figures=False)
  text = page.read_text()
  assert "At concentration 0.1 and width 5 the linear layer reaches a KL of" in text
  assert f"{MIXTURE}) a KL of" in text
  assert "50 to 1,000 parameters" in text and "Rank of the logits" not in text
  rows = list(csv.DictReader((sweep.folder / "bottleneck.csv").read_text().splitlines()))
  assert len(rows) == 24
  own = next(
    r for r in rows if (r["concentration"], r["width"], r["head"]) == ("0.1", "5", "linear")
  )
  values = [kl(0.1, 5, 0, 0.03, s) for s in range(3)]
  assert float(own["kl_mean"]) == pytest.approx(np.mean(values))
  assert float(own["kl_sd"]) == pytest.approx(np.std(values, ddof=1))
  assert own["learning_rate"] == "0.03" and own["parameters"] == "50"
  assert float(own["milliseconds"]) == pytest.approx(2400 / 200 / 6)
  mixture = next(r for r in rows if r["head"].startswith("mixture"))
  assert mixture["argmaxable_mean"] == ""


def test_the_finding_without_a_linear_layer(tmp_path):
  write(tmp_path, HEADS[1:2], (5,), (0.1,), seeds=1)
  (section,) = collect(tmp_path).sections
  assert "none of them with a linear layer" in bottleneck_tables.finding(section)
