"""Tables in the papers' shapes: which columns there are, by protocol. What stands in them is computed in `grid`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vlprompt.report.grid import Column, Place, ReportGrid, shots_in_words

AVERAGE = "Average"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One table: its rows are the contenders, its columns these."""

    title: str
    average: bool = False
    """Whether all columns are averages over the data sets."""
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """All tables of one protocol."""

    protocol: str
    title: str
    """Its name too: no two sections have the same."""
    words: str
    """What was done, in a sentence or two."""
    layouts: tuple[Layout, ...]
    radar: tuple[Column, ...] = ()
    """One axis per data set."""

    @property
    def places(self) -> set[int]:
        return {place for one in self.layouts for column in one.columns for place in column.places + column.others}

    @property
    def asked(self) -> list[int]:
        """The place of each data set (or both halves) with the most shots, in order."""
        found = dict.fromkeys(place for column in self.radar for place in column.places + column.others)
        return [place for place in found if place != ABSENT]


TITLES = {
    "few-shot": "Few-shot classification",
    "base-to-novel": "Base-to-novel generalisation",
    "cross-dataset": "Cross-dataset transfer",
    "domain": "Domain generalisation",
    "transfer": "Transfer of pretrained prompts",
}
WORDS = {
    "few-shot": "Learned from the given number of images per class, tested on all classes. What uses no label, as zero-shot does, "
    "is the same in every column.",
    "base-to-novel": "Learned on the first half of the classes (base), tested on each half with the names of that half only. "
    "H is the harmonic mean of both.",
    "cross-dataset": "Learned on the source, tested unchanged on the other data sets with their own class names.",
    "domain": "Learned on the source, tested on the same classes drawn from elsewhere. The average is over those targets.",
    "transfer": "Started from a pretrained prompt.",
}


def make_sections(grid: ReportGrid) -> list[Section]:
    """The sections of a report, in the order of `TITLES`; other protocols are laid out as few-shot."""
    protocols = {place.protocol for place in grid.places}
    order = [name for name in TITLES if name in protocols] + sorted(protocols - set(TITLES))
    out: list[Section] = []
    for protocol in order:
        places = {number: place for number, place in enumerate(grid.places) if place.protocol == protocol}
        if protocol == "base-to-novel":
            out += _base_to_novel(places)
        elif protocol in ("cross-dataset", "domain", "transfer"):
            out += _targets(protocol, places)
        else:
            out += _few_shot(protocol, places)
    return out


PlacesByNumber = dict[int, Place]


def _groups(places: PlacesByNumber, key: Callable[[Place], object]) -> list[PlacesByNumber]:
    groups: dict[object, PlacesByNumber] = {}
    for number, place in places.items():
        groups.setdefault(key(place), {})[number] = place
    return list(groups.values())


def _datasets(places: PlacesByNumber) -> list[str]:
    return list(dict.fromkeys(place.dataset for place in places.values()))


ABSENT = -1
"""The place that nobody has."""


def _layouts(datasets: list[str], columns: Callable[[Sequence[str]], Sequence[Column]]) -> list[Layout]:
    """The average of several data sets, then each of them. columns: of a table of some data sets."""
    title = f"{AVERAGE} of {len(datasets)} data sets"
    whole = [Layout(title=title, average=True, columns=tuple(columns(datasets)))] if len(datasets) > 1 else []
    return whole + [Layout(title=name, columns=tuple(columns([name]))) for name in datasets]


def _few_shot(protocol: str, places: PlacesByNumber) -> list[Section]:
    """A table per data set with a column per number of shots, the average first."""
    out = []
    for group in _groups(places, lambda place: (place.subset, place.source)):
        datasets = _datasets(group)
        shots = sorted({place.shots for place in group.values()}, key=lambda one: math.inf if one is None else one)
        index = {(place.dataset, place.shots): number for number, place in group.items()}
        most = {name: [n for n in shots if (name, n) in index][-1] for name in datasets}
        axes = [Column(label=name, datasets=(name,), places=(index[name, n],), shots=n) for name, n in most.items()]
        layouts = _layouts(datasets, functools.partial(_by_shots, index, shots))
        out.append(_section(protocol, next(iter(group.values())), layouts, axes))
    return out


def _by_shots(
    index: Mapping[tuple[str, int | None], int], shots: Sequence[int | None], names: Sequence[str]
) -> list[Column]:
    places = {n: tuple(index.get((name, n), ABSENT) for name in names) for n in shots}
    return [Column(label=shots_in_words(n), datasets=tuple(names), places=places[n], shots=n) for n in shots]


def _base_to_novel(places: PlacesByNumber) -> list[Section]:
    """A table per data set with base, novel and H; the average has H of the means and the mean of H under their own names."""
    out = []
    for group in _groups(places, lambda place: (place.source, place.shots)):
        first, datasets = next(iter(group.values())), _datasets(group)
        index = {(place.dataset, place.subset): number for number, place in group.items()}
        layouts = _layouts(datasets, functools.partial(_halves, index))
        axes = [dataclasses.replace(_halves(index, [name])[-1], label=name) for name in datasets]
        out.append(_section("base-to-novel", first, layouts, axes, shots=shots_in_words(first.shots)))
    return out


def _halves(index: Mapping[tuple[str, str], int], names: Sequence[str]) -> list[Column]:
    """Base, novel and H; of several data sets both kinds of H."""
    datasets = tuple(names)
    base = tuple(index.get((name, "base"), ABSENT) for name in names)
    novel = tuple(index.get((name, "novel"), ABSENT) for name in names)
    h = Column(label="H", kind="harmonic", datasets=datasets, places=base, others=novel)
    both = (
        dataclasses.replace(h, label="H of the means"),
        dataclasses.replace(h, label="mean of H", kind="mean harmonic"),
    )
    return [
        Column(label="Base", datasets=datasets, places=base),
        Column(label="Novel", datasets=datasets, places=novel),
        *(both if len(names) > 1 else [h]),
    ]


def _targets(protocol: str, places: PlacesByNumber) -> list[Section]:
    """One table per source: the source, every target, and the average of the targets."""
    out = []
    averages = {"domain": "OOD average", "transfer": AVERAGE}
    for group in _groups(places, lambda place: (_source(protocol, place), place.shots)):
        first = next(iter(group.values()))
        source = _source(protocol, first)
        own = [number for number, place in group.items() if place.dataset == source]
        targets = [number for number in group if number not in own]
        axes = []
        for number in own + targets:
            place = group[number]
            label = place.dataset if place.subset == "all" else f"{place.dataset}, {place.subset}"
            axes.append(Column(label=label, datasets=(place.dataset,), places=(number,)))
        sets, label = tuple(group[number].dataset for number in targets), averages.get(protocol, "Average of targets")
        average = [Column(label=label, datasets=sets, places=tuple(targets))] if len(targets) > 1 else []
        title = f"From {source}" if source else "All data sets"
        layout = Layout(title=title, columns=(*axes, *average))
        out.append(_section(protocol, first, [layout], axes, source=source, shots=shots_in_words(first.shots)))
    return out


def _source(protocol: str, place: Place) -> str:
    """A record on the source itself has an empty source."""
    return place.source or ("" if protocol == "transfer" else place.dataset)


def _section(
    protocol: str,
    first: Place,
    layouts: Sequence[Layout],
    axes: Sequence[Column],
    *,
    source: str = "",
    shots: str = "",
) -> Section:
    subset = first.subset if protocol != "base-to-novel" and first.subset != "all" else ""
    source = source or first.source
    extra = [*filter(None, (subset and f"{subset} classes", source and f"from {source}", shots))]
    return Section(
        protocol=protocol,
        title=TITLES.get(protocol, protocol) + (f": {', '.join(extra)}" if extra else ""),
        words=WORDS.get(protocol, ""),
        layouts=tuple(layouts),
        radar=tuple(axes),
    )
