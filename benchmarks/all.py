"""Every benchmark on this machine, one after the other, into a record; and the page that shows all records side by side.

    python -m benchmarks.all [--only text_tower,listing] [--out docs/records/performance/MACHINE.json] [--json FILE]
    python -m benchmarks.all --page

A record is one machine's: its processor with the flags that matter, and for each benchmark the command, the day, the threads, the load
of the machine when it began and ended, and the figures. A benchmark that is run again replaces its own figures and leaves the others.
One that fails is said, and the others are run. `--page` writes the tables of docs/performance.md between their marks and measures
nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, publish

ROOT = Path(__file__).resolve().parents[1]
RECORDS, PAGE = ROOT / "docs" / "records" / "performance", ROOT / "docs" / "performance.md"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
PARTS: Mapping[str, tuple[str, ...]] = {
    "text_tower": ("text_tower", "--repeats", "2"),
    "unmasked": ("text_tower", "--unmasked", "--repeats", "2"),
    "methods": ("methods", "--repeats", "1"),
    "feature_cache": ("feature_cache",),
    "estimates": ("estimates", "--steps", "1"),
    "pretrain": ("pretrain", "--classes", "100,1000", "--repeats", "1"),
    "replicas": ("replicas",),
    "teacher": ("teacher", "--repeats", "2"),
    "listing": ("listing",),
    "end_to_end": ("end_to_end",),
    "gpu": ("gpu",),
    "gpu_compiled": ("gpu", "--compile"),
}
"""Benchmark -> its module and options here, the quickest first within reason."""
ON_GPU = ("gpu", "gpu_compiled")

Record = dict[str, Any]


def machine() -> Record:
    """What decides a figure: the processor, its flags, how many cores this process may use, the GPU if there is one, and torch."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    has = set(facts.get("flags", facts.get("Features", "")).split())
    card = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **card,
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in FLAGS if flag in has],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": torch.__version__,
    }


def measured(part: str) -> Record | None:
    """Run a benchmark in its own process; None where it failed: its error is then above."""
    (module, *options), before = PARTS[part], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{module}", *options, "--json", str(out)]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode or not out.is_file():
            return None
        figures = json.loads(out.read_text(encoding="utf-8"))
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{module}", *options]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "figures": figures,
    }


def run(parts: Sequence[str], out: Path) -> Record:
    """Measure some benchmarks, each written into the record as soon as it is done."""
    record: Record = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"parts": {}}
    record = {"machine": machine(), "parts": record["parts"]}
    for part in parts:
        print(f"== {part}", flush=True)
        found = measured(part)
        if found is None:
            print(f"{part} failed; its error is above. The others go on.", flush=True)
            continue
        record["parts"][part] = found
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def records(root: Path = RECORDS) -> dict[str, Record]:
    """Name -> record, of all machines."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*.json"))}


def tables(found: Mapping[str, Record]) -> str:
    """The machines, and a table of figures for each benchmark, a column for each machine."""
    lines = ["| machine | processor | flags | cores | torch |", "| --- | --- | --- | ---: | --- |"]
    for name, record in found.items():
        facts = record["machine"]
        flags = ", ".join(facts["flags"]) or "none that matter"
        processor = ", ".join(facts[key] for key in ("processor", "gpu") if key in facts)
        lines.append(f"| {name} | {processor} | {flags} | {facts['cores']} | {facts['torch']} |")
    for part in PARTS:
        having = {name: record["parts"][part] for name, record in found.items() if part in record["parts"]}
        if having:
            lines += ["", f"### Record: {part}", "", *_table(having)]
    return "\n".join(lines)


def _table(having: Mapping[str, Record]) -> list[str]:
    said = [f"- {name}: `{one['command']}`,\n  {one['date']}, {_circumstances(one)}." for name, one in having.items()]
    units: dict[str, str] = {}
    values: dict[str, dict[str, float]] = {}
    for name, one in having.items():
        for figure in one["figures"]:
            units.setdefault(figure["name"], figure["unit"])
            values.setdefault(figure["name"], {})[name] = figure["value"]
    lines = [f"| figure | {' | '.join(having)} | unit |", f"| --- |{' ---: |' * len(having)} --- |"]
    for figure, each in values.items():
        cells = [f"{each[name]:.4g}" if name in each else "not measured" for name in having]
        lines.append(f"| `{figure}` | {' | '.join(cells)} | {units[figure].replace('|', chr(92) + '|')} |")
    return [*said, "", *lines]


def _circumstances(one: Record) -> str:
    """Threads and load; old records, written by hand from a page, do not know their load."""
    load = one.get("load")
    return f"threads {one['threads']}, load {f'{load[0]} to {load[1]}' if load else 'not kept'}"


def filled(text: str, found: Mapping[str, Record]) -> str:
    """A page with the tables of these records between its marks."""
    mark = re.compile(r"(<!-- performance records -->\n).*?(<!-- /performance records -->)", re.DOTALL)
    return mark.sub(lambda marks: f"{marks[1]}{tables(found)}\n{marks[2]}", text)


def main() -> None:
    """Command line."""
    here = [part for part in PARTS if part not in ON_GPU or torch.cuda.is_available()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(here), help=f"default {','.join(here)}")
    parser.add_argument("--out", type=Path, help="the record (default: called after the processor)")
    parser.add_argument("--json", type=Path, help="write all figures of the record to this file as well")
    parser.add_argument("--page", action="store_true", help="write the page from the records; nothing is measured")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), records()), encoding="utf-8")
        return
    parts = arguments.only.split(",")
    wrong = [part for part in parts if part not in PARTS]
    if wrong:
        parser.error(f"--only {wrong[0]!r} is not a benchmark. Allowed: {', '.join(PARTS)}.")
    called = re.sub(r"[^a-z0-9]+", "-", machine()["processor"].lower()).strip("-")
    record = run(parts, arguments.out or RECORDS / f"{called}.json")
    whole = [
        Figure(**figure) for part in parts if part in record["parts"] for figure in record["parts"][part]["figures"]
    ]
    publish(whole, arguments.json)


if __name__ == "__main__":
    main()
