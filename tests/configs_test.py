"""Every config file opens, names what exists, and sweeps over fields it has."""

import pathlib

import pytest
from ml_collections import ConfigDict

from rankbias import experiment
from rankbias.config import load, override
from rankbias.models import build_model

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.glob("*.py"))
VARIANTS = {
  "cifar_T": ["resnet18", "vgg", "resnet18,smoke", "vgg,smoke"],
  "digits_T": ["dropout", "dropout,smoke"],
  "retrieval_adaptive": ["paper", "readings"],
  "retrieval_beyond": ["long"],
  "clrs_text": ["cpu"],
  "bottleneck_dirichlet": ["every", "small", "long"],
  "rank_by_temperature": ["vit", "lm", "lm,smoke", "cifar100", "cifar10,vit", "cifar10,vgg,smoke"],
  "rank_by_normalisation": ["cifar10,resnet18", "fashion_mnist"],
  "ood_by_temperature": ["cifar10", "fashion_mnist"],
  "attention_temperature": ["cifar10"],
}
CASES = [(path, arg) for path in FILES for arg in ["", "smoke", *VARIANTS.get(path.stem, [])]]


@pytest.mark.parametrize(("path", "arg"), CASES, ids=lambda x: getattr(x, "stem", x))
def test_config_is_sound(path, arg):
  config, sweep = load(path, arg)
  members = sweep(config)
  assert members
  for member in members:
    experiment.check(override(config, member))
  assert config.name.startswith(path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstring_says_what_to_run_and_what_to_expect(path):
  text = path.read_text()
  assert f"python experiments/main.py --config=configs/{path.name}" in text
  assert "smoke" in text
  with pytest.raises(ValueError, match="variant 'smok' is unknown"):
    load(path, "smok")


NORMALIZERS = (
  {"name": "scalable_softmax", "scale": 0.36},
  ["softmax", {"name": "topk_softmax", "k": 2}],
  ["softmax", "adaptive_temperature_softmax"],
)


@pytest.mark.parametrize("chosen", NORMALIZERS, ids=["arguments", "list", "names"])
def test_a_normalizer_is_a_name_has_arguments_or_is_one_for_each_layer(chosen, tmp_path):
  config, _ = load(CONFIGS / "clrs_text.py", "smoke")
  assert config.model.normalizer == "softmax"  # --config.model.normalizer=NAME replaces it
  swept = override(config, {"model.normalizer": chosen})
  in_the_file = ConfigDict(config.to_dict())
  in_the_file.model = {**config.model.to_dict(), "normalizer": chosen}
  expected = build_model(**{**config.model.to_dict(), "normalizer": chosen})
  folders = set()
  for own in (swept, in_the_file):
    experiment.check(own)
    assert build_model(**own.model.to_dict()) == expected
    folders.add(experiment.run_folder(own, tmp_path, [{}]))
  assert len(folders) == 1 and experiment.run_folder(config, tmp_path, [{}]) not in folders
  for other in ("softmax", NORMALIZERS[0], NORMALIZERS[1]):
    again = override(swept, {"model.normalizer": other})
    assert again.model.to_dict()["normalizer"] == other
  assert config.model.normalizer == "softmax"


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    ("sotfmax", "did you mean 'softmax'"),
    (["softmax"], "has 1 entries for depth=2 layers"),
    ({"name": "topk_softmax"}, "needs .*'k'"),
    ([1, 2], "normalizer=1 must be a name"),
  ],
)
def test_a_wrong_normalizer_is_refused_before_anything_runs(chosen, message):
  config, _ = load(CONFIGS / "clrs_text.py", "smoke")
  with pytest.raises(ValueError, match=message):
    experiment.check(override(config, {"model.normalizer": chosen}))
  with pytest.raises(ValueError, match="'model.normalizer' is no field of the config"):
    override(load(CONFIGS / "digits_T.py", "smoke")[0], {"model.normalizer": "softmax"})


def test_fallbacks_exist():
  for path, arg in CASES:
    fallback = load(path, arg)[0].data.fallback
    if fallback:
      name, _, variant = fallback.partition(":")
      load(path.parent / f"{name}.py", variant)
