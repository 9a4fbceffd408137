"""Prints the command that README.md marks by <!-- command: NAME -->: readme_command.py NAME."""

import pathlib
import re
import sys

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def command(name: str, text: str) -> str:
  """The one code block after the marker `name`, as one line."""
  blocks = re.findall(rf"<!-- command: {re.escape(name)} -->\s*```bash\n(.*?)```", text, re.DOTALL)
  if len(blocks) != 1:
    raise ValueError(f"README.md marks {len(blocks)} commands as {name!r}, expected exactly one")
  return blocks[0].strip()


if __name__ == "__main__":
  print(command(sys.argv[1], README.read_text()))
