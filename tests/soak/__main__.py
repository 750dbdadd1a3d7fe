"""`python -m tests.soak`: every harness for its share of the time; records as JSON, and the page that is made of them."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from tests.soak import clusters, coverage, files, guided, kills, long, mutants, ranks
from vlprompt import disk, reading
from vlprompt.engine.precision import versions

ROOT = Path(__file__).resolve().parents[2]
PAGE, RECORD = ROOT / "docs" / "reliability.md", ROOT / "docs" / "records" / "soak.json"
SHARE_OF_TRAININGS = 0.3
SHOWN = 5
FOUND = (
    "## Found and mended",
    "",
    "- A list of shards with a file name of more than 255 letters ended in a traceback. Now that shard is left out.",
    "- A disk that filled up in the middle of a grid's cell counted as a failed attempt. Now it does not.",
    "- A `tokenizer.json` of a few hundred bytes took all memory: its steps doubled a text again and again. Now it is",
    "  refused.",
    "- A trunk's configuration, an older vocabulary and `choice.json` with a value of another kind ended in a traceback.",
    "  Now they end in a message.",
    "- A video file that lists other files made FFmpeg open them. Now it is refused.",
    "- The table of `tune` ended in a traceback where a trial had failed. Now it shows the trial as failed.",
    "- A machine of a Ray cluster that hung while its task held a cell's lock kept the grid waiting for ever. Now that cell",
    "  fails with a message, and the same command does it later.",
    "",
)
STEPS = "2,500 steps in one process, time after time: memory and open files"
ROWS = "a table of a million rows, each a file, listed"
CLUSTERS = "a grid on a Ray cluster that loses a task, a machine or its head at a random moment; the same command again"
RANKS = "pretraining on two processes that are killed or stopped at random steps; then continued"
LEAST = {STEPS: 4, ROWS: 2, RANKS: len(ranks.FAULTS), CLUSTERS: len(clusters.FAULTS)}
"""Tries of a harness, however long they take."""


def harnesses() -> list[tuple[str, Callable[[Path, random.Random], Iterator[str]]]]:
    """Names, and what runs."""
    out: list[tuple[str, Callable[[Path, random.Random], Iterator[str]]]] = [
        (kind.name, lambda folder, stream, kind=kind: files.tries(kind, folder, stream)) for kind in files.KINDS
    ]
    out.append(("killed at each file operation in turn", lambda folder, _: kills.killed_in_turn(folder, full=False)))
    out.append(("disk full at each file operation in turn", lambda folder, _: kills.killed_in_turn(folder, full=True)))
    out += [
        ("`train` whose images vanish, some or all, at a random read; then continued", long.vanished),
        ("killed attempts under a clock that jumps by years", long.clocks),
        (STEPS, long.steps),
        (ROWS, long.rows),
        (RANKS, ranks.faults),
        (CLUSTERS, clusters.faults),
    ]
    return out


TRAININGS = "`vlprompt train` killed at random moments, resumed, compared bit for bit"


def run(seconds: float, seed: int, most: int, *, trainings: bool = True, only: str | None = None) -> None:
    """Write the record of all harnesses, after each of them; trainings: also those that run the command, for a third of the time.

    only: words of the name of one harness, whose row is put into the record that is there.
    """
    known = reading.json_object(RECORD) if only is not None and RECORD.is_file() else {}
    found = known.get("harnesses", [])
    todo = harnesses()
    each = seconds * (1 - SHARE_OF_TRAININGS * trainings) / len(todo)
    if trainings:
        todo.append((TRAININGS, kills.trainings))
    if only is not None and not any(only in name for name, _ in todo):
        raise SystemExit(f"no harness is called {only!r}. There are:\n" + "\n".join(name for name, _ in todo))
    for number, (name, harness) in enumerate(todo):
        if only is not None and only not in name:
            continue
        own = seconds * SHARE_OF_TRAININGS if name == TRAININGS else each
        stream, began, tried, wrong, fact = random.Random(seed * 1000 + number), time.monotonic(), 0, [], ""
        with tempfile.TemporaryDirectory() as folder:
            for said in harness(Path(folder), stream):
                tried += 1
                if said.startswith(long.FACT):
                    fact = said.removeprefix(long.FACT)
                elif said:
                    wrong.append(said)
                if tried >= most or (tried >= LEAST.get(name, 1) and time.monotonic() - began > own):
                    break
        took = time.monotonic() - began
        result = {"name": name, "tried": tried, "wrong": len(wrong), "first": wrong[:SHOWN], "seconds": round(took, 1)}
        result |= {"date": date.today().isoformat(), "seed": seed} | ({"fact": fact} if fact else {})
        print(json.dumps(result), flush=True)
        names = [one for one, _ in todo]
        found = sorted(
            [*(one for one in found if one["name"] != name), result], key=lambda one: names.index(one["name"])
        )
        about = {"date": date.today().isoformat(), "seed": seed, "seconds": seconds, "versions": versions()}
        note = {"note": known["note"]} if known.get("note") else {}
        disk.write_json(RECORD, {**about, **note, "harnesses": found})  # a run that is stopped keeps what it has


def page(record: dict[str, Any]) -> str:
    """docs/reliability.md from the record."""
    rows = [
        f"| {one['name']}{_fact(one)} | {one['tried']:,} | {one['wrong']} | {one['seconds']:,} | {one['date']} | {one['seed']} |"
        for one in record["harnesses"]
    ]
    missing = [
        name
        for name in (*(name for name, _ in harnesses()), TRAININGS)
        if name not in {one["name"] for one in record["harnesses"]}
    ]
    wrong = [f"- {one['name']}: {said}" for one in record["harnesses"] for said in one["first"]]
    facts = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    return "\n".join(
        [
            "# Reliability",
            "",
            "`make soak` damages files in random ways, kills processes, fills the disk, takes data away and moves clocks. This",
            "page is made from its record, `docs/records/soak.json`. `make test` has small versions of all of it (`tests/hostile/`).",
            "",
            f"Last run on {record['date']}, for {record['seconds']:,.0f} seconds: each harness has its share, and makes its least",
            "number of tries however long they take.",
            "",
            *([_filled(record["note"]), ""] if record.get("note") else []),
            f"Versions: {facts}.",
            "",
            "A try must end in a value or in a message for the user. It is wrong if it ends in another exception, in other",
            "bits, in a file that is neither the old nor the new one, or in a path outside its folder. A try with a damaged file is",
            f"also wrong if it takes more than {files.SECONDS:.0f} seconds, or {files.MEMORY >> 10:,} MiB.",
            "",
            "| harness | tries | wrong | seconds | run on | seed |",
            "|---|---:|---:|---:|---|---:|",
            *rows,
            "",
            *([] if not missing else [_filled(f"Not part of this run: {'; '.join(missing)}."), ""]),
            *(["What was wrong:", "", *wrong, ""] if wrong else []),
            *FOUND,
            *(guided.lines(reading.json_object(guided.RECORD)) if guided.RECORD.is_file() else []),
            *(coverage.lines() if coverage.RECORD.is_file() else []),
            *(mutants.lines(reading.json_object(mutants.RECORD)) if mutants.RECORD.is_file() else []),
            "A longer run: `make soak SECONDS=36000 SEED=2`.",
            "",
        ]
    )


def _fact(one: dict[str, Any]) -> str:
    return f": {one['fact']}" if "fact" in one else ""


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=10_000, help="Tries of a harness.")
    parser.add_argument("--no-trainings", dest="trainings", action="store_false", help="Leave killed trainings out.")
    parser.add_argument("--only", help="Words of the name of one harness; its row is put into the record.")
    parser.add_argument("--page", action="store_true", help="Make the page of the record that is there.")
    given = parser.parse_args()
    if not given.page:
        run(given.seconds, given.seed, given.most, trainings=given.trainings, only=given.only)
    disk.write_text(PAGE, page(reading.json_object(RECORD)))


if __name__ == "__main__":
    main()
