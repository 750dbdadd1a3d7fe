"""`vlprompt bench --dry-run` before the data are there: cells, hours and disk by published sizes and steps timed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlprompt.cli import console

if TYPE_CHECKING:
    from vlprompt.bench import Grid, Outlook, Plan, SizedDesk
    from vlprompt.bench.estimate import Line, Need

HOUR, MIB, GIB = 3600, 2**20, 2**30


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
    _show(found, total(found), ahead, jobs)
    _show_refused(plan)


def _as_data(plan: Plan, grid: Grid, desk: SizedDesk, found: Sequence[Line], ahead: Outlook) -> dict[str, Any]:
    from vlprompt.bench import total

    whole = total(found)
    return {
        "cells": [{**one.planned, "finished": grid.finished(one)} for one in plan.cells],
        "plan": [dataclasses.asdict(line) for line in found],
        "refused": [dataclasses.asdict(one) for one in plan.refused],
        "features": None,
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


def _show(found: Sequence[Line], whole: Need, ahead: Outlook, jobs: int) -> None:
    console.err().print(_plan(found), _steps(ahead), _disk(ahead))
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
    console.note(
        f"Not in it: checkpoints, the teacher's sentences, answers on validation images, the text side of tests{_unknown(whole)}. "
        f"Memory: {_memory(whole)} for the largest prompt."
    )
    console.note(f"Disk for cached features: {_size(size)}.")


def _unknown(whole: Need) -> str:
    return f", and {whole.unknown:,} prompts of methods that take no steps" if whole.unknown else ""


def _memory(need: Need) -> str:
    return "unknown" if need.peak_mib is None else f"{need.peak_mib / 1024:.1f} GiB"


def _show_refused(plan: Plan) -> None:
    """What is impossible, without the reasons, which name classes: those of a stand-in are made up."""
    said = dict.fromkeys(f"{one.protocol} with {one.method}" for one in plan.refused)
    if said:
        console.note(
            f"Left out as impossible, with some sets at least: {', '.join(said)}. With the data there a plan says why."
        )


def _table(*names: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left")
    return table


def _plan(found: Sequence[Line]) -> Any:
    table = _table("protocol", "method", "cells", "to learn", "time", "memory", "recipe")
    table.columns[1].justify = table.columns[6].justify = "left"
    for line in found:
        need = line.need
        known = _hours(need.seconds) if need.seconds else ""
        time = f"{known} +" if known and need.unknown else known or ("no steps" if need.unknown else "features only")
        memory = "" if need.peak_mib is None else _memory(need)
        table.add_row(line.protocol, line.method, f"{line.cells:,}", f"{line.prompts:,}", time, memory, line.recipe)
    return table


def _steps(ahead: Outlook) -> Any:
    table = _table("timed", "images a step", "classes", "s a step", "classes", "s a step")
    for step in ahead.steps:
        (few, less), (many, more) = sorted(step.timed.items())
        table.add_row(step.method, str(step.batch), str(few), f"{less:.3g}", str(many), f"{more:.3g}")
    return table


def _disk(ahead: Outlook) -> Any:
    table = _table("cached features of", "images", "image views", "disk")
    for one in ahead.held:
        table.add_row(one.dataset, f"{one.images:,}", f"{one.pairs:,}", _size(one.bytes))
    return table


def _size(number: int) -> str:
    return f"{number / GIB:.2f} GiB" if number >= GIB else f"{number / MIB:.1f} MiB"


def _hours(seconds: float) -> str:
    hours = seconds / HOUR
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.2g} h" if hours >= 0.01 else f"{seconds:.2g} s"
