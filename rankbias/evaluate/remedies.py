"""Other normalisers for a trained network, put into the same parameters at inference."""

from collections.abc import Mapping
from typing import Any

from rankbias import ops

AS_TRAINED = "as_trained"  # the network without any remedy

Remedies = Mapping[str, Mapping[str, Any]]


def as_specs(remedies: Remedies) -> tuple:
  """The remedies as something hashable: (column, name, arguments); each is tried.

  Raises:
    ValueError: a remedy without a known name, or with unknown arguments.
  """
  specs = []
  for column, own in remedies.items():
    options = dict(own)
    if "name" not in options:
      known = ", ".join(ops.NORMALIZERS)
      raise ValueError(f"remedy {column!r} = {options} needs a name; use one of {known}")
    name = options.pop("name")
    ops.normalizer(name, **options)
    specs.append((column, name, tuple(sorted(options.items()))))
  return tuple(specs)


def overrides(specs: tuple) -> list[dict[str, Any]]:
  """What `Predictor.apply` is called with: nothing for the network as trained, then remedies."""
  return [{}, *({"normalizer": ops.normalizer(name, **dict(own))} for _, name, own in specs)]
