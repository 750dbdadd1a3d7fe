"""Which method a report says to take: the best of each question, what cannot be told from it, and what each costs."""

from __future__ import annotations

import statistics

from vlprompt.report.comparison import compare_cells
from vlprompt.report.grid import Column, ReportGrid, evaluate, shots_in_words
from vlprompt.report.sections import Section
from vlprompt.report.sides import SeedRuns
from vlprompt.report.tables import Spread


def advice(grid: ReportGrid, section: Section, margin: float) -> list[str]:
    """A sentence or two for each column of the averages (of the single data set, where there is one), in words.

    The best mean wins. Methods whose paired interval against it takes in zero are named with it, and of all these the one with the
    fewest seconds (project's choice). Methods that see test images before they answer are left out. Empty with fewer than two methods.
    """
    columns = [one for one in section.layouts[0].columns if one.kind == "mean"]
    if section.protocol not in ("few-shot", "base-to-novel"):
        columns = columns[-1:]  # the average, never the source alone
    out = []
    for column in columns:
        means = {
            row: value.mean
            for row, contender in enumerate(grid.contenders)
            if contender.runs
            and all((row, place) in grid.runs for place in column.places)
            and all(run.record.setting == "inductive" for run in contender.runs)
            and isinstance(value := evaluate(grid, row, column), Spread)
        }
        if len(means) > 1:
            out.append(_said(grid, section, column, means, margin))
    return out


def _said(grid: ReportGrid, section: Section, column: Column, means: dict[int, float], margin: float) -> str:
    best = max(means, key=means.__getitem__)
    near = [row for row in means if row != best and _tied(grid, column, best, row, margin)]
    seconds = {row: _seconds(grid, column, row) for row in (best, *near)}
    cheapest = min(seconds, key=seconds.__getitem__)

    def named(row: int) -> str:
        return f"{grid.contenders[row].name} ({means[row]:.1f} %)"

    images = shots_in_words(column.shots).replace("shot", "image")
    where = f"With {images} of a class" if section.protocol == "few-shot" else column.label
    if not near:
        return f"{where}: take {named(best)}. It took {seconds[best]:.1f} s a run; every other method is worse."
    others = ", ".join(named(row) for row in sorted(near, key=means.__getitem__, reverse=True))
    cost = f"The cheapest of these is {grid.contenders[cheapest].name}: {seconds[cheapest]:.1f} s a run"
    against = "" if cheapest == best else f", against {seconds[best]:.1f} s"
    return f"{where}: {named(best)} is best, but it cannot be told from {others}. {cost}{against}."


def _tied(grid: ReportGrid, column: Column, best: int, row: int, margin: float) -> bool:
    """Whether the two cannot be told apart over all data sets of the column, or are the same within the margin."""
    cells = [(SeedRuns(grid.runs[best, place]), SeedRuns(grid.runs[row, place])) for place in column.places]
    refused: list[str] = []  # for other test images, or no seed in common: nothing can be told
    found, _ = compare_cells(cells, margin, refused)
    return bool(refused) or found[-1].estimate.verdict != "worse"


def _seconds(grid: ReportGrid, column: Column, row: int) -> float:
    """Of learning and testing, a run."""
    return statistics.fmean(run.record.seconds for place in column.places for run in grid.runs[row, place])
