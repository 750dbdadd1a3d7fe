"""How a run looks while it goes on: one bar per stage on a terminal, plain lines everywhere else. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vlprompt.cli import console
from vlprompt.engine.observer import Observer

if TYPE_CHECKING:
    from vlprompt.records import Record

SECONDS_BETWEEN_LINES = 10.0
"""Without a terminal: how often a stage speaks (project's choice)."""
STAGE_WIDTH = 34


class Bars(Observer):
    """An observer with one bar per stage."""

    def __init__(self, progress: Progress, notes: bool) -> None:
        self._progress, self._notes = progress, notes
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        self._close()
        label = name if len(name) <= STAGE_WIDTH else name[: STAGE_WIDTH - 3] + "..."
        self._task = self._progress.add_task(label, total=total, shown="")

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        assert self._task is not None, "advance before the first stage"
        fields: dict[str, Any] = {"shown": text} if (text := _shown(shown)) else {}
        self._progress.update(self._task, advance=steps, **fields)

    def note(self, text: str) -> None:
        if self._notes:
            console.say(self._progress.console, text, "Note: ", "bold yellow")

    def finished(self, record: Record) -> None:
        self._close()
        console.say(self._progress.console, _finished(record))

    def _close(self) -> None:
        """Leaves a finished stage as it is; removes one that ended early."""
        if self._task is None:
            return
        self._progress.stop_task(self._task)
        self._progress.update(self._task, visible=False)
        self._task = None


class Lines(Observer):
    """An observer that prints a line when a stage ends, and every few seconds before."""

    def __init__(self, output: Console, notes: bool) -> None:
        self._output, self._notes = output, notes
        self._name, self._total, self._done = "", 0, 0
        self._spoken = 0.0

    def stage(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._spoken = time.monotonic()

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._spoken < SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._spoken = now
        console.say(self._output, f"{self._name}: {self._done}/{self._total}  {_shown(shown)}".rstrip())

    def note(self, text: str) -> None:
        if self._notes:
            console.say(self._output, text, "Note: ")

    def finished(self, record: Record) -> None:
        console.say(self._output, _finished(record))


@contextmanager
def observing(*, notes: bool = True) -> Iterator[Observer]:
    """The observer that fits stderr. notes: whether it shows notes."""
    output = console.err()
    if not output.is_terminal:
        yield Lines(output, notes)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[shown]}", markup=False),
    )
    with Progress(*columns, console=output, transient=True) as progress:
        yield Bars(progress, notes)


@contextmanager
def counted(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A counter for work of a known size; a total of 0 shows nothing."""
    if not total:
        yield lambda number: None
        return
    with observing() as observer:
        observer.stage(name, total)
        yield lambda number: observer.advance(number, {})


@contextmanager
def counting(name: str) -> Iterator[Callable[[int], None]]:
    """A counter for work whose size is not known beforehand: on a terminal only, gone when the work is done."""
    output = console.err()
    if not output.is_terminal:
        yield lambda number: None
        return
    columns = (TextColumn(name), TextColumn("{task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=output, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda number: progress.advance(task, number)


def _shown(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _finished(record: Record) -> str:
    accuracy = "no test images" if record.top1 is None else f"{record.top1:.1f} %"
    beside = "" if record.by_hand_top1 is None else f" (zero-shot {record.by_hand_top1:.1f} %)"
    return f"{record.method} seed {record.seed}: {accuracy}{beside}, {record.seconds:.1f} s"
