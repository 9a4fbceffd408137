"""One token per character: a fixed table of the benchmark's characters, with pad and end tokens."""

import numpy as np

PAD, END = 0, 1
CHARACTERS = (
  "\n ,-.0123456789:AP[]_abcdefghijklmnopqrstuvwxy"  # of all 30 algorithms; no "z" occurs
)
NUM_TOKENS = 2 + len(CHARACTERS)

_UNKNOWN = 255
_TABLE = bytes(
  CHARACTERS.find(chr(i)) + 2 if chr(i) in CHARACTERS else _UNKNOWN for i in range(256)
)


def encode(text: str) -> np.ndarray:
  """Returns the tokens of a text, uint8 [len(text)]; no end token is added.

  Raises:
    ValueError: a character is not in the table.

  Example: encode("[0]") is [20, 7, 21].
  """
  tokens = text.encode("latin-1", "replace").translate(_TABLE)
  position = tokens.find(_UNKNOWN)
  if position >= 0:
    raise ValueError(
      f"character {text[position]!r} at position {position} has no token; known are {CHARACTERS!r}"
    )
  return np.frombuffer(tokens, np.uint8)


def decode(tokens: np.ndarray) -> str:
  """Returns the text of tokens, up to the first end token; padding is left out.

  Raises:
    ValueError: a token is outside 0..NUM_TOKENS-1.

  Example: decode(encode("0, 5")) is "0, 5".
  """
  ids = [int(token) for token in np.asarray(tokens)]
  wrong = [token for token in ids if not 0 <= token < NUM_TOKENS]
  if wrong:
    raise ValueError(f"token {wrong[0]} is no character: tokens are 0..{NUM_TOKENS - 1}")
  ids = ids[: ids.index(END)] if END in ids else ids
  return "".join(CHARACTERS[token - 2] for token in ids if token != PAD)
