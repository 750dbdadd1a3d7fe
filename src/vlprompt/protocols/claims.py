"""Whose work a directory holds: what decided it stands in it, and nothing else may be written there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlprompt import atomic
from vlprompt.engine.config import differences
from vlprompt.errors import DATA, UserError
from vlprompt.protocols.cells import CELL, COURSE, Cell, Grid

SHOWN = 6
"""Differences that a message names."""


def claim(cell: Cell, grid: Grid) -> None:
    """Write what decides a cell and its course beside their work, or compare it with what stands there.

    UserError: the work there was begun with something else; what, is said.
    """
    for path, facts in _of(cell, grid):
        if not check(path, facts):
            atomic.write_json(path, facts)


def check_all(cells: Iterable[Cell], grid: Grid) -> None:
    """As `claim` for many cells, writing nothing: what a plan does before anything begins."""
    if grid.out.exists() and not grid.out.is_dir():
        raise UserError(f"{grid.out} is a file; --out must be a directory.")
    checked: set[Path] = set()
    for cell in cells:
        for path, facts in _of(cell, grid):
            if path not in checked:
                check(path, facts)
                checked.add(path)


def check(path: Path, facts: Mapping[str, object]) -> bool:
    """Whether the file is there and says the same. UserError where it says something else."""
    if not path.is_file():
        return False
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise UserError(f"{path} cannot be read ({problem}). Use another --out.", exit_code=DATA) from problem
    if changed := differences(before, facts):
        more = "; ..." if len(changed) > SHOWN else ""
        raise UserError(
            f"{path.parent} was begun with other facts: {'; '.join(changed[:SHOWN])}{more}. Use another --out, or the options, "
            f"the model and the images that it was begun with."
        )
    return True


def _of(cell: Cell, grid: Grid) -> tuple[tuple[Path, Mapping[str, object]], ...]:
    course = cell.course
    return (grid.learned(course) / COURSE, course.facts), (grid.of(cell) / CELL, cell.facts)
