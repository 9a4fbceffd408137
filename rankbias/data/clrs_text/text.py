"""The text format of CLRS-Text: how inputs become a question and results an answer, and back."""

import re
from typing import Any

Value = int | float | list  # a scalar, a list of them, or a list of rows

_FIELD = re.compile(r"(\w+): (\[\[[^a-zA-Z]*?\]\]|\[[^\[\]]*\]|[^\s,\[\]]+)(?:, |$)")


def write_value(value: Value) -> str:
  """Writes an input or a result: 3, 0.51, [1 2 3], [[0 1], [1 0]].

  A list is separated by spaces, a matrix is a list of rows separated by ", ". Integers are decimal;
  other numbers have at most three decimals and no trailing zeros except that of 0.0, which is how
  Python writes a float.
  """
  if not isinstance(value, list):
    return str(value)
  if value and isinstance(value[0], list):
    return f"[{', '.join(map(write_value, value))}]"
  return f"[{' '.join(map(str, value))}]"


def write_question(name: str, inputs: dict[str, Value], outputs: str) -> str:
  r"""Writes a question: the algorithm, its inputs, the names of its results, a line each.

  Example: write_question("minimum", {"key": [0.5, 0.29]}, "min") is
    "minimum:\nkey: [0.5 0.29]\nmin:\n".
  """
  fields = ", ".join(f"{key}: {write_value(value)}" for key, value in inputs.items())
  return f"{name}:\n{fields}\n{outputs}:\n"


def write_answer(results: tuple[Value, ...]) -> str:
  r"""Writes an answer: the results separated by ", ", then an empty line ("0, 5\n\n")."""
  return f"{', '.join(map(write_value, results))}\n\n"


def read_question(question: str) -> tuple[str, dict[str, Value]]:
  """Reads the name of the algorithm and the inputs back out of a question.

  Raises:
    ValueError: the text is not a question of this format.
  """
  lines = question.split("\n")
  if len(lines) != 4 or lines[3] or not all(line.endswith(":") for line in lines[0:3:2]):
    raise ValueError(f"question={question!r}: must be three lines, 'name:', inputs and 'output:'")
  fields, position = {}, 0
  while position < len(lines[1]):
    match = _FIELD.match(lines[1], position)
    if match is None:
      rest = lines[1][position : position + 40]
      raise ValueError(f"question={question!r}: no input of the form 'name: value' at {rest!r}")
    fields[match[1]], position = _read_value(match[2]), match.end()
  return lines[0][:-1], fields


def _read_value(text: str) -> Any:
  if text.startswith("[["):
    return [_read_value(f"[{row}]") for row in text[2:-2].split("], [")]
  if text.startswith("["):
    return [_read_value(number) for number in text[1:-1].split()]
  try:
    return float(text) if "." in text else int(text)
  except ValueError:
    raise ValueError(f"{text!r} is neither an integer nor a decimal number") from None
