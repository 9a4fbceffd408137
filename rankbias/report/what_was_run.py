"""What was run: data, model, members, machine and code, as a list at the top of the page."""

import html

from rankbias.report import remedies
from rankbias.report.collect import Sweep


def what_was_run(sweep: Sweep) -> str:
  """Data, model, members, command, machine, time and code of a sweep, as HTML."""
  every = list(sweep.runs.values())
  result, environment = every[0]["result"], every[0]["environment"]
  data, model = result["data"], result["model"]
  members = [m for section in sweep.sections for m in section.members]
  temperatures = ", ".join(f"{t:g}" for t in sorted({m.temperature for m in members}))
  steps = ", ".join(f"{n:,}" for n in sorted({m.record["steps"] for m in members}))
  seeds = len({m.record["seed"] for m in members})
  seconds = sum(row.get("seconds") or 0 for run in every for row in run["timing"])
  commands = dict.fromkeys(run["environment"].get("command", "") for run in every)
  sizes = sorted({run["result"]["model"]["parameters"] for run in every})
  parameters = f"{sizes[0]:,}" + f" to {sizes[-1]:,}" * (len(sizes) > 1)
  fixed = "" if "train" in data else f"; {data.get('test', 0):,} fixed test examples"
  rows = {
    "data": f"{environment.get('data') or data['name']}; {data['classes']} classes{fixed}",
    "measured on": _sets(sweep),
    "model": f"{model['name']}, {model['weight_layers']} weight layers, {parameters} parameters",
    "members": f"{len(members)}: T = {temperatures}; {seeds} seeds; {steps} steps",
    "command": "; ".join(filter(None, commands)),
    "machine": _machine(environment),
    "time": f"{seconds:,.0f} s in {len(every)} program{'s' if len(every) > 1 else ''}",
    "code": _code(environment),
  }
  items = "\n".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in rows.items() if v)
  return f"<dl>\n{items}\n</dl>"


def _sets(sweep: Sweep) -> str:
  """Of which sizes were sets measured, and how many of each?"""
  found = {}
  for section in filter(remedies.measured, sweep.sections):
    n, sets = remedies.sizes(section), remedies.sets(section)
    counts = {count: [m for m, k in zip(n, sets, strict=True) if k == count] for count in sets}
    parts = (
      f"{m[0]:,}{f' to {m[-1]:,}' if len(m) > 1 else ''} items: {count:,} sets of each size"
      for count, m in counts.items()
    )
    found["; ".join(parts)] = None
  return f"{'; '.join(found)}; the same ones for every seed and remedy" if found else ""


def _machine(environment: dict) -> str:
  devices = environment.get("devices") or []
  shown = f"{len(devices)} × {devices[0]}" if len(devices) > 1 else "".join(devices)
  cpus = f"{environment['cpus']} CPUs" if environment.get("cpus") else ""
  return ", ".join(filter(None, [environment.get("platform"), cpus, shown]))


def _code(environment: dict) -> str:
  git = environment.get("git")
  version = f"rankbias {environment.get('versions', {}).get('rankbias', '')}".strip()
  if not git:
    return version
  return f"{version}, commit {git['commit'][:12]}" + (" with local changes" * git["dirty"])
