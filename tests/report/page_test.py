"""The page: self-contained, complete, loud about fallback data and lost members."""

import collections
import html.parser
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from rankbias import report

ROOT = pathlib.Path(report.__file__).resolve().parents[2]


class Tags(html.parser.HTMLParser):
  """Collects tags with their attributes, and the text."""

  def __init__(self, page):
    super().__init__()
    self.tags, self.text = [], ""
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.text += data


@pytest.fixture(scope="module")
def written(synthetic, grid, tmp_path_factory):
  """A sweep in three folders, one of them unfinished, one member diverged, with figures."""
  folder = tmp_path_factory.mktemp("sweep")
  build = synthetic(layers=2, width=16)
  build.write(folder, grid((1.0, 10.0), seeds=2), diverged={1: 34})
  build.write(folder, grid((100.0,), seeds=2))
  build.write(folder, grid((1000.0,), seeds=2), finished=False)
  assert report.write_report(folder) == folder / "report.html"
  return folder


@pytest.fixture(scope="module")
def page(written):
  return (written / "report.html").read_text(encoding="utf-8")


def test_page_needs_nothing_from_elsewhere(page):
  found = Tags(page)
  names = collections.Counter(tag for tag, _ in found.tags)
  assert names["svg"] == names["figure"] == names["figcaption"] == 8
  assert not {"script", "link", "img", "iframe"} & set(names)
  for tag, attributes in found.tags:
    for name in ("src", "href", "xlink:href"):
      value = attributes.get(name, "#")
      assert value.startswith("#") or re.fullmatch(r"(figures/)?[\w.-]+", value), (tag, value)
  assert "@import" not in page
  assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_and_references_resolve(page):
  ids = [attributes["id"] for _, attributes in Tags(page).tags if "id" in attributes]
  assert len(ids) == len(set(ids))
  used = re.findall(r'xlink:href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
  assert used
  assert set(used) <= set(ids)


def test_svgs_are_well_formed_and_scale_with_the_page(page):
  for svg in re.findall(r"<svg.*?</svg>", page, flags=re.S):
    root = ET.fromstring(svg)
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("aria-label")


def test_page_says_what_was_run_and_what_was_lost(page, written):
  text = Tags(page).text
  for expected in (
    "digits: 1437 train and 360 test images, from scikit-learn; 10 classes",
    "mlp, 3 weight layers, 528,384 parameters",
    "6: T = 1, 10, 100; 2 seeds; 4,000 steps",
    "210 s in 2 programs",
    "1 of 6 members diverged and are in no mean: T = 1 seed 1 at step 34.",
    "optimizer.learning_rate = 0.02",
    "numpy ",
    "Figure 6. The definition decides.",
  ):
    assert expected in text
  unfinished = [p.parent.name for p in written.glob("*/config.json")]
  unfinished = [n for n in unfinished if not (written / n / "result.json").exists()]
  assert f"Unfinished and not shown (the same command continues them): {unfinished[0]}" in text
  assert "FALLBACK" not in text
  assert (written / "table.csv").read_text().startswith("setting,temperature,finished,diverged")


def test_fallback_data_are_announced_loudly(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0,), seeds=1), name="cifar_T-fallback-digits")
  text = report.write_report(tmp_path, figures=False).read_text()
  banner = re.search(r'<div class="banner".*?</div>', text, flags=re.S)[0]
  assert "FALLBACK: these are not the results of cifar_T" in banner
  assert "whole recipe of digits" in banner
  assert text.index('class="banner"') < text.index("<h1>")


def test_all_diverged_still_gives_a_page(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  build.write(tmp_path, grid((1.0,), seeds=1), diverged={0: 2})
  text = report.write_report(tmp_path, figures=False).read_text()
  assert "No member finished: every one diverged." in text
  assert not (tmp_path / "figures").exists()


def test_text_from_the_run_is_escaped(synthetic, grid, tmp_path):
  build = synthetic(layers=1, width=16)
  config = {"data": {"name": "<script>alert(1)</script>"}}
  build.write(tmp_path, grid((1.0,), seeds=1), name="a<b", config=config)
  text = report.write_report(tmp_path, figures=False).read_text()
  assert "<script>" not in text
  assert "<h1>a&lt;b</h1>" in text


def test_the_door_draws_a_page_without_jax(synthetic, grid, tmp_path):
  synthetic(layers=1, width=16).write(tmp_path, grid((1.0,), seeds=1))

  def door(*arguments):
    code = (
      "import runpy, sys; sys.argv[0] = 'report.py'; "
      f"runpy.run_path({str(ROOT / 'experiments/report.py')!r}, run_name='__main__'); "
      "assert not {'jax', 'flax', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

  done = door(str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == str(tmp_path / "report.html")
  assert (tmp_path / "figures" / "rank.png").exists()
  failed = door(str(tmp_path / "nowhere"))
  assert failed.returncode == 2
  assert "holds no finished run" in failed.stderr
