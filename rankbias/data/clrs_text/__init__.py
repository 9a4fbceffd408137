r"""CLRS-Text: textbook algorithms as questions and answers in text, generated in NumPy.

An example is a question, such as "minimum:\nkey: [0.55 0.29 0.51]\nmin:\n", and an answer, "1\n\n".
The text of 14 of the benchmark's 30 algorithms is reproduced character for character. Answers are
final results, without the steps that lead there (`use_hints=False` in the benchmark's generator).

Source: Markeeva et al. 2024, arXiv:2406.04229; generator: google-deepmind/clrs, clrs_text.
"""

from rankbias.data.clrs_text.algorithms import ALGORITHMS, Algorithm, Example, sample, solve
from rankbias.data.clrs_text.splits import make_clrs_text
from rankbias.data.clrs_text.tokens import END, NUM_TOKENS, PAD, decode, encode

__all__ = [
  "ALGORITHMS",
  "END",
  "NUM_TOKENS",
  "PAD",
  "Algorithm",
  "Example",
  "decode",
  "encode",
  "make_clrs_text",
  "sample",
  "solve",
]
