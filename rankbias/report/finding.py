"""The main result of a section in a sentence."""

from collections.abc import Callable

from rankbias.report import answers, bottleneck_tables, language_tables, remedies
from rankbias.report.collect import BOTTLENECK, PERPLEXITY, Member, Section


def finding(section: Section) -> str:
  """Accuracy over sizes of sets where they were measured, else rank and accuracy over T."""
  if not section.finished():
    return "No member finished: every one diverged."
  if section.has(BOTTLENECK):
    return bottleneck_tables.finding(section)
  if section.has(PERPLEXITY):
    return language_tables.finding(section)
  if answers.measured(section):
    return answers.finding(section)
  return _of_retrieval(section) if remedies.measured(section) else _of_temperature(section)


def _of_temperature(section: Section) -> str:
  """What was measured at the lowest temperature and at the highest."""
  trained = [t for t in section.temperatures if section.finished(t)]
  ends = list(dict.fromkeys((trained[0], trained[-1])))

  def each(get: Callable[[Member], float | None], unit: str = "") -> str:
    return " and ".join(f"{section.values(t, get).mean():.1f}{unit}" for t in ends)

  parts = []
  if section.has("ranks"):
    layer = section.last_hidden or "logits"
    name = "last hidden layer" if section.last_hidden else "logits"
    rank = each(lambda m: m.rank(layer, "covariance_rank"))
    logits_rank = each(lambda m: m.rank("logits", "covariance_rank"))
    parts += [f"the covariance rank of the {name} is {rank}, that of the logits {logits_rank}"]
  for split in ("train", "test"):
    if section.has(split):
      parts.append(f"{split} accuracy {each(lambda m, s=split: m.accuracy(s), ' %')}")
  if not parts:
    return f"{len(section.finished())} members finished; nothing was evaluated after training."
  at = " and ".join(f"<i>T</i> = {t:g}" for t in ends)
  return f"At {at} {', '.join(parts)} (means over seeds)."


def _of_retrieval(section: Section) -> str:
  """Accuracy at the smallest size and at the largest, with and without remedy, and the ceiling."""
  n, columns = remedies.sizes(section), remedies.columns(section)
  shown = [remedies.AS_TRAINED, remedies.ADAPTIVE, remedies.FITTED]
  found = [
    (f"with {remedies.name(c)}" if i else "as trained", remedies.values(section, "accuracy", c))
    for i, c in enumerate(shown)
    if c in columns
  ]
  found.append(("at the ceiling", remedies.values(section, "ceiling")))
  places = dict.fromkeys((0, len(n) - 1))
  parts = (
    f"among {n[i]:,} items "
    + ", ".join(f"{values[:, i].mean():.1f} % {how}" for how, values in found)
    for i in places
  )
  return (
    f"The class of the largest is found {'; '.join(parts)} (means over seeds; the ceiling is how "
    "often the largest logit is that of the largest item)."
  )
