"""Records as cells: who reached what where, seed by seed, and what a column of cells comes to."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlprompt.records import BY_HAND, harmonic
from vlprompt.report.contenders import Contender
from vlprompt.report.sides import Run
from vlprompt.report.tables import Spread

DIGITS = 6
"""Decimals that are kept, so the page computes with the same numbers."""
ANY = -1
"""The seed of what depends on none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of a record that tables can show."""

    name: str
    title: str
    higher: bool = True
    unit: str = "%"


METRICS = (
    Metric(name="top1", title="Top-1 accuracy"),
    Metric(name="top5", title="Top-5 accuracy"),
    Metric(name="macro_f1", title="Macro F1"),
    Metric(name="balanced_accuracy", title="Balanced accuracy"),
    Metric(name="ece", title="Calibration error", higher=False),
)
PRECISION = Metric(name="mean_ap", title="Mean average precision")
"""Of images with several labels; shown where a record has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something was measured; all methods meet there."""

    protocol: str
    source: str
    dataset: str
    subset: str
    shots: int | None


def shots_in_words(shots: int | None) -> str:
    """`16 shots`, `all images`."""
    if shots is None:
        return "all images"
    return f"{shots} shot{'' if shots == 1 else 's'}"


Seeds = dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportGrid:
    """All cells of a report."""

    contenders: tuple[Contender, ...]
    places: tuple[Place, ...]
    runs: Mapping[tuple[int, int], tuple[Run, ...]]
    """(contender, place) -> its runs by seed."""
    values: Mapping[tuple[int, int, str], Seeds]
    """(contender, place, metric) -> seed -> value; absent where nothing was measured."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What tables can show."""
        several = any(name == PRECISION.name for _, _, name in self.values)
        return (*METRICS, PRECISION) if several else METRICS


def place_of(run: Run) -> Place:
    """Where a run was tested; a source that is the data set itself is none."""
    one = run.record
    return Place(
        protocol=one.protocol,
        source="" if one.source == one.dataset else one.source,
        dataset=one.dataset,
        subset=one.subset,
        shots=one.shots,
    )


def make_grid(found: Sequence[Contender]) -> ReportGrid:
    """Sorts the runs of all contenders into cells. What depends on no seed counts at every place of its data set and classes, and what
    learns from all images without labels at every number of labelled ones. A method that started from a pretrained prompt is compared
    with the same method from its own start, as in few-shot."""
    places = _places(found)
    started = {run.record.method for one in found for run in one.runs if run.record.init}
    runs: dict[tuple[int, int], tuple[Run, ...]] = {}
    values: dict[tuple[int, int, str], Seeds] = {}
    for c, contender in enumerate(found):
        own: dict[object, list[Run]] = {}
        for run in contender.runs:
            own.setdefault(_key(contender, place_of(run)), []).append(run)
        tried = {run.record.protocol for run in contender.runs}
        for p, place in enumerate(places):
            elsewhere = contender.method != BY_HAND and place.protocol not in tried  # its row would be one of gaps
            here = [] if elsewhere else own.get(_key(contender, place), [])
            if not here and contender.method in started and place.protocol == "transfer" and not place.source:
                here = own.get(dataclasses.replace(place, protocol="few-shot"), [])
            if here:
                here = here[:1] if contender.seedless else sorted(here, key=lambda run: run.record.seed)
                runs[c, p] = tuple(here)
            for metric in (*METRICS, PRECISION):
                if here:
                    seeds = _values(here, metric.name, fixed=contender.seedless)
                else:
                    seeds = {} if contender.runs or metric.name != "top1" else _template(found, place)
                if seeds:
                    values[c, p, metric.name] = seeds
    return ReportGrid(contenders=tuple(found), places=tuple(places), runs=runs, values=values)


def _key(contender: Contender, place: Place) -> object:
    """All that a contender's answers depend on."""
    if contender.seedless:
        return place.dataset, place.subset
    return dataclasses.replace(place, shots=None) if contender.countless else place


def _places(found: Sequence[Contender]) -> list[Place]:
    """Those of methods that learn from images with labels; of the others only where nobody has on that data set and those classes."""
    anywhere = [one for one in found if one.seedless or one.countless]
    learned = {place_of(run) for one in found if one not in anywhere for run in one.runs}
    covered = {(place.protocol, place.dataset, place.subset) for place in learned}
    shots: dict[tuple[str, str], set[tuple[str, int | None]]] = {}
    for place in learned:
        shots.setdefault((place.protocol, place.subset), set()).add((place.source, place.shots))
    out = set(learned)
    for run in (run for one in anywhere for run in one.runs):
        own = place_of(run)
        if (own.protocol, own.dataset, own.subset) in covered:
            continue
        near = shots.get((own.protocol, own.subset), {(own.source, own.shots)})
        for source, number in {one for one in near if one[0]} or near:
            out.add(Place(protocol=own.protocol, source=source, dataset=own.dataset, subset=own.subset, shots=number))
    return sorted(out, key=_order)


def _order(place: Place) -> tuple[object, ...]:
    shots = math.inf if place.shots is None else place.shots
    return (place.protocol, place.source, _natural(place.dataset), place.dataset, place.subset, shots)


def _natural(name: str) -> list[tuple[int, str]]:
    """For an order in which 2 comes before 10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(len(part.lstrip("0")), part) if part.isdecimal() else (0, part) for part in parts]


def _values(runs: Iterable[Run], metric: str, *, fixed: bool) -> Seeds:
    out = {}
    for run in runs:
        value = getattr(run.record, metric)
        if metric == "top5" and value is None and run.record.top1 is not None and run.record.num_classes <= 5:
            value = 100.0  # by definition; records leave it out, because it says nothing
        if value is not None:
            out[ANY if fixed else run.record.seed] = round(value, DIGITS)
    return out


def _template(found: Sequence[Contender], place: Place) -> Seeds:
    """The template's accuracy that the records of other methods hold, if they agree on it."""
    seen = {
        round(run.record.zero_shot_top1, DIGITS)
        for one in found
        for run in one.runs
        if run.record.zero_shot_top1 is not None and place_of(run) == place
    }
    return {ANY: seen.pop()} if len(seen) == 1 else {}


Averaging = Literal["mean", "harmonic", "mean harmonic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: the mean over places; or the harmonic mean H of base and novel, taken of the means over
    data sets, or for each data set and then averaged."""

    label: str
    kind: Averaging = "mean"
    datasets: tuple[str, ...]
    places: tuple[int, ...]
    """One for each data set."""
    others: tuple[int, ...] = ()
    """The novel halves that belong to `places`, for both kinds of H."""
    shots: int | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Not all that the column needs is there: `have` of `want` places. Nothing is averaged over."""

    have: int
    want: int


def evaluate(grid: ReportGrid, contender: int, column: Column, metric: str = "top1") -> Spread | Missing:
    """A cell of a table. The mean is that of the places' means over seeds; the spread is over the seeds that all places of the column
    have, of the column's own value."""
    wanted = (*column.places, *column.others)
    cells = [grid.values.get((contender, place, metric)) for place in wanted]
    there = [one for one in cells if one]
    if len(there) < len(wanted):
        return Missing(len(there), len(wanted))
    means = [statistics.fmean(one.values()) for one in there]
    learned = [set(one) for one in there if ANY not in one]
    common = sorted(set.intersection(*learned)) if learned else []
    by_seed = [_combine(column.kind, [one.get(seed, one.get(ANY, 0.0)) for one in there]) for seed in common]
    deviation = statistics.stdev(by_seed) if len(by_seed) > 1 else None
    return Spread(_combine(column.kind, means), deviation, len(common) if learned else None)


def _combine(kind: Averaging, values: Sequence[float]) -> float:
    if kind == "mean":
        return statistics.fmean(values)
    half = len(values) // 2
    base, novel = values[:half], values[half:]
    if kind == "harmonic":
        return harmonic(statistics.fmean(base), statistics.fmean(novel))
    return statistics.fmean(itertools.starmap(harmonic, zip(base, novel, strict=True)))


def number(value: float) -> str:
    """One decimal, halves up, as on the page."""
    return f"{math.floor(value * 10 + 0.5) / 10:.1f}"
