"""Every config file opens, names what exists, and sweeps over fields it has."""

import pathlib

import pytest

from rankbias import experiment
from rankbias.config import load, override

FILES = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py"))
VARIANTS = {
  "cifar_T": ["resnet18", "vgg", "resnet18,smoke", "vgg,smoke"],
  "digits_T": ["dropout", "dropout,smoke"],
  "retrieval_adaptive": ["paper"],
  "retrieval_beyond": ["long"],
  "clrs_text": ["cpu"],
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


def test_fallbacks_exist():
  for path, arg in CASES:
    fallback = load(path, arg)[0].data.fallback
    if fallback:
      name, _, variant = fallback.partition(":")
      load(path.parent / f"{name}.py", variant)
