"""A Transformer on the text of algorithms, from the config to the result, and refused without."""

import json
import pathlib

import pytest

from rankbias import experiment, runs
from rankbias.config import load, override

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "clrs_text.py"


@pytest.mark.slow
def test_the_smoke_variant_ends_with_a_table(tmp_path):
  config, sweep = load(CONFIG, "smoke")
  member = sweep(config)[-1]
  config = override(config, member)
  result = experiment.run(config, tmp_path)
  (folder,) = runs.find(tmp_path / "clrs_text-smoke")
  assert json.loads((folder / "result.json").read_text()) == result
  (entry,) = result["members"]
  assert entry["status"] == "finished"
  assert entry["test"]["loss"] > 0 and 0 <= entry["test"]["accuracy"] <= 1
  table = entry["exact_match"]
  assert table["splits"] == ["train", "test", "test/8"]
  assert set(table["exact"]) == {"as_trained", "softmax", "adaptive"}
  assert table["exact"]["as_trained"] == table["exact"]["softmax"]  # it was trained with softmax
  assert len(table["entropy"]["adaptive"]["layer2"]) == 3
  assert "layer2/residual" in entry["ranks"] and "logits" in entry["ranks"]
  measured = [row for row in runs.read(folder)["metrics"] if row.get("split") == "measure"]
  assert [row["step"] for row in measured] == [0, 1, 6]
  assert experiment.run(config, tmp_path) == result  # read, not run again


def test_other_data_are_refused_before_anything_happens(tmp_path):
  config = load(CONFIG, "smoke")[0]
  config.data.name = "digits"
  with pytest.raises(ValueError, match="evaluate.exact_match needs data.name 'clrs_text'"):
    experiment.run(config, tmp_path)
  assert not any(tmp_path.iterdir())
