"""Figures and tables of exact answers: that they show the numbers, and say when they are void."""

import re

import numpy as np
import pytest

from rankbias import report
from rankbias.report.collect import collect

pytestmark = pytest.mark.filterwarnings("error")

SPLITS = {"train": [4, 5, 6], "test": [4, 5, 6], "test/16": [16], "test/32": [32]}
ALGORITHMS = "minimum", "insertion_sort", "bfs", "lcs_length", "kmp_matcher"
LAYERS = "layer1", "layer2", "layer3"


def answers(seed, known=0.95, algorithms=ALGORITHMS):
  """What `exact_match` finds: worse at every length, best with adaptive; bfs not asked at 32."""
  columns = {"as_trained": 0.0, "adaptive": 0.04, "softmax": 0.01}
  found = {"splits": list(SPLITS), "lengths": SPLITS, "keys": [70.0, 72.5, 140.0, 260.0]}
  found["examples"] = {name: [100] * len(SPLITS) for name in algorithms}

  def parts(gain, i):
    values = [max(known + gain - 0.3 * k - 0.02 * i - 0.01 * seed, 0) for k in (0, 0, 1, 2)]
    return [*values[:3], None if algorithms[i] == "bfs" else values[3]]

  exact = {c: {a: parts(g, i) for i, a in enumerate(algorithms)} for c, g in columns.items()}
  found |= {"exact": exact, "characters": exact}
  for kind, scale in {"spread": 9.0, "entropy": 2.0, "max_weight": 0.1}.items():
    heads = {layer: [[scale * (1 + i), scale] for i in range(4)] for layer in LAYERS}
    found[kind] = dict.fromkeys(columns, heads)
  return {"exact_match": found}


@pytest.fixture
def make(synthetic, grid, tmp_path):
  """make(entries, seeds=...) -> the only section of a sweep."""

  def make(entries=answers, seeds=2):
    synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=seeds), entries=entries)
    (section,) = collect(tmp_path).sections
    return section

  return make


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_figures_are_legible_and_show_the_numbers(count, make, is_legible, drawn):
  section = make(lambda seed: answers(seed, algorithms=ALGORITHMS[:count]))
  figure = drawn(section, "exact")
  is_legible(figure)
  assert [ax.get_title() for ax in figure.axes] == [a.replace("_", " ") for a in ALGORITHMS[:count]]
  first = {line.get_label(): line for line in figure.axes[0].lines}
  assert list(first) == ["as trained", "adaptive temperature", "softmax"]
  np.testing.assert_allclose(first["as trained"].get_ydata(), [94.5, 64.5, 34.5])
  assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["4–6", "16", "32"]
  is_legible(drawn(section, "sharpness"))


def test_a_length_that_was_not_asked_has_no_mark(make, drawn):
  panel = drawn(make(), "exact").axes[2]
  assert panel.get_title() == "bfs" and len(panel.lines[0].get_xdata()) == 2


def test_the_band_of_sharpness_spans_the_heads(make, drawn):
  spread = drawn(make(), "sharpness").axes[0]
  np.testing.assert_allclose(spread.lines[0].get_ydata(), [13.5, 18.0, 22.5])
  corners = spread.collections[0].get_paths()[0].vertices[:, 1]
  assert corners.min() == 9 and corners.max() == 36


def test_page_and_table(make, tmp_path):
  make()
  page = report.write_report(tmp_path, figures=False).read_text()
  assert (
    "At the trained lengths (4–6) the exact answers are 94.5 % of minimum" in page
    and "is void" not in page
  )
  row = re.search(r"<td>bfs</td><td>adaptive temperature</td>(.*?)</tr>", page).group(1)
  assert re.findall(r"<td>([\d.–]+)", row) == ["94.5", "64.5", "–"]


MATCHERS = "kmp_matcher", "naive_string_matcher"


@pytest.mark.parametrize(
  ("known", "algorithms", "tasks", "void"),
  [
    (0.7, ALGORITHMS, {}, True),
    (0.9, ALGORITHMS[:3], {}, False),
    (0.9, ALGORITHMS[:2], {}, True),
    # Two names of one task, which a record may say; one without says nothing.
    (0.9, ("minimum", *MATCHERS), {"minimum": "minimum", **dict.fromkeys(MATCHERS, "m")}, True),
    (0.9, ("minimum", *MATCHERS), {}, False),
    (0.9, ("minimum", "bfs", *MATCHERS), dict.fromkeys(MATCHERS, "m"), False),
    # The later of both names has 79 % (2 points less each, and half a point between seeds).
    (0.855, ("minimum", "bfs", *MATCHERS), dict.fromkeys(MATCHERS, "m"), True),
  ],
)
def test_a_comparison_of_what_was_not_learned_is_void(
  known, algorithms, tasks, void, make, tmp_path
):
  def entry(seed):
    found = answers(seed, known, algorithms)
    found["exact_match"] |= {"tasks": tasks} if tasks else {}
    return found

  make(entry)
  page = report.write_report(tmp_path, figures=False).read_text()
  assert ("is void" in page) == void
  assert ("names of one task counted once" in page) == (void and bool(tasks))
