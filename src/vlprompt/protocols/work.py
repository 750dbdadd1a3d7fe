"""Doing cells: learn the prompt if it is not there, test it, keep the reason if that fails.

`run_cells` is the whole interface to whatever carries the work out: plain values in, plain values out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vlprompt import records
from vlprompt.engine.checkpoint import locked_if_free
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.errors import UserError
from vlprompt.protocols.attempts import GivenUp, attempt
from vlprompt.protocols.cells import Cell, Grid, Outcome
from vlprompt.protocols.claims import claim
from vlprompt.protocols.desk import Desk
from vlprompt.protocols.exam import examine_cell
from vlprompt.protocols.learn import learn, learned_already
from vlprompt.records import Record

UNEXPECTED = 1


def run_cells(
    cells: Sequence[Cell], grid: Grid, desk: Desk | None = None, observer: Observer = SILENT
) -> Iterator[Outcome]:
    """Do the cells of one course, one after the other, each as `run_cell` does it. Where the prompt cannot be learned, none of
    them can be done, and learning is not tried again for each."""
    desk = desk or Desk(grid.means)
    for number, cell in enumerate(cells):
        outcome = run_cell(cell, grid, desk, observer)
        yield outcome
        if outcome.state != "done" and not learned_already(grid.learned(cell.course)):
            yield from (replace(outcome, place=other.place) for other in cells[number + 1 :])
            return


def run_cell(cell: Cell, grid: Grid, desk: Desk | None = None, observer: Observer = SILENT) -> Outcome:
    """Do one cell, or read it back if it is finished. Safe beside other processes: one prompt is one process's at a time.

    Errors become an outcome; KeyboardInterrupt leaves work that the next call goes on with.
    """
    learned_at, directory = grid.learned(cell.course), grid.of(cell)
    try:
        if grid.finished(cell):
            return _read_back(cell, grid)
        with locked_if_free(learned_at) as ours:
            if not ours:
                return Outcome(place=cell.place, state="busy")
            if grid.finished(cell):
                return _read_back(cell, grid)
            claim(cell, grid)
            desk = desk or Desk(grid.means)
            if not learned_already(learned_at):
                with attempt(learned_at, grid.attempts):
                    learn(cell.course, learned_at, desk, observer)
            with attempt(directory, grid.attempts):
                return _done(cell, examine_cell(cell, learned_at, directory, desk))
    except GivenUp as reason:
        return Outcome(place=cell.place, state="given up", reason=str(reason), exit_code=UNEXPECTED)
    except Exception as error:
        return failure(cell, error)


def failure(cell: Cell, error: BaseException) -> Outcome:
    """The outcome of an error. What the user has to mend does not pass by itself."""
    mine = isinstance(error, UserError)
    return Outcome(
        place=cell.place,
        state="failed",
        reason=str(error) if mine else f"{type(error).__name__}: {error}",
        exit_code=error.exit_code if isinstance(error, UserError) else UNEXPECTED,
        again=not mine,
    )


def _read_back(cell: Cell, grid: Grid) -> Outcome:
    claim(cell, grid)
    return _done(cell, records.read(grid.of(cell)))


def _done(cell: Cell, record: Record) -> Outcome:
    return Outcome(
        place=cell.place,
        state="done",
        top1=record.top1,
        zero_shot_top1=record.zero_shot_top1,
        seconds=record.seconds,
    )
