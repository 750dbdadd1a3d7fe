"""What a grid shows: its plan before, a line for each cell while it runs, and what is finished after."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from vlprompt.cli import clusters, console
from vlprompt.cli.progress import observing

if TYPE_CHECKING:
    from vlprompt.bench import Cell, Desk, Grid, Outcome, Outlook, Plan, SizedDesk
    from vlprompt.bench.estimate import Cost, LearningCost, PlanLine

SECONDS_BETWEEN_ESTIMATES = 30.0
HOUR, MIB, GIB = 3600, 2**20, 2**30


def show_plan(
    plan: Plan,
    grid: Grid,
    jobs: int,
    cached: tuple[int, int] | None,
    *,
    as_json: bool,
    probed: Sequence[LearningCost] = (),
    tests: Mapping[Path, float] = MappingProxyType({}),
) -> None:
    """What there is to do and what it will take, on stderr; or as JSON on stdout."""
    from vlprompt.bench import lines, said_of, total

    found = lines(plan, grid, probed, tests)
    if as_json:
        console.dump(_data(plan, grid, found, cached))
        return
    console.err().print(_table(found))
    whole = total(found)
    left = sum(line.cells - line.finished for line in found)
    console.note(
        f"{sum(line.cells for line in found)} cells, {left} to do, {sum(line.prompts for line in found)} prompts to learn: "
        f"{_time(whole, jobs)}{f' with {jobs} processes' if jobs > 1 else ''}; {_memory(whole, jobs)}."
    )
    if cached is not None and cached[1]:
        console.note(f"Image features: {cached[0]:,} of {cached[1]:,} test images are in the cache.")
    for sentence in said_of(plan.refused):
        console.note(f"Left out: {sentence}")


def _data(plan: Plan, grid: Grid, found: Sequence[PlanLine], cached: tuple[int, int] | None = None) -> dict[str, Any]:
    return {
        "cells": [{**one.planned, "finished": grid.finished(one)} for one in plan.cells],
        "plan": [dataclasses.asdict(line) for line in found],
        "refused": [dataclasses.asdict(one) for one in plan.refused],
        "features": None if cached is None else {"cached": cached[0], "images": cached[1]},
    }


def _table(found: Sequence[PlanLine]) -> Any:
    columns = ("protocol", "method", ">cells", ">finished", ">failed before", ">to learn", ">time", ">memory", "recipe")
    rows = []
    for line in found:
        idle = line.cells == line.finished
        costs = ("", "") if idle else (_time(line.need, 1, brief=True), _memory(line.need, 1, brief=True))
        counts = (line.cells, line.finished, line.failed or "", line.prompts)
        rows.append((line.protocol, line.method, *counts, *costs, line.recipe))
    return console.table(None, columns, rows, ruled=False)


def _time(need: Cost, jobs: int, *, brief: bool = False) -> str:
    known = f"about {_duration(need.seconds / jobs)}" if need.seconds else ""
    if not need.unknown:
        return known or "seconds"
    if brief:
        return f"{known} +" if known else "unknown"
    missing = f"{need.unknown} of unknown time (nothing measured of their methods here yet)"
    return f"{known}, and {missing}" if known else missing


def _memory(need: Cost, jobs: int, *, brief: bool = False) -> str:
    if need.peak_mib is None:
        return "unknown" if brief else "memory unknown"
    size = f"{need.peak_mib * jobs / 1024:.1f} GiB"
    return size if brief else f"about {size} of memory"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_outlook(plan: Plan, grid: Grid, desk: SizedDesk, jobs: int, *, as_json: bool) -> None:
    """Time a few steps, then show what there is to do and what it will take, on stderr; or as JSON on stdout."""
    from vlprompt.bench import lines, look_ahead, total

    console.note(
        f"Planned by their published sizes, with classes as equal as can be, because they are not on this disk: "
        f"{', '.join(desk.sized)}."
    )
    if desk.instead:
        console.note(
            f"Random weights in ViT-B/16's shape are timed, because {plan.request.model} cannot be had here "
            f"({desk.instead.partition(': ')[0]})."
        )
    ahead = look_ahead(plan, desk, lambda what: console.note(f"{what} ..."))
    found = lines(plan, grid, ahead.learnings, ahead.tests)
    if as_json:
        console.dump(_as_data(plan, grid, desk, found, ahead))
        return
    _show_ahead(found, total(found), ahead, jobs)
    _show_refused(plan)


def _as_data(plan: Plan, grid: Grid, desk: SizedDesk, found: Sequence[PlanLine], ahead: Outlook) -> dict[str, Any]:
    from vlprompt.bench import total

    whole = total(found)
    return {
        **_data(plan, grid, found),
        "outlook": {
            "estimate": True,
            "device": ahead.device,
            "model": plan.request.model,
            "weights": "random, in ViT-B/16's shape" if desk.instead else "the model's",
            "sized": list(desk.sized),
            "seconds": whole.seconds + ahead.features,
            "seconds_features": ahead.features,
            "seconds_per_image": ahead.image,
            "unknown_prompts": whole.unknown,
            "peak_mib": whole.peak_mib,
            "steps": [dataclasses.asdict(one) | dataclasses.asdict(one.line) for one in ahead.steps],
            "disk": [dataclasses.asdict(one) for one in ahead.held],
            "disk_bytes": sum(one.bytes for one in ahead.held),
        },
    }


def _show_ahead(found: Sequence[PlanLine], whole: Cost, ahead: Outlook, jobs: int) -> None:
    console.err().print(_ahead(found), _steps(ahead), _disk(ahead))
    finished, failed = sum(line.finished for line in found), sum(line.failed for line in found)
    done = f", {finished} finished" if finished else ""
    before = f", {failed} failed before" if failed else ""
    pairs, size = sum(one.pairs for one in ahead.held), sum(one.bytes for one in ahead.held)
    console.note(
        f"{sum(line.cells for line in found):,} cells{done}{before}, {sum(line.prompts for line in found):,} prompts to learn."
    )
    seconds = whole.seconds + ahead.features
    shared = f", {_hours(seconds / jobs)} with {jobs} processes if they do not slow each other" if jobs > 1 else ""
    console.note(
        f"Time (an estimate, from steps timed just now on {ahead.device}): {_hours(seconds)} on one such device{shared}: "
        f"{_hours(whole.seconds)} of learning and testing, {_hours(ahead.features)} of encoding {pairs:,} image views "
        f"({ahead.image:.2g} s each) once for all methods."
    )
    unknown = f", and {whole.unknown:,} prompts of methods that take no steps" if whole.unknown else ""
    console.note(
        f"Not in it: checkpoints, the teacher's sentences, answers on validation images, the text side of tests{unknown}. "
        f"Memory: {_size_of(whole)} for the largest prompt."
    )
    console.note(f"Disk for cached features: {_size(size)}.")


def _size_of(need: Cost) -> str:
    return "unknown" if need.peak_mib is None else f"{need.peak_mib / 1024:.1f} GiB"


def _show_refused(plan: Plan) -> None:
    """What is impossible, without the reasons, which name classes: those of a stand-in are made up."""
    said = dict.fromkeys(f"{one.protocol} with {one.method}" for one in plan.refused)
    if said:
        console.note(
            f"Left out as impossible, with some sets at least: {', '.join(said)}. With the data there a plan says why."
        )


def _ahead(found: Sequence[PlanLine]) -> Any:
    rows = []
    for line in found:
        need = line.need
        known = _hours(need.seconds) if need.seconds else ""
        time = f"{known} +" if known and need.unknown else known or ("no steps" if need.unknown else "features only")
        memory = "" if need.peak_mib is None else _size_of(need)
        rows.append((line.protocol, line.method, f"{line.cells:,}", f"{line.prompts:,}", time, memory, line.recipe))
    columns = ("protocol", "method", ">cells", ">to learn", ">time", ">memory", "recipe")
    return console.table(None, columns, rows, ruled=False)


def _steps(ahead: Outlook) -> Any:
    rows = []
    for step in ahead.steps:
        (few, less), (many, more) = sorted(step.timed.items())
        rows.append((step.method, step.batch, few, f"{less:.3g}", many, f"{more:.3g}"))
    columns = ("timed", ">images a step", ">classes", ">s a step", ">classes", ">s a step")
    return console.table(None, columns, rows, ruled=False)


def _disk(ahead: Outlook) -> Any:
    rows = ((one.dataset, f"{one.images:,}", f"{one.pairs:,}", _size(one.bytes)) for one in ahead.held)
    columns = ("cached features of", ">images", ">image views", ">disk")
    return console.table(None, columns, rows, ruled=False)


def _size(number: int) -> str:
    return f"{number / GIB:.2f} GiB" if number >= GIB else f"{number / MIB:.1f} MiB"


def _hours(seconds: float) -> str:
    hours = seconds / HOUR
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.2g} h" if hours >= 0.01 else f"{seconds:.2g} s"


def carry_out(plan: Plan, grid: Grid, desk: Desk, jobs: int, ray: str | None = None) -> list[Outcome]:
    """Do what is missing, with a line for each cell, and bars on a terminal."""
    from vlprompt import bench
    from vlprompt.engine.observer import SILENT

    shown = jobs == 1 and ray is None and console.err().is_terminal
    with (
        observing() if shown else nullcontext(SILENT) as observer,
        clusters.carrying(ray, jobs, observer, desk) as carry,
    ):
        said = _Said(plan, grid, jobs)
        return list(bench.work_off(plan.cells, grid, carry, said).values())


class _Said:
    """A line for each outcome, with the time that is left, estimated now and then."""

    def __init__(self, plan: Plan, grid: Grid, jobs: int) -> None:
        self._plan, self._grid, self._jobs = plan, grid, jobs
        self._left = {cell.place for cell in plan.cells if not grid.finished(cell)}
        self._total = len(self._left)
        self._estimated = time.monotonic()

    def __call__(self, cell: Cell, outcome: Outcome) -> None:
        self._left.discard(cell.place)
        number = f"[{self._total - len(self._left)}/{self._total}]"
        if outcome.state != "done":
            console.warn(f"{number} {cell.name}: {outcome.state}: {outcome.reason}")
            return
        top1 = "no test images" if outcome.top1 is None else f"{outcome.top1:.1f} %"
        beside = "" if outcome.zero_shot_top1 is None else f" (zero-shot {outcome.zero_shot_top1:.1f} %)"
        console.note(f"{number} {cell.name}: {top1}{beside}{self._remaining()}")

    def _remaining(self) -> str:
        from vlprompt.bench import lines, total

        if not self._left or time.monotonic() - self._estimated < SECONDS_BETWEEN_ESTIMATES:
            return ""
        self._estimated = time.monotonic()
        return f"; to do: {_time(total(lines(self._plan, self._grid)), self._jobs)}"


def conclude(plan: Plan, grid: Grid, outcomes: Sequence[Outcome], *, quiet: bool) -> None:
    """What is finished and what to do next; ends with the first failure's exit code where there is one."""
    bad = [outcome for outcome in outcomes if outcome.state != "done"]
    finished = sum(grid.finished(cell) for cell in plan.cells)
    console.note(f"{finished} of {len(plan.cells)} cells are finished in {grid.out}.")
    if not quiet and finished:
        from vlprompt.report.write import write_report

        console.note(f"Tables and figures, made again by `vlprompt report`: {write_report(grid.out).files[0]}")
        console.commands("Next:", [f"vlprompt compare {shlex.quote(str(grid.out))} --methods A,B"])
    if not bad:
        return
    reasons = dict.fromkeys(outcome.reason.rstrip(".") for outcome in bad)
    console.warn(
        f"{len(bad)} cells failed: {'; '.join(list(reasons)[:3])}{'; ...' if len(reasons) > 3 else ''}. The same command tries them "
        f"again, until each has failed {grid.attempts} times (--attempts)."
    )
    raise typer.Exit(bad[0].exit_code or 1)
