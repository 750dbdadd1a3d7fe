"""Carrying batches of cells out on this machine: in this process, or in several new ones.

What another way of carrying them out (a cluster) has to offer is `Carrier`: batches in, outcomes out as they come.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vlprompt.bench.cells import Cell, Grid, Outcome, batches
from vlprompt.bench.work import check_all, run_cells
from vlprompt.bench.workspace import Desk
from vlprompt.engine.observer import SILENT, Observer

CellBatch = tuple[Cell, ...]
Outcomes = Generator[Outcome, None, None]
Carrier = Callable[[Sequence[CellBatch], Grid], Outcomes]
"""Does batches in any order, those of one batch one after the other; an outcome for each cell."""
SECONDS_TO_STOP = 30.0
"""What a process gets to end after Ctrl-C, before it is terminated."""


def carrier(jobs: int, observer: Observer = SILENT, desk: Desk | None = None) -> Carrier:
    """One process: this one, which shows its progress to `observer` and continues with what is on `desk`. Several: each takes the
    next batch when it is free."""
    if jobs > 1:
        return lambda batches, grid: in_processes(batches, grid, jobs)
    return lambda batches, grid: in_this_process(batches, grid, observer, desk or Desk(grid.means))


def in_this_process(batches: Sequence[CellBatch], grid: Grid, observer: Observer, desk: Desk) -> Outcomes:
    for batch in batches:
        yield from run_cells(batch, grid, desk, observer)


@dataclass(slots=True)
class _Worker:
    """A process, our end of its pipe, and the cells of its batch that have no outcome yet."""

    process: Any
    pipe: Connection
    left: deque[Cell] = field(default_factory=deque)


def in_processes(batches: Sequence[CellBatch], grid: Grid, jobs: int) -> Outcomes:
    """Batches in up to `jobs` processes. One that dies takes its cell with it, and a new one continues with the rest."""
    todo = deque(batches)
    workers = [_start(grid) for _ in range(min(jobs, len(todo)))]
    try:
        for worker in workers:
            _give(worker, todo)
        while busy := [worker for worker in workers if worker.left]:
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                outcome = _hear(worker)
                if outcome is None:
                    yield _died(worker)
                    if worker.left:
                        todo.appendleft(tuple(worker.left))
                    workers.remove(worker)
                    if not todo:
                        continue
                    worker = _start(grid)
                    workers.append(worker)
                else:
                    worker.left.popleft()
                    yield outcome
                if not worker.left:
                    _give(worker, todo)
    finally:
        _stop(workers)


def _start(grid: Grid) -> _Worker:
    return _Worker(*started(_serve, grid))


def started(target: Callable[..., None], *given: object) -> tuple[Any, Connection]:
    """A new process, and our end of the pipe to it; `target` is called there with its end and what is given."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *given), daemon=True)
    with ignoring_interrupts():  # until it has its own handler: libraries take seconds to load
        process.start()
    theirs.close()
    return process, ours


def how_ended(process: Any) -> str:
    """Of a process that has ended: by which signal, or with which exit code."""
    code = process.exitcode
    return (
        f"was ended by signal {signal.Signals(-code).name}" if code and code < 0 else f"was ended with exit code {code}"
    )


def _give(worker: _Worker, todo: deque[CellBatch]) -> None:
    if todo:
        batch = todo.popleft()
        worker.left.extend(batch)
        with contextlib.suppress(BrokenPipeError):  # found out when its answer is waited for
            worker.pipe.send(batch)


def _hear(worker: _Worker) -> Outcome | None:
    """What a process says; None where it is gone."""
    try:
        outcome: Outcome = worker.pipe.recv()
        return outcome
    except (EOFError, ConnectionResetError):
        return None


def _died(worker: _Worker) -> Outcome:
    """The outcome of the cell that a process was at when it died."""
    worker.process.join()
    cell = worker.left.popleft()
    worker.pipe.close()
    reason = f"its process {how_ended(worker.process)}"
    return Outcome(place=cell.place, state="failed", reason=reason, exit_code=1, again=True)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C. Only the main thread may say so; others start processes that do not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(workers: Sequence[_Worker]) -> None:
    """End all processes: idle ones by closing their pipe, working ones as Ctrl-C does, those that will not by force."""
    for worker in workers:
        worker.pipe.close()
    until = time.monotonic() + SECONDS_TO_STOP
    while (alive := [one for one in workers if one.process.is_alive()]) and time.monotonic() < until:
        for worker in alive:
            if worker.left and os.name == "posix":  # again and again, since one that is still starting does not listen
                os.kill(worker.process.pid, signal.SIGINT)
            elif worker.left:  # Windows has no such signal for a process: ended work goes on from its checkpoint
                worker.process.terminate()
            worker.process.join(0.2)
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join()


def _serve(pipe: Connection, grid: Grid) -> None:
    """A process: batches come in, an outcome per cell goes out, until the pipe is closed or Ctrl-C is pressed."""
    signal.signal(signal.SIGINT, interrupt_once)
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        desk = Desk(grid.means)
        while True:
            for outcome in run_cells(pipe.recv(), grid, desk):
                pipe.send(outcome)


def interrupt_once(*_: object) -> None:
    """Stop once: the terminal tells every process, and so does the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


SECONDS_BETWEEN_LOOKS = 2.0
"""While all that is left is in other processes' hands."""


def work_off(
    cells: Sequence[Cell], grid: Grid, carry: Carrier, hear: Callable[[Cell, Outcome], None] = lambda *_: None
) -> dict[Path, Outcome]:
    """Do what is not finished; the outcome of every such cell, by its place. `hear` is told of each as it comes.

    A cell that crashed is begun again until it has failed `grid.attempts` times; what the user has to mend is not. Cells that another
    process works on are waited for. UserError, before anything is done: the directory holds other work.
    """
    check_all(cells, grid)
    todo = [cell for cell in cells if not grid.finished(cell)]
    by_place = {cell.place: cell for cell in cells}
    found: dict[Path, Outcome] = {}
    tries: Counter[Path] = Counter()
    while todo:
        again: list[Cell] = []
        waiting = True
        with closing(carry(batches(todo, grid.means.replicas), grid)) as outcomes:
            for outcome in outcomes:
                cell = by_place[outcome.place]
                if outcome.state == "busy":
                    again.append(cell)
                    continue
                waiting = False
                found[outcome.place] = outcome
                tries[outcome.place] += 1
                hear(cell, outcome)
                if outcome.state == "failed" and outcome.again and tries[outcome.place] < grid.attempts:
                    again.append(cell)
        if again and waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        todo = again
    return found
