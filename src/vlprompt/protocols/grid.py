"""Working a plan off: what is missing, in any number of processes, with second attempts, until nothing is left to wait for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from vlprompt.protocols.cells import Cell, Grid, Outcome, batches
from vlprompt.protocols.claims import check_all
from vlprompt.protocols.local import Carrier

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
        with closing(carry(batches(todo), grid)) as outcomes:
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
