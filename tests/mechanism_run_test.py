"""A run with every measurement of the mechanism: what is written of members and between them."""

import numpy as np
import pytest

from rankbias import experiment, runs
from rankbias.config import base

MEMBERS = ({"temperature": 1.0}, {"temperature": 100.0}, {"optimizer.learning_rate": 1e30})
KERNELS = ["layer1", "layer2", "head/linear"]
COLUMNS = ["alignment", "log_weights", "log_gain", "log_nonlinearity"]
COLUMNS += [f"gradient_{name}" for name in ("numerical_rank", "stable_rank", "effective_rank")]
COLUMNS += ["gradient_norm"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  c = base("mechanism")
  c.steps, c.batch_size, c.data.limit = 12, 16, 200
  c.model.update(name="mlp", depth=3, width=12, use_bias=False)
  c.optimizer.learning_rate_rule = "equivalent"
  c.measure.update(count=3, images=64, alignment=4, gradients=True)
  del c.evaluate.spectra
  with c.unlocked():
    c.data.ood = {"classes": [8, 9]}
    c.evaluate.collapse = {"images": 150}
    c.evaluate.cka = {"images": 64, "batch": 32, "split": "ood_test"}
  folder = tmp_path_factory.mktemp("mechanism")
  experiment.run(c, folder, members=MEMBERS)
  (path,) = runs.find(folder / "mechanism")
  return runs.read(path)


@pytest.mark.slow
def test_every_kernel_is_measured_through_training(finished):
  rows = [row for row in finished["metrics"] if row["split"] == "measure"]
  assert len({row["step"] for row in rows if row["member"] == 0}) >= 3
  for row in rows:
    if row["member"] == 2:
      continue
    for kernel in KERNELS:
      assert all(np.isfinite(row[f"{kernel}:{column}"]) for column in COLUMNS)
      assert 0 <= row[f"{kernel}:alignment"] <= 1 + 1e-6 and row[f"{kernel}:log_gain"] <= 1e-6
    assert row["head/linear:gradient_numerical_rank"] <= 7
  growth = [
    sum(value for key, value in row.items() if ":log_" in key) - np.log(row["logits:spectral_norm"])
    for row in rows
    if row["member"] != 2
  ]
  # Growth is measured from one set of images to the logits: the rest is its constant norm.
  np.testing.assert_allclose(growth, growth[0], atol=1e-4)


@pytest.mark.slow
def test_collapse_of_members_and_similarity_between_them(finished):
  result = finished["result"]
  for member in result["members"][:2]:
    layers = member["collapse"]["layers"]
    assert list(layers) == ["layer1/relu", "layer2/relu", "logits"]
    assert all(0 <= own["ortho_dev"] <= 1 for own in layers.values())
    assert "nc4" in layers["layer2/relu"] and "nc4" not in layers["logits"]
  assert "collapse" not in result["members"][2]
  expected = {"split": "ood_test", "images": 64, "batch": 32, "debiased": True}
  assert result["between"] == {"cka": expected}
  for layer in ("layer1/relu", "layer2/relu", "logits"):
    similarity = finished["arrays"][f"similarity/{layer}"]
    assert similarity.shape == (3, 3) and np.isnan(similarity[2]).all()
    assert similarity[0, 1] == similarity[1, 0] < 1
