"""Runs a sweep: members that differ only in numbers together where that is faster."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rankbias import experiment, network, runs
from rankbias.config import MEMBER_FIELDS, override
from rankbias.data.source import Source


class Group(NamedTuple):
  """One program of a sweep.

  Attributes:
    config: with the members' common overrides.
    members: the overrides of each member.
    folder: where it runs.
  """

  config: ConfigDict
  members: list[dict[str, Any]]
  folder: pathlib.Path


def run(
  config: ConfigDict,
  members: Sequence[Mapping[str, Any]],
  workdir: str | pathlib.Path,
  *,
  source: Source | None = None,
  say: Callable[[str], None] = print,
  sinks: Sequence[Callable] = (),
) -> list[pathlib.Path]:
  """Runs every member that is not finished; returns the run folders, in order.

  Every member is checked before the first one starts. The programs follow each other in this
  process.

  Args:
    source: the data of `config.data`, when they are loaded already.
    say: receives one line about every program that is skipped and every member that diverges.
    sinks: as in `experiment.run`.
  """
  groups = group(config, members, workdir)
  loaded = {} if source is None else {repr(config.data): source}
  for i, (own, same, folder) in enumerate(groups):
    if runs.is_finished(folder):
      say(f"finished already: {folder}")
      continue
    if repr(own.data) not in loaded:
      loaded = {repr(own.data): experiment.load_data(own)}
    result = experiment.run(
      own,
      workdir,
      members=same,
      source=loaded[repr(own.data)],
      label=f"[{i + 1}/{len(groups)}] " if len(groups) > 1 else "",
      programs_left=sum(not runs.is_finished(later.folder) for later in groups[i + 1 :]),
      sinks=sinks,
    )
    for member in result["members"]:
      if member["status"] == "diverged":
        say(f"diverged at step {member['stopped_at']}: {show(member['overrides'])}")
  return [each.folder for each in groups]


def show(member: Mapping[str, Any]) -> str:
  """A member's overrides as a line of text."""
  return ", ".join(f"{field}={value}" for field, value in member.items()) or "the only member"


def group(
  config: ConfigDict, members: Sequence[Mapping[str, Any]], workdir: str | pathlib.Path
) -> list[Group]:
  """Checks every member and splits them into programs, keeping their order.

  Members that differ only in `rankbias.config.MEMBER_FIELDS` share programs of at most
  `members_per_program`; if that is 0, of all of them, but of one where the model convolves: a
  vmapped convolution becomes a grouped one, which is slower. The machine has no say, so a sweep
  has the same folders everywhere.
  """
  for member in members:
    experiment.check(override(config, member))
  alike = {}
  for member in members:
    common = {k: v for k, v in member.items() if k not in MEMBER_FIELDS}
    alike.setdefault(json.dumps(common, sort_keys=True), (common, []))[1].append(dict(member))
  groups = []
  for common, same in alike.values():
    own = override(config, common)
    size = own.members_per_program or (1 if network.convolves(own) else len(same))
    for part in (same[i : i + size] for i in range(0, len(same), size)):
      groups.append(Group(own, part, experiment.run_folder(own, workdir, part)))
  return groups
