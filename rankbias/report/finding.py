"""The main result of a section, or of a study of several, in a sentence."""

import html
from collections.abc import Callable

from rankbias.report import answers, bottleneck_tables, language_tables, remedies, tables
from rankbias.report.collect import BOTTLENECK, PERPLEXITY, Member, Section
from rankbias.report.quantities import Quantity
from rankbias.report.study import TEMPERATURE, Estimate, Study, estimate, measured, short

# What a study is summed up by: the first of these that was measured, and how a sentence begins.
OF_STUDY = {
  "last_hidden_covariance_rank": "The covariance rank of the last hidden layer",
  "test_perplexity": "The test perplexity",
  "test_accuracy": "The test accuracy in per cent",
}


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


def of_study(found: Study) -> str:
  """How one quantity differs between the ends of the axis, for every line; "" if none is known.

  Says which means are apart by more than their intervals, and nothing of why.
  """
  there = {q.key: q for q in measured(found)}
  key = next((key for key in OF_STUDY if key in there), None)
  if key is None:
    return ""
  said, notes = (_along if found.axis else _among)(found, there[key])
  if key != "test_accuracy" and "test_accuracy" in there:  # what did not learn has a rank as well
    groups = [members for line in found.lines.values() for members in line.values()]
    means = [estimate(members, there["test_accuracy"]).mean for members in groups]
    means = [mean for mean in means if mean is not None]
    notes += f"; mean test accuracies are {min(means):.1f} to {max(means):.1f} %"
  return f"{OF_STUDY[key]} {said} ({notes})."


def _along(found: Study, quantity: Quantity) -> tuple[str, str]:
  """From the first value of the axis to the last, and of which lines the two intervals overlap."""
  name = "<i>T</i>" if found.axis == TEMPERATURE else html.escape(short([found.axis])[0])
  parts, overlapping, compared = [], [], 0
  for label, line in found.lines.items():
    points = [(value, estimate(line.get(value, ()), quantity)) for value in found.values]
    points = [(value, own) for value, own in points if own.mean is not None]
    if not points:
      continue
    (first, start), (last, end) = points[0], points[-1]
    said = _text(start, quantity) + (f" to {_text(end, quantity)}" if last != first else "")
    if (first, last) != (found.values[0], found.values[-1]):
      said += f" at {name} = {first:g}" + (f" to {last:g}" if last != first else "")
    parts.append(said + (f" ({html.escape(label)})" if label else ""))
    if first != last and None not in (start.half, end.half):
      compared += 1
      overlapping += [label] * _overlap(start, end)
  ends = f"from {name} = {found.values[0]:g} to {found.values[-1]:g}"
  return f"{ends}: {'; '.join(parts)}", _intervals(compared, overlapping)


def _among(found: Study, quantity: Quantity) -> tuple[str, str]:
  """The setting with the lowest mean and the one with the highest."""
  (line,) = found.lines.values()
  points = [(label, estimate(members, quantity)) for label, members in line.items()]
  points = sorted((p for p in points if p[1].mean is not None), key=lambda p: p[1].mean)
  (low, least), (high, most) = points[0], points[-1]
  compared = None not in (least.half, most.half)
  overlapping = [""] * (compared and _overlap(least, most))
  said = f"is lowest, {_text(least, quantity)}, with {html.escape(low)} and highest, "
  said += f"{_text(most, quantity)}, with {html.escape(high)}"
  return said, _intervals(int(compared), overlapping)


def _text(found: Estimate, quantity: Quantity) -> str:
  return tables.number(found.mean, found.half, quantity.decimals)


def _overlap(one: Estimate, other: Estimate) -> bool:
  return abs(one.mean - other.mean) <= one.half + other.half


def _intervals(compared: int, overlapping: list[str]) -> str:
  """What the numbers are, and of which lines the two intervals overlap."""
  if not compared:
    return "single seeds have no interval"
  text = "means over seeds with their 95 % confidence intervals, which "
  if not overlapping:
    return text + "do not overlap" + " in any line" * (compared > 1)
  if len(overlapping) == compared:
    return text + "overlap" + " in every line" * (compared > 1)
  return text + f"overlap for {', '.join(map(html.escape, overlapping))} and not elsewhere"
