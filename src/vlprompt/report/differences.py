"""Which differences between the methods of a report are more than noise, and which method it says to take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlprompt.records import BY_HAND
from vlprompt.report.comparison import Comparison, compare_cells
from vlprompt.report.grid import Column, ReportGrid, evaluate, shots_in_words
from vlprompt.report.sections import Section
from vlprompt.report.sides import SeedRuns
from vlprompt.report.tables import Spread


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contenders in one section: what the second gains over the first."""

    section: str
    title: str
    first: int
    second: int
    wanted: int
    """Data sets of the question."""
    found: tuple[Comparison, ...]
    """Single data sets, then their average where there are several and both have been on all of them."""

    @property
    def whole(self) -> Comparison | None:
        """The one that is about all data sets of the question."""
        last = self.found[-1]
        return last if len(last.datasets) == self.wanted else None


def make_differences(grid: ReportGrid, sections: Sequence[Section], margin: float) -> tuple[list[Pair], list[str]]:
    """Overlays against their hosts, pretrained starts against own ones, everything against zero-shot; at the most shots; and notes.

    The average stands only where both have been on every data set of the section.
    """
    out: list[Pair] = []
    notes: list[str] = []
    for section in sections:
        for title, places in _questions(grid, section):
            for first, second in pairs(grid):
                found, refused = _compared(grid, first, second, places, margin)
                notes += [f"{section.title}: {problem}" for problem in refused]
                if found:
                    out.append(Pair(section.title, title, first, second, len(places), found))
    return out, list(dict.fromkeys(notes))


def _compared(
    grid: ReportGrid, first: int, second: int, places: Iterable[int], margin: float
) -> tuple[tuple[Comparison, ...], list[str]]:
    """Two contenders at the places where both have been; and why they cannot be compared at some of them."""
    cells = [
        (SeedRuns(grid.runs[first, place]), SeedRuns(grid.runs[second, place]))
        for place in places
        if (first, place) in grid.runs and (second, place) in grid.runs
    ]
    refused: list[str] = []
    return compare_cells(cells, margin, refused)[0], refused


def pairs(grid: ReportGrid) -> list[tuple[int, int]]:
    """(first, second): hosts with their overlays, own starts with pretrained ones, then zero-shot with everything."""
    found = grid.contenders
    out = [
        (h, o)
        for o, overlaid in enumerate(found)
        for h, host in enumerate(found)
        if overlaid.overlay and not host.overlay and host.name == overlaid.name.replace(f"{overlaid.overlay}+", "", 1)
    ]
    plain = {one.name: number for number, one in enumerate(found) if one.name == one.method}
    out += [
        (plain[one.method], number)
        for number, one in enumerate(found)
        if one.method in plain and any(run.record.init for run in one.runs)
    ]
    zero = [number for number, one in enumerate(found) if one.host == BY_HAND and one.runs]
    return out + [(zero[0], other) for other in range(len(found)) if zero and other != zero[0]]


def _questions(grid: ReportGrid, section: Section) -> list[tuple[str, list[int]]]:
    """The sets of places that are averaged over: base and novel apart, targets without their source."""
    places = sorted(section.asked)
    if section.protocol == "base-to-novel":
        return [
            (subset, [place for place in places if grid.places[place].subset == subset]) for subset in ("base", "novel")
        ]
    if section.protocol in ("cross-dataset", "domain"):
        own = [place for place in places if not grid.places[place].source]
        return [
            (title, some)
            for title, some in (("source", own), ("targets", [one for one in places if one not in own]))
            if some
        ]
    return [("", places)]


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
    found, refused = _compared(grid, best, row, column.places, margin)
    return bool(refused) or found[-1].estimate.verdict != "worse"


def _seconds(grid: ReportGrid, column: Column, row: int) -> float:
    """Of learning and testing, a run."""
    return statistics.fmean(run.record.seconds for place in column.places for run in grid.runs[row, place])
