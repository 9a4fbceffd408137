"""The end of the page, folded: every member, the configuration, the versions."""

import html
import json

from rankbias.report import tables
from rankbias.report.collect import Sweep
from rankbias.report.setting import flat


def record(sweep: Sweep) -> str:
  """What is needed to trace a number on the page to a config and a seed."""
  parts = ["<h2>Record</h2>", _members(sweep)]
  for name, run in sweep.runs.items():
    lines = "\n".join(f"{field} = {json.dumps(v)}" for field, v in flat(run["config"]).items())
    summary = f"Configuration of <code>{html.escape(name)}</code>"
    parts.append(folded(summary, f"<pre>{html.escape(lines)}</pre>"))
  for text, names in _versions(sweep).items():
    of = "" if len(names) == len(sweep.runs) else f" of {', '.join(names)}"
    parts.append(folded(f"Versions{html.escape(of)}", f"<pre>{html.escape(text)}</pre>"))
  return "\n".join(parts)


def _members(sweep: Sweep) -> str:
  rows = []
  for m in (m for section in sweep.sections for m in section.members):
    r = m.record
    status = r["status"] if m.finished else f"diverged at step {r['stopped_at']}"
    loss = (r["last"] or {}).get("loss")
    others = {k: v for k, v in r["overrides"].items() if k not in ("temperature", "seed")}
    cells = [
      f"{m.temperature:g}",
      str(r["seed"]),
      ", ".join(f"{k} = {v}" for k, v in others.items()) or "–",
      f"{r['learning_rate']:.4g}",
      f"{r['steps']:,}",
      status,
      "–" if loss is None else f"{loss:.3g}",
      m.folder,
    ]
    rows.append([html.escape(cell) for cell in cells])
  heads = ["T", "seed", "other fields", "learning rate", "steps", "status"]
  heads += ["last training loss (nats)", "run folder"]
  return folded(f"Every member ({len(rows)})", tables.rows_as_html(heads, rows))


def _versions(sweep: Sweep) -> dict[str, list[str]]:
  """Text of versions and machine -> the run folders it holds for."""
  found: dict[str, list[str]] = {}
  for name, run in sweep.runs.items():
    environment = run["environment"]
    facts = environment.get("versions", {}) | {
      key: environment.get(key) for key in ("git", "platform", "cpus", "devices")
    }
    text = "\n".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in facts.items())
    found.setdefault(text, []).append(name)
  return found


def folded(summary: str, content: str) -> str:
  """A part of the page that opens when asked."""
  return f"<details><summary>{summary}</summary>\n{content}\n</details>"
