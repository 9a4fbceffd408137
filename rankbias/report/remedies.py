"""What the remedies did to a head: numbers against the size of the set, one row for each seed."""

from collections.abc import Iterable

import numpy as np
from scipy.special import stdtr

from rankbias.report import style
from rankbias.report.collect import RETRIEVAL, Member, Section

AS_TRAINED, ADAPTIVE, FITTED = "as_trained", "adaptive", "fitted"
NAMES = {  # in the order in which they are shown; further ones follow under their own names
  AS_TRAINED: "as trained",
  ADAPTIVE: "adaptive temperature",
  FITTED: "fitted temperature",
  "fixed_theta": "fixed θ",
  "log_n": "log n",
  "scalable": "scalable softmax",
  "entmax15": "1.5-entmax",
  "top_k": "top-k",
  "hard_max": "hard maximum",
}
OPTIONS = f"evaluate.{RETRIEVAL}.remedies."  # of the configuration, flat


def measured(section: Section) -> list[Member]:
  """The finished members whose head was measured."""
  return [m for m in section.finished() if m.record.get(RETRIEVAL)]


def sizes(section: Section) -> np.ndarray:
  """The sizes of the sets, as measured."""
  return np.array(measured(section)[0].record[RETRIEVAL]["sizes"])


def sets(section: Section) -> list[int]:
  """How many sets there were of every size."""
  return measured(section)[0].record[RETRIEVAL]["sets"]


def columns(section: Section) -> list[str]:
  """The head as trained and its remedies, those of greatest interest first."""
  return ordered(measured(section)[0].record[RETRIEVAL]["accuracy"])


def ordered(found: Iterable[str]) -> list[str]:
  """Columns in the order in which they are shown."""
  return sorted(found, key=lambda c: list(NAMES).index(c) if c in NAMES else len(NAMES))


def name(column: str) -> str:
  """What a column is called in figures and tables."""
  return NAMES.get(column, column.replace("_", " "))


def looks(section: Section) -> dict[str, dict]:
  """Line options for every column, the same in all figures of a section."""
  return {c: {**look, "label": name(c)} for c, look in style.hues(columns(section)).items()}


def values(section: Section, kind: str, column: str | None = None) -> np.ndarray:
  """[seeds, sizes] of "accuracy" or "ceiling" (in %), "entropy", "max_weight" or "spread"."""
  found = [m.record[RETRIEVAL][kind] for m in measured(section)]
  found = np.array(found if column is None else [each[column] for each in found], float)
  return 100 * found if kind in ("accuracy", "ceiling") else found


def gain(section: Section, column: str) -> np.ndarray:
  """[seeds, sizes]: points of accuracy above the same head as trained."""
  return values(section, "accuracy", column) - values(section, "accuracy", AS_TRAINED)


def p_values(section: Section, column: str) -> list[float | None]:
  """Two-sided paired t-test over seeds at every size, a remedy against the head as trained."""
  return [paired_p(differences) for differences in gain(section, column).T]


def paired_p(differences: np.ndarray) -> float | None:
  """P(|t| at least as large) for t = mean / (sd / sqrt k) with k - 1 degrees of freedom.

  None where it does not exist: of one seed, or of differences that are all the same.
  """
  count = len(differences)
  # Accuracies are fractions of a few thousand sets: below 1e-9 points is rounding.
  if count < 2 or not np.isfinite(differences).all() or np.ptp(differences) < 1e-9:
    return None
  t = differences.mean() / (differences.std(ddof=1) / np.sqrt(count))
  return float(2 * stdtr(count - 1, -abs(t)))


def options(section: Section) -> dict[str, str]:
  """What every remedy is, by the configuration: {"top_k": "topk_softmax, k = 16"}."""
  found: dict[str, list[str]] = {}
  for field, value in measured(section)[0].setting.items():
    if field.startswith(OPTIONS):
      column, option = field.removeprefix(OPTIONS).split(".", 1)
      shown = f"{value:.4g}" if isinstance(value, float) else str(value)
      found.setdefault(column, []).append(shown if option == "name" else f"{option} = {shown}")
  return {
    c: ", ".join(sorted(found[c], key=lambda s: " = " in s)) for c in NAMES | found if c in found
  }
