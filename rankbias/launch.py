"""From a config file and the command line to finished run folders and a report."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rankbias import experiment, program, record, report, runs, sweep
from rankbias.config import load, override, replace_axes, scientific
from rankbias.data import DatasetUnavailable
from rankbias.data.source import Source


class Plan(NamedTuple):
  """What is going to run: everything is checked and the data are loaded.

  Attributes:
    workdir: where the run folders go.
    source: the data; None when every run is finished.
    notice: "" or the loud line that says other data are used than asked for.
  """

  config: ConfigDict
  members: list[dict[str, Any]]
  workdir: str
  source: Source | None = None
  notice: str = ""


def plan(
  path: str,
  config: ConfigDict,
  overrides: Mapping[str, Any],
  workdir: str,
  *,
  use_sweep: bool = True,
  resume: str = "",
  dry_run: bool = False,
) -> Plan:
  """Decides what runs and makes sure that it can.

  Args:
    path: the config FILE or FILE:VARIANT, whose folder also holds the config of the fallback.
    config: with the overrides of the command line applied.
    overrides: those overrides, {dotted field: value}; a swept field among them is fixed.
    use_sweep: False runs the config alone.
    resume: a run folder to continue, and nothing else; it must be one of this sweep.
    dry_run: nothing is to be written.

  Raises:
    ValueError: for a config that cannot run, a `resume` of another run, an unwritable folder.
    rankbias.data.DatasetUnavailable: when the data cannot be had and there is no fallback.
  """
  path = path.partition(":")[0]
  _, sweep_of = load(path)
  members = replace_axes(sweep_of(config), overrides) if use_sweep and sweep_of else [{}]
  groups = sweep.group(config, members, workdir)
  if resume:
    workdir = str(pathlib.Path(resume).resolve().parent.parent)
    members = only(resume, sweep.group(config, members, workdir))
    groups = sweep.group(config, members, workdir)
  if all(runs.is_finished(each.folder) for each in groups) and not dry_run:
    return Plan(config, members, workdir)
  if not dry_run:
    runs.require_writable(workdir)
  return with_data(path, Plan(config, members, workdir), overrides)


def carry_out(
  planned: Plan, *, sinks: Sequence[Callable] = (), say: Callable[[str], None] = print
) -> pathlib.Path:
  """Runs what is planned and draws the report; returns the path of report.html."""
  announce(planned, say)
  folders = sweep.run(
    planned.config,
    planned.members,
    planned.workdir,
    source=planned.source,
    say=say,
    sinks=sinks,
  )
  page = folders[0].parent / "report.html"
  if record.is_writer():
    page = report.write_report(folders[0].parent)
    say(f"report: {page}")
  if planned.notice:
    say(planned.notice)
  return page


def announce(planned: Plan, say: Callable[[str], None]) -> None:
  """Says which data are used, loudly when they are not those asked for."""
  if planned.notice:
    say(planned.notice)
  if planned.source:
    say(f"data: {planned.source.origin}")


def with_data(path: str, planned: Plan, overrides: Mapping[str, Any]) -> Plan:
  """Loads the data; where they cannot be had, the fallback's whole recipe with its own data.

  Raises:
    rankbias.data.DatasetUnavailable: when the config names no fallback.
  """
  config = planned.config
  try:
    return planned._replace(source=experiment.load_data(config))
  except DatasetUnavailable as error:
    if config.data.fallback in (None, "", "None"):
      raise
    name, _, arg = config.data.fallback.partition(":")
    other, sweep_of = load(pathlib.Path(path).parent / f"{name}.py", arg)
    members = sweep_of(other)  # by its own name, which may decide what is swept
    other.name = f"{config.name}-fallback-{other.data.name}"
    ignored = [field for field in overrides if not field.startswith("data.")]
    notice = (
      f"!!! NOT {config.data.name}: {error.reason} Running {name} on {other.data.name} instead; "
      f"its results are in {other.name}. --config.data.fallback=None makes this an error."
      + (f" Ignored: {', '.join(ignored)}." if ignored else "")
      + " !!!"
    )
    return Plan(other, members, planned.workdir, experiment.load_data(other), notice)


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


def describe(planned: Plan, say: Callable[[str], None] = print) -> None:
  """Says what every program of the sweep would be and need."""
  announce(planned, say)
  for config, members, folder in sweep.group(planned.config, planned.members, planned.workdir):
    built = program.build([override(config, member) for member in members], planned.source)
    parameters, memory = program.size(built, planned.source, config.batch_size)
    say(f"{folder}{'  (finished)' if runs.is_finished(folder) else ''}")
    count = f"{len(members)} member{'s' * (len(members) > 1)}"
    say(
      f"  {count} of {parameters:,} parameters, {config.steps} steps of {config.batch_size} "
      f"images, {built.length} steps a call, about {max(memory / 2**20, 1):,.0f} MiB"
    )
    for member, numbers in zip(members, built.numbers, strict=True):
      shown = {**member, "learning rate after its rule": round(numbers["learning_rate"], 6)}
      say("    " + ", ".join(f"{key}={value}" for key, value in shown.items()))


def default_workdir() -> str:
  """RANKBIAS_WORKDIR, or the folder `runs` here."""
  return os.environ.get("RANKBIAS_WORKDIR", "runs")
