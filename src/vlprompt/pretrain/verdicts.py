"""The study's paired differences: each cell against zero-shot and against `rpp`, image by image and seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlprompt.statistics import Comparison, compare, read_side

CENTRE, ZERO_SHOT = "rpp", "zero-shot"
ALTHOUGH = ("protocol", "source")
"""Zero-shot has learned from nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One line of the table."""

    where: str
    """`held-out` or `transfer`."""
    first: str
    second: str
    datasets: int
    gain: float
    """Points of the second over the first, the mean of the data sets."""
    low: float
    high: float
    verdict: str
    seeds: int


def differences(places: Sequence[Path], cells: Sequence[str]) -> list[Difference]:
    """places: directories of records, `PLACE/CELL/DATA/seedN`, each under its own name. cells: those with all seeds."""
    pairs = [(ZERO_SHOT, cell) for cell in cells] + [(CENTRE, cell) for cell in cells if cell != CENTRE]
    return [
        _difference(place, first, second)
        for place in places
        for first, second in pairs
        if (place / first).is_dir() and (place / second).is_dir()
    ]


def _difference(place: Path, first: str, second: str) -> Difference:
    found = compare(read_side(place / first), read_side(place / second), although=ALTHOUGH).comparisons
    whole: Comparison = max(found, key=lambda one: len(one.datasets))
    said = whole.estimate
    return Difference(
        where=place.name,
        first=first,
        second=second,
        datasets=len(whole.datasets),
        gain=said.difference,
        low=said.low,
        high=said.high,
        verdict=said.verdict,
        seeds=len(whole.seeds),
    )


def render(found: Sequence[Difference]) -> str:
    """As a Markdown table; nothing where nothing was compared."""
    if not found:
        return ""
    lines = [
        "## Paired differences\n",
        "| second against first | images | data sets | seeds | gain, points | 95 % interval | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {one.second} against {one.first} | {one.where} | {one.datasets} | {one.seeds} | {one.gain:+.1f} "
        f"| {one.low:+.1f} to {one.high:+.1f} | {one.verdict} |"
        for one in found
    ]
    return "\n".join(lines) + "\n"
