"""Which differences between the methods of a report are more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlprompt.records import BY_HAND
from vlprompt.report.comparison import Comparison, compare_cells
from vlprompt.report.grid import ReportGrid
from vlprompt.report.sections import Section
from vlprompt.report.sides import SeedRuns


@dataclass(frozen=True, slots=True, kw_only=True)
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
                cells = [
                    (SeedRuns(grid.runs[first, place]), SeedRuns(grid.runs[second, place]))
                    for place in places
                    if (first, place) in grid.runs and (second, place) in grid.runs
                ]
                refused: list[str] = []
                found, _ = compare_cells(cells, margin, refused)
                notes += [f"{section.title}: {problem}" for problem in refused]
                if found:
                    out.append(
                        Pair(
                            section=section.title,
                            title=title,
                            first=first,
                            second=second,
                            wanted=len(places),
                            found=found,
                        )
                    )
    return out, list(dict.fromkeys(notes))


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
