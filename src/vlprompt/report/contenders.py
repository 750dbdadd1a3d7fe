"""Who is in a report: every method under one name, in one order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlprompt import records
from vlprompt.errors import UserError
from vlprompt.records import BY_HAND, Record
from vlprompt.report.sides import Run, seedless

ORDER = (
    *(BY_HAND, "descriptions", "linear-probe", "lp-plus-plus", "tip-adapter", "tip-adapter-f", "clip-adapter"),
    *("coop", "cocoop", "kgcoop", "prograd", "tcp", "pomp", "vpt", "vpt-deep", "ivlp", "maple", "promptsrc", "rpp"),
    *("clip-lora", "promptkd", "tpt"),
)
"""Rows in the papers' order; what is not named here comes after, by name. An overlay follows the method it is laid on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of every table: a method, on one model, from one start."""

    name: str
    method: str
    host: str
    """The method without overlays."""
    overlay: str
    """`plpp` of `plpp+coop`; empty without."""
    seedless: bool
    runs: tuple[Run, ...]
    """Empty for the zero-shot row that is read from other methods' records."""

    @property
    def countless(self) -> bool:
        """Whether it learns from all images without labels, so the number of labelled ones does not matter."""
        return any(run.record.setting == "transductive" for run in self.runs)


def gather(root: Path) -> tuple[list[Run], list[str]]:
    """Every finished run at or below a directory, and what could not be read."""
    runs: list[Run] = []
    problems: list[str] = []
    for path in sorted(root.rglob(records.RESULT)):
        try:
            run = Run(path.parent, records.read(path))
            if (path.parent / records.PREDICTIONS).is_file():
                run.require_fit()
            runs.append(run)
        except UserError as problem:
            problems.append(f"Left out: {problem}".replace(str(root), root.name or "."))
    return runs, problems


def contenders(runs: Sequence[Run]) -> tuple[list[Contender], list[str]]:
    """Runs as contenders in the order of rows, and notes on what is there twice.

    The model, the start and the setting join the name where they differ; so do options, where the same method was run with several.
    """
    several_models = len({run.record.model for run in runs}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_name(run.record, several_models), []).append(run)
    split: dict[str, list[Run]] = {}
    for name, group in groups.items():
        split |= _by_options(name, group)
    out: list[Contender] = []
    notes: list[str] = []
    for name, group in split.items():
        kept = _once(name, group, notes)
        method = kept[0].record.method
        overlay, _, host = method.rpartition("+")
        fixed = all(seedless(run.record) for run in kept)
        out.append(Contender(name=name, method=method, host=host, overlay=overlay, seedless=fixed, runs=tuple(kept)))
    if runs and not several_models and not any(one.method == BY_HAND for one in out):
        out.append(Contender(name=BY_HAND, method=BY_HAND, host=BY_HAND, overlay="", seedless=True, runs=()))
    return sorted(out, key=_rank), notes


def _rank(one: Contender) -> tuple[int, str, str, str]:
    return (ORDER.index(one.host) if one.host in ORDER else len(ORDER), one.host, one.overlay, one.name)


def _name(record: Record, several_models: bool) -> str:
    parts = [record.method]
    if several_models:
        parts.append(f"on {record.model}")
    if record.init:
        parts.append(f"from {record.init[:8]}")
    if record.setting != "inductive":
        parts.append(record.setting)
    return ", ".join(parts)


def _cell(record: Record) -> tuple[object, ...]:
    return (record.protocol, record.source, record.dataset, record.subset, record.shots, record.seed)


def _by_options(name: str, group: Sequence[Run]) -> dict[str, list[Run]]:
    """One group, or several where a cell was run with different options: these then stand in the name."""
    by_cell: dict[tuple[object, ...], list[Run]] = {}
    for run in group:
        by_cell.setdefault(_cell(run.record), []).append(run)
    differing: set[str] = set()
    for same in by_cell.values():
        if len(same) < 2:
            continue
        names = {option for run in same for option in run.record.options}
        differing |= {option for option in names if len({_text(run.record.options.get(option)) for run in same}) > 1}
    if not differing:
        return {name: list(group)}
    out: dict[str, list[Run]] = {}
    for run in group:
        words = " ".join(f"{option}={_text(run.record.options.get(option))}" for option in sorted(differing))
        out.setdefault(f"{name}, {words}", []).append(run)
    return out


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _once(name: str, group: Iterable[Run], notes: list[str]) -> list[Run]:
    """The first run of each cell and seed; the others are named."""
    first: dict[tuple[object, ...], Run] = {}
    for run in group:
        other = first.setdefault(_cell(run.record), run)
        if other is not run:
            notes.append(f"Left out: {run.directory} is the same run of {name} as {other.directory}.")
    return list(first.values())
