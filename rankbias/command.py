"""The command line of experiments/main.py, checked against the config before anything else."""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from rankbias.config import flatten, load

FIELD = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


class Kind(NamedTuple):
  """What a field of one type takes: in words, and by a function that raises ValueError."""

  words: str
  read: Callable[[str], Any]


KINDS = {
  bool: Kind("true or false", lambda x: ("true", "t", "1", "false", "f", "0").index(x.lower())),
  int: Kind("a whole number", int),
  float: Kind("a number", float),
}


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line for `absl.app.run`; a mistake ends the process with one line.

  Left to themselves, absl and ml_collections answer a misspelt field with a traceback.
  """
  try:
    check(argv[1:])
    rest = app.parse_flags_with_usage(argv)
    if len(rest) > 1:
      raise ValueError(f"unexpected arguments {rest[1:]}; fields are --config.FIELD=VALUE")
    if flags.FLAGS.config is None:
      raise ValueError("--config is missing; give a file such as --config=configs/digits_T.py")
  except ValueError as error:
    sys.exit(f"ValueError: {error}")
  return rest


def check(arguments: Sequence[str]) -> None:
  """Raises ValueError for a config, a field or a value that is not one."""
  path = config_path(arguments)
  given = [match.groups() for match in map(FIELD.fullmatch, arguments) if match]
  if path is None and given:
    raise ValueError(f"--config.{given[0][0]} needs --config=FILE before it")
  known = flatten(load(*path.split(":", 1))[0]) if path else {}
  for field, value in given:
    if field not in known:
      raise ValueError(f"--config.{field} is no field of {path}; {remedy(field, list(known))}")
    kind = KINDS.get(type(known[field]))
    if kind and value is not None:
      check_value(field, value, kind, known[field])


def remedy(field: str, known: list[str]) -> str:
  """What to write instead of an unknown field."""
  last = [name.rsplit(".", 1)[-1] for name in known]
  near = difflib.get_close_matches(field, known, n=1)
  near = near or difflib.get_close_matches(field.rsplit(".", 1)[-1], last, n=1)
  found = [
    f"--config.{name}" for name, short in zip(known, last, strict=True) if {name, short} & {*near}
  ]
  text = f"did you mean {' or '.join(found)}?" if found else f"known: {', '.join(known)}"
  if field.startswith(("model.", "head.")):
    text += " Options that the file does not name are added in the file."
  return text


def check_value(field: str, value: str, kind: Kind, current: Any) -> None:
  """Raises ValueError for a value of another type than the field's."""
  try:
    kind.read(value)
  except ValueError:
    raise ValueError(
      f"--config.{field}={value} must be {kind.words}; in the file it is {current}"
    ) from None


def config_path(arguments: Sequence[str]) -> str | None:
  """The value of --config."""
  for i, argument in enumerate(arguments):
    if argument in ("--config", "-config"):
      return next(iter(arguments[i + 1 :]), None)
    if argument.startswith(("--config=", "-config=")):
      return argument.partition("=")[2]
  return None
