"""Settings: effective configurations as flat dicts of dotted field names, and their values."""

import json
from typing import Any

AXES = ("temperature", "seed")  # what figures show; members that differ otherwise get a section
HEAD_RATE = "head_learning_rate"
NAMES = {"plif": "PLIF", "drill": "DRILL", "mixtape": "Mixtape", "multi_facet": "multi-facet"}


def flat(config: dict, path: str = "") -> dict[str, Any]:
  """Maps dotted field names to values."""
  found = {}
  for key, value in config.items():
    name = f"{path}.{key}" if path else key
    found |= flat(value, name) if isinstance(value, dict) else {name: value}
  return found


def effective(config: dict, overrides: dict) -> dict[str, Any]:
  """All fields but the axes; an override that is a dict replaces a part of the configuration."""
  setting = flat(config)
  for field, value in overrides.items():
    setting = {k: v for k, v in setting.items() if not k.startswith(f"{field}.")}
    setting |= flat({field: value})
  return {k: v for k, v in setting.items() if k not in AXES}


def output_layer(setting: dict[str, Any]) -> dict[str, Any]:
  """The head's name and options, and the factor on its learning rate where that is not 1."""
  found = {k.removeprefix("head."): v for k, v in setting.items() if k.startswith("head.")}
  rate = setting.get(f"optimizer.{HEAD_RATE}", 1.0)
  return found if rate == 1 else found | {HEAD_RATE: rate}


def name_of_head(name: str) -> str:
  """What an output layer is called in figures and tables."""
  return NAMES.get(name, name.replace("_", " "))


def canonical(value: Any) -> str:
  """A text that is the same for equal values; 1 and 1.0 are equal."""
  return json.dumps(_plain(value))


def show(value: Any) -> str:
  """A value of a field as text."""
  return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _plain(v) for k, v in sorted(value.items())}
  if isinstance(value, list):
    return [_plain(v) for v in value]
  return int(value) if isinstance(value, float) and value.is_integer() else value
