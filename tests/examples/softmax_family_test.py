"""The figures of the softmax family: files, what is drawn, and closed forms of the long rows."""

import importlib.util
import pathlib
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from rankbias import ops
from rankbias.report import style

ROOT = pathlib.Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("softmax_family", ROOT / "examples/softmax_family.py")
family = importlib.util.module_from_spec(spec)
spec.loader.exec_module(family)

NAMES = [f"softmax_family_{name}" for name in ("vector", "simplex", "length")]
RESOLUTION, LONGEST = 12, 64
LIMIT = 300_000  # bytes of a committed figure
GAP = 5.0
LENGTHS = np.array([2, 16, 64, 300, 2048])
MEMBERS = {member.name: member for group, _ in family.GROUPS.values() for member in group}


def softmax_share(n, gap=GAP):
  """The weight of one logit that leads n - 1 equal ones."""
  return 1 / (1 + (n - 1) * np.exp(-gap))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the figures that the script writes, in a folder it has to make."""
  path = tmp_path_factory.mktemp("figures") / "new"
  family.main([f"--out={path}", f"--resolution={RESOLUTION}", f"--longest={LONGEST}"])
  return path


@pytest.mark.slow
class TestFiles:
  def test_the_script_writes_undated_figures(self, folder):
    assert {path.name for path in folder.iterdir()} == {f"{name}.svg" for name in NAMES}
    for path in folder.iterdir():
      assert ElementTree.parse(path).getroot().tag.endswith("svg")
      assert "dc:date" not in path.read_text()

  def test_the_same_bytes_every_time(self, folder, tmp_path):
    with style.styled():
      style.save(family.draw_length(LONGEST), tmp_path / "again", ["svg"])
    again = (tmp_path / "again.svg").read_bytes()
    assert again == (folder / "softmax_family_length.svg").read_bytes()

  @pytest.mark.parametrize("name", NAMES)
  def test_the_committed_figures_are_small(self, name):
    path = ROOT / f"docs/figures/{name}.svg"
    assert 10_000 < path.stat().st_size < LIMIT
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


class TestVector:
  def test_every_map_is_drawn_once(self):
    drawn = [member.name for group, _ in family.GROUPS.values() for member in group]
    assert sorted(drawn) == sorted(ops.NORMALIZERS)

  def test_panels_show_weights_and_mark_zeros(self):
    with style.styled():
      panels = {ax.get_title(loc="left"): ax for ax in family.draw_vector().axes}
    for member in MEMBERS.values():
      ax, weights = panels[member.title], member(family.LOGITS)
      heights = [bar.get_height() for bar in ax.patches if hasattr(bar, "get_height")]
      np.testing.assert_allclose(heights, weights, rtol=1e-6)
      np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.flatnonzero(weights == 0))
      assert ax.get_ylim()[1] > weights.max()

  def test_groups_are_what_they_say(self):
    dense, sparse, cut = family.DENSE, family.SPARSE, family.CUT
    assert all((m(family.LOGITS) > 0).all() for m in dense)
    assert all((m(family.LOGITS) == 0).any() for m in sparse + cut)
    for m in dense + sparse + cut:
      np.testing.assert_allclose(m(family.LOGITS).sum(), 1, rtol=1e-6)

  def test_weights_by_hand(self):
    z = np.float64(family.LOGITS)
    np.testing.assert_allclose(
      MEMBERS["sparsemax"](family.LOGITS)[:3], [2 / 3, 1 / 6, 1 / 6], atol=1e-6
    )
    tied = np.exp(z[:3]) / np.exp(z[:3]).sum()  # the second place is shared
    np.testing.assert_allclose(MEMBERS["topk_softmax"](family.LOGITS)[:4], [*tied, 0], atol=1e-6)
    squares = np.maximum(z, 0) ** 2
    np.testing.assert_allclose(
      MEMBERS["power_mechanism"](family.LOGITS), squares / squares.sum(), atol=1e-6
    )

  def test_the_masses_that_are_written(self):
    z = np.float64(family.LOGITS)
    masses = {
      "softmax_plus_n": np.exp(z).sum() / (1 + np.exp(z).sum()),
      "softpick": np.expm1(z[z > 0]).sum() / np.abs(np.expm1(z)).sum(),
      "sigmoid_weights": expit(z - np.log(8)).sum(),
    }
    assert masses.keys() == {m.name for m in family.FREE}
    for name, mass in masses.items():
      np.testing.assert_allclose(MEMBERS[name](family.LOGITS).sum(), mass, rtol=1e-5)


def test_the_simplex_figure_has_a_panel_for_every_map_onto_it():
  with style.styled():
    *panels, _ = family.draw_simplex(RESOLUTION).axes
  titles = [ax.get_title(loc="left") for ax in panels]
  assert titles == [m.title for m in MEMBERS.values() if m not in family.FREE]
  image = panels[titles.index("sparsemax")].images[0].get_array()
  z = (np.arange(RESOLUTION) + 0.5) / 2 - 3
  bottom = np.clip((z + 1) / 2, 0, 1)  # z2 = -2.75: two logits compete, z1 and 0
  np.testing.assert_allclose(np.ma.filled(image[0], 0), bottom, atol=1e-6)
  assert np.isnan(np.ma.filled(image[0], np.nan)).sum() == (z <= -1).sum()


class TestLength:
  def test_softmax_forgets(self):
    kept, lost = family.shares(ops.softmax, LENGTHS)
    np.testing.assert_allclose(kept, softmax_share(LENGTHS), rtol=1e-5)
    np.testing.assert_allclose(lost, 1 - softmax_share(LENGTHS), rtol=1e-4)
    assert softmax_share(2**16) < 0.003

  @pytest.mark.parametrize("scale", [0.1, 0.2, 0.43])
  def test_scalable_softmax_keeps_it_where_the_gap_outgrows_the_row(self, scale):
    map_ = partial(ops.scalable_softmax, scale=np.float32(scale))
    kept, lost = family.shares(map_, LENGTHS)
    np.testing.assert_allclose(kept, 1 / (1 + (LENGTHS - 1) * LENGTHS ** (-scale * GAP)), rtol=1e-5)
    assert np.all(np.sign(np.diff(lost[1:])) == np.sign(1 - scale * GAP)) or scale * GAP == 1
    if scale * GAP > 1:
      assert kept[-1] > 0.9998

  def test_entmax_keeps_all_beyond_its_margin(self):
    for map_ in (ops.sparsemax, ops.entmax15, partial(ops.entmax, alpha=1.25)):
      kept, lost = family.shares(map_, LENGTHS)
      assert np.all(kept == 1) and np.all(lost == 0)

  def test_entmax_below_its_margin_forgets(self):
    def mass(t, n):
      return (0.1 * GAP + t) ** 10 + (n - 1) * t**10 - 1

    exact = [(0.1 * GAP + brentq(mass, 0, 1, args=(n,), xtol=1e-14)) ** 10 for n in LENGTHS]
    kept, lost = family.shares(partial(ops.entmax, alpha=1.1), LENGTHS)
    np.testing.assert_allclose(kept, exact, rtol=2e-5)
    assert np.all(np.diff(kept) < 0) and np.all(lost > 0)

  def test_adaptive_temperature_helps_within_the_range_of_its_fit(self):
    p = softmax_share(LENGTHS)
    entropy = np.log(np.exp(GAP) + LENGTHS - 1) - GAP * p
    fit = np.polyval([-0.037, 0.481, -2.3, 4.917, -1.791], entropy)
    beta = np.where(entropy > 0.5, np.maximum(fit, 1), 1)
    kept, _ = family.shares(ops.adaptive_temperature_softmax, LENGTHS)
    np.testing.assert_allclose(kept, softmax_share(LENGTHS, beta * GAP), rtol=1e-4)
    helped = dict(zip(LENGTHS, kept - p > 0.01, strict=True))
    assert helped == {2: False, 16: False, 64: True, 300: True, 2048: False}
    assert kept[2] > 0.99 and kept[3] > 0.99 > 0.1 > kept[4]

  def test_the_numbers_that_are_printed(self):
    heads, *lines, last = family.length_table(300).splitlines()
    assert heads.split() == ["n", "=", "16", "n", "=", "64", "n", "=", "256"]
    assert [line[:29].strip() for line in lines] == [n.replace("$", "") for n in family.LENGTH_MAPS]
    p = softmax_share(np.array([16, 64, 256]))
    assert lines[0][29:].split()[::2] == [f"{kept:.3g}" for kept in p]
    assert lines[-1].split()[1:] == ["1", "(0e+00)"] * 3
    n = np.arange(2, 301)
    p = softmax_share(n)
    entropy = np.log(np.exp(GAP) + n - 1) - GAP * p
    fit = np.polyval([-0.037, 0.481, -2.3, 4.917, -1.791], entropy)
    sharp = n[(entropy > 0.5) & (fit > 1)]
    assert last == f"adaptive temperature sharpens from n = {sharp[0]} to {sharp[-1]}"

  def test_what_is_exactly_zero_is_said_and_not_drawn(self):
    with style.styled():
      left, right = family.draw_length(LONGEST).axes
    assert len(left.lines) == len(family.LENGTH_MAPS)
    assert len(right.lines) == len(left.lines) - 2
    assert right.texts[0].get_text() == "1.5-entmax and sparsemax: exactly 0"
