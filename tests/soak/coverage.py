"""`python -m tests.soak.coverage`: what `make coverage` measured, as a record for docs/reliability.md."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

from vlprompt import disk, reading

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "records" / "coverage.json"
OWN = "*/src/vlprompt/*,src/vlprompt/*"
"""Not the files that tests write and run."""
LOW = 90.0
"""Percent; files below it are named."""


def record() -> None:
    """Write the record from the data of the last `make coverage`, which lie here."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "coverage.json"
        asked = ("-m", "coverage", "json", "--quiet", "--ignore-errors", f"--include={OWN}", "-o", str(out))
        subprocess.run([sys.executable, *asked], check=True, cwd=ROOT)
        disk.write_json(RECORD, taken(reading.json_object(out)))


def taken(found: dict[str, Any]) -> dict[str, Any]:
    """Of coverage's own report what is kept."""
    totals, files = found["totals"], found["files"]
    return {
        "date": date.today().isoformat(),
        "command": "make coverage",
        "statements": totals["num_statements"],
        "statements_taken": totals["covered_lines"],
        "branches": totals["num_branches"],
        "branches_taken": totals["covered_branches"],
        "low": {
            name[name.index("vlprompt/") :]: round(one["summary"]["percent_covered"], 1)
            for name, one in sorted(files.items())
            if one["summary"]["percent_covered"] < LOW
        },
    }


def lines() -> list[str]:
    """The record as a part of docs/reliability.md."""
    one = reading.json_object(RECORD)
    parts = {kind: (one[f"{kind}_taken"], one[kind]) for kind in ("statements", "branches")}
    rows = [f"| {kind} | {of:,} | {taken:,} | {100 * taken / of:.1f} |" for kind, (taken, of) in parts.items()]
    taken, of = (sum(values) for values in zip(*parts.values()))
    low = "; ".join(f"`{name}` {percent:.1f} %" for name, percent in one["low"].items())
    return [
        "## What the quick tests run",
        "",
        f"`{one['command']}` on {one['date']}: the tests of `make test`, with their subprocesses.",
        "",
        "| what | in the package | run | percent |",
        "|---|---:|---:|---:|",
        *rows,
        f"| both | {of:,} | {taken:,} | {100 * taken / of:.1f} |",
        "",
        *([_filled(f"Files below {LOW:.0f} %: {low}."), ""] if low else []),
        *([_filled(one["note"]), ""] if one.get("note") else []),
    ]


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    record()
    print(json.dumps(reading.json_object(RECORD), indent=1))
