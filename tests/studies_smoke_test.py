"""The smoke variant of every study of rank, as its command runs it: trained, measured, reported."""

import csv
import pathlib

import jax
import numpy as np
import pytest

from rankbias import config, report, sweep
from rankbias.report import collect, plots, study

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
RANKS = ("last_hidden_covariance_rank", "logits_covariance_rank", "tempered_mean_norm")
SIZE = ("factored_saved", "factored_accuracy", "superfluous_saved", "superfluous_accuracy")
# How many lines there are against temperature, how many networks that are not the same by another
# name, and what is measured of each. The smoke variants of rank_by_temperature and
# ood_by_temperature are run by colabs/reproduce_figures.ipynb.
STUDIES = {
  "rank_by_init_scale": (2, 4, RANKS),
  "rank_by_width": (2, 4, RANKS),
  "rank_by_normalisation": (3, 6, RANKS),
  "temperature_vs_learning_rate": (4, 5, RANKS),  # the rules are one at T = 1
  "temperature_vs_regularisation": (5, 10, RANKS),
  "temperature_schedules": (8, 7, RANKS),  # T = 100 has three names
  "attention_temperature": (2, 4, RANKS),
  "compression_by_temperature": (1, 2, (*RANKS, *SIZE)),
}


@pytest.fixture(autouse=True)
def quick():
  """Half the time to compile, which is nearly all that networks of this size cost."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_from_its_config_to_its_page(name, tmp_path, monkeypatch):
  monkeypatch.setattr(plots, "PLOTS", ())  # but the study's: the others have tests of their own
  lines, networks, quantities = STUDIES[name]
  c, members_of = config.load(CONFIGS / f"{name}.py", "smoke")
  members, c.checkpoint_every = members_of(c), c.steps  # one checkpoint, in place of ten
  folder = sweep.run(c, members, tmp_path)[0].parent
  text = report.write_report(folder).read_text()
  assert '<figure id="study">' in text and '<p class="lead">' in text
  found = collect.collect(folder)
  own = [m for section in found.sections for m in section.members]
  assert len(own) == len(members) and all(m.finished for m in own)
  compared = study.study(found)
  assert (compared.axis, len(compared.lines)) == ("temperature", lines)
  rows = list(csv.DictReader((folder / "study.csv").open()))
  for quantity in (*quantities, "test_accuracy"):
    means = [float(row["mean"]) for row in rows if row["quantity"] == quantity]
    assert len(means) == len(members) and np.isfinite(means).all(), quantity  # one seed each
    if quantity == "tempered_mean_norm":
      assert len({f"{mean:.4g}" for mean in means}) == networks
