"""What a grid shows: its plan before, a line for each cell while it runs, and what is finished after."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import typer

from vlprompt.cli import clusters, console
from vlprompt.cli.progress import observing

if TYPE_CHECKING:
    from vlprompt.bench import Cell, Desk, Grid, Outcome, Outlook, Plan
    from vlprompt.bench.estimate import Cost, PlanLine

SECONDS_BETWEEN_ESTIMATES = 30.0


def show_plan(plan: Plan, grid: Grid, desk: Desk, jobs: int, *, dry_run: bool, as_json: bool) -> None:
    """What there is to do and what it will take, on stderr; of a dry run also by a few steps that are timed, and as JSON on stdout."""
    from vlprompt.bench import cached_features, lines, look_ahead, said_of

    if desk.sized:
        console.note(
            f"Planned by their published sizes, with classes as equal as can be, because they are not on this disk: "
            f"{', '.join(desk.sized)}."
        )
    if desk.instead:
        console.note(
            f"Random weights in ViT-B/16's shape are timed, because {plan.request.model} cannot be had here "
            f"({desk.instead.partition(': ')[0]})."
        )
    ahead = look_ahead(plan, grid, desk, lambda what: console.note(f"{what} ...")) if dry_run else None
    cached = None if desk.sized else cached_features(plan, grid, desk)
    found = lines(plan, grid, ahead)
    if as_json and ahead is not None:
        console.dump(_data(plan, grid, desk, found, cached, ahead))
        return
    _show_lines(found, jobs)
    if cached is not None and cached[1]:
        console.note(f"Image features: {cached[0]:,} of {cached[1]:,} test images are in the cache.")
    if ahead is not None:
        _show_ahead(ahead)
    for sentence in said_of(plan.refused, reasons=not desk.sized):
        console.note(f"Left out: {sentence}")


def _data(
    plan: Plan, grid: Grid, desk: Desk, found: Sequence[PlanLine], cached: tuple[int, int] | None, ahead: Outlook
) -> dict[str, Any]:
    from vlprompt.bench import total

    whole = total(found)
    return {
        "cells": [{**one.planned, "finished": grid.finished(one)} for one in plan.cells],
        "plan": [dataclasses.asdict(line) for line in found],
        "refused": [dataclasses.asdict(one) for one in plan.refused],
        "features": None if cached is None else {"cached": cached[0], "images": cached[1]},
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
            "steps": [dataclasses.asdict(one) | {"base": one.at(0), "per_class": one.per_class} for one in ahead.steps],
            "disk": [dataclasses.asdict(one) for one in ahead.held],
            "disk_bytes": sum(one.bytes for one in ahead.held),
        },
    }


def _show_lines(found: Sequence[PlanLine], jobs: int) -> None:
    from vlprompt.bench import total

    names = {"cells": ">cells", "finished": ">finished", "failed": ">failed before", "prompts": ">to learn"}
    counts = [name for name in names if any(getattr(line, name) for line in found)]
    rows = []
    for line in found:
        idle = line.cells == line.finished
        costs = ("", "") if idle else (_time(line.need, 1, brief=True), _memory(line.need, 1, brief=True))
        numbers = [f"{number:,}" if (number := getattr(line, name)) else "" for name in counts]
        rows.append((line.protocol, line.method, *numbers, *costs, line.recipe))
    columns = ("protocol", "method", *(names[name] for name in counts), ">time", ">memory", "recipe")
    console.err().print(console.table(None, columns, rows, ruled=False))
    whole = total(found)
    left = sum(line.cells - line.finished for line in found)
    console.note(
        f"{sum(line.cells for line in found):,} cells, {left:,} to do, {sum(line.prompts for line in found):,} prompts to learn: "
        f"{_time(whole, jobs)}{f' with {jobs} processes' if jobs > 1 else ''}; {_memory(whole, jobs)}."
    )


def _time(need: Cost, jobs: int, *, brief: bool = False) -> str:
    known = f"{'' if brief else 'about '}{_duration(need.seconds / jobs)}" if need.seconds else ""
    if not need.unknown:
        return known or "seconds"
    if brief:
        return f"{known} +" if known else "unknown"
    missing = f"{need.unknown:,} of unknown time (nothing measured of their methods here yet, or no steps to be timed)"
    return f"{known}, and {missing}" if known else missing


def _memory(need: Cost, jobs: int, *, brief: bool = False) -> str:
    if need.peak_mib is None:
        return "unknown" if brief else "memory unknown"
    size = f"{need.peak_mib * jobs / 1024:.1f} GiB"
    return size if brief else f"about {size} of memory"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 1.5 else f"{hours:,.0f} h" if hours >= 100 else f"{hours:.1f} h"


def _show_ahead(ahead: Outlook) -> None:
    """What was timed, and what comes to the time and the disk for cached features."""
    steps = []
    for one in ahead.steps:
        (few, less), (many, more) = sorted(one.timed.items())
        steps.append((one.method, one.batch, few, f"{less:.3g}", many, f"{more:.3g}"))
    timed = ("timed", ">images a step", ">classes", ">s a step", ">classes", ">s a step")
    held = [(one.dataset, f"{one.images:,}", f"{one.pairs:,}", _size(one.bytes)) for one in ahead.held]
    features = ("cached features of", ">images", ">image views", ">disk")
    console.err().print(
        *(console.table(None, *one, ruled=False) for one in ((timed, steps), (features, held)) if one[1])
    )
    pairs, size = sum(one.pairs for one in ahead.held), sum(one.bytes for one in ahead.held)
    console.note(
        f"The time is an estimate, from what is measured here and from steps timed just now on {ahead.device}. To it comes "
        f"encoding, once for all methods: about {_duration(ahead.features)} for {pairs:,} image views ({ahead.image:.2g} s each), "
        f"{_size(size)} on disk."
    )
    console.note(
        "Not in it: checkpoints, the teacher's sentences, answers on validation images, the text side of tests."
    )


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


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
