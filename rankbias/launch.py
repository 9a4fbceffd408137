"""From a config file and the command line to finished run folders and a report."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rankbias import experiment, program, report, runs, sweep
from rankbias.config import load, override, replace_axes, scientific
from rankbias.data import DatasetUnavailable
from rankbias.data.source import Source


class Plan(NamedTuple):
  """What is going to run.

  Attributes:
    notice: "" or the loud line that says other data are used than asked for.
  """

  config: ConfigDict
  members: list[dict[str, Any]]
  source: Source | None
  notice: str = ""


def launch(
  path: str,
  config: ConfigDict,
  overrides: Mapping[str, Any],
  workdir: str,
  *,
  use_sweep: bool = True,
  resume: str = "",
  dry_run: bool = False,
  sinks: Sequence[Callable] = (),
  say: Callable[[str], None] = print,
) -> pathlib.Path | None:
  """Runs a config's sweep and draws its report; returns the path of report.html.

  Args:
    path: the config file, whose folder also holds the config of the fallback.
    config: with the overrides of the command line applied.
    overrides: those overrides, {dotted field: value}; a swept field among them is fixed.
    use_sweep: False runs the config alone.
    resume: a run folder to continue, and nothing else; it must be one of this sweep.
    dry_run: says what would run, and stops.
  """
  members = [{}]
  _, sweep_of = load(path)
  if use_sweep and sweep_of:
    members = replace_axes(sweep_of(config), overrides)
  groups = sweep.group(config, members, workdir)
  plan = Plan(config, members, None)
  if resume:
    workdir = str(pathlib.Path(resume).resolve().parent.parent)
    plan = Plan(config, only(resume, sweep.group(config, members, workdir)), None)
  elif dry_run or not all(runs.is_finished(each.folder) for each in groups):
    plan = with_data(path, config, members, overrides)
  if plan.notice:
    say(plan.notice)
  if plan.source:
    say(f"data: {plan.source.origin}")
  if dry_run:
    describe(plan, workdir, say)
    return None
  folders = sweep.run(plan.config, plan.members, workdir, source=plan.source, say=say, sinks=sinks)
  page = None
  if experiment.is_writer():
    page = report.write_report(folders[0].parent, runs=folders)
    say(f"report: {page}")
  if plan.notice:
    say(plan.notice)
  return page


def with_data(
  path: str, config: ConfigDict, members: list[dict], overrides: Mapping[str, Any]
) -> Plan:
  """Loads the data; where they cannot be had, the fallback's whole recipe with its own data.

  Raises:
    rankbias.data.DatasetUnavailable: when the config names no fallback.
  """
  try:
    return Plan(config, members, experiment.load_data(config))
  except DatasetUnavailable as error:
    if config.data.fallback in (None, "", "None"):
      raise
    name, _, arg = config.data.fallback.partition(":")
    other, sweep_of = load(pathlib.Path(path.partition(":")[0]).parent / f"{name}.py", arg)
    other.name = f"{config.name}-fallback-{other.data.name}"
    ignored = [field for field in overrides if not field.startswith("data.")]
    notice = (
      f"!!! NOT {config.data.name}: {error.summary} Running {name} on {other.data.name} instead; "
      f"its results are in {other.name}. --config.data.fallback=None makes this an error."
      + (f" Ignored: {', '.join(ignored)}." if ignored else "")
      + " !!!"
    )
    return Plan(other, sweep_of(other), experiment.load_data(other), notice)


def only(folder: str, groups: Sequence[sweep.Group]) -> list[dict[str, Any]]:
  """The members of the program that runs in `folder`.

  Raises:
    ValueError: when it is a run of another config; says in which fields they differ.
  """
  there = runs.read(folder)
  for each in groups:
    if each.folder.resolve() == pathlib.Path(folder).resolve():
      return each.members
  lists = [
    runs.differences(
      {"name": g.config.name, "config": scientific(g.config), "members": g.members},
      {key: there[key] for key in ("name", "config", "members")},
    )
    for g in groups
  ]
  lines = "\n  ".join(min(lists, key=len) or ["the folder's name"])
  raise ValueError(
    f"--resume={folder!r} is a run of another config; these fields differ:\n  {lines}\n"
    "Nothing was changed. Give the fields their earlier values, or leave --resume out to start a "
    "run of its own."
  )


def describe(plan: Plan, workdir: str, say: Callable[[str], None]) -> None:
  """Says what every program of the sweep would be and need."""
  for folder, members, config in (
    (g.folder, g.members, g.config) for g in sweep.group(plan.config, plan.members, workdir)
  ):
    built = program.build([override(config, member) for member in members], plan.source)
    parameters, memory = program.size(built, plan.source, config.batch_size)
    say(f"{folder}{'  (finished)' if runs.is_finished(folder) else ''}")
    say(
      f"  {len(members)} members of {parameters:,} parameters, {config.steps} steps of "
      f"{config.batch_size} images, {built.length} steps a call, about {memory / 2**20:,.0f} MiB"
    )
    for member, numbers in zip(members, built.numbers, strict=True):
      shown = {**member, "learning rate after its rule": round(numbers["learning_rate"], 6)}
      say("    " + ", ".join(f"{key}={value}" for key, value in shown.items()))


def default_workdir() -> str:
  """RANKBIAS_WORKDIR, or the folder `runs` here."""
  return os.environ.get("RANKBIAS_WORKDIR", "runs")
