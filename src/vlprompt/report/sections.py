"""Tables in the papers' shapes: which columns there are, by protocol. What stands in them is computed in `grid`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    "few-shot": "Learned from the given number of images per class, tested on all classes. Zero-shot uses no images and is the same "
    "in every column.",
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


def _shots(places: Iterable[Place]) -> list[int | None]:
    return sorted({place.shots for place in places}, key=lambda one: math.inf if one is None else one)


def _datasets(places: Iterable[Place]) -> list[str]:
    return list(dict.fromkeys(place.dataset for place in places))


def _few_shot(protocol: str, places: PlacesByNumber) -> list[Section]:
    """A table per data set with a column per number of shots, the average first."""
    out = []
    for group in _groups(places, lambda place: (place.subset, place.source)):
        first = next(iter(group.values()))
        shots, datasets = _shots(group.values()), _datasets(group.values())
        index = {(place.dataset, place.shots): number for number, place in group.items()}
        layouts = []
        for names in ([datasets] if len(datasets) > 1 else []) + [[name] for name in datasets]:
            columns = [
                Column(
                    label=shots_in_words(n),
                    datasets=tuple(names),
                    places=tuple(index.get((name, n), ABSENT) for name in names),
                    shots=n,
                )
                for n in shots
            ]
            layouts.append(_layout(names, columns))
        most = {name: [n for n in shots if (name, n) in index][-1] for name in datasets}
        axes = [Column(label=name, datasets=(name,), places=(index[name, n],), shots=n) for name, n in most.items()]
        out.append(_section(protocol, first, layouts, axes))
    return out


ABSENT = -1
"""The place that nobody has."""


def _layout(names: Sequence[str], columns: Sequence[Column]) -> Layout:
    average = len(names) > 1
    title = f"{AVERAGE} of {len(names)} data sets" if average else names[0]
    return Layout(title=title, average=average, columns=tuple(columns))


def _base_to_novel(places: PlacesByNumber) -> list[Section]:
    """A table per data set with base, novel and H; the average has H of the means and the mean of H under their own names."""
    out = []
    for group in _groups(places, lambda place: (place.source, place.shots)):
        first, datasets = next(iter(group.values())), _datasets(group.values())
        index = {(place.dataset, place.subset): number for number, place in group.items()}
        layouts = [_layout(names, _halves(index, names)) for names in ([datasets] if len(datasets) > 1 else [])]
        layouts += [_layout([name], _halves(index, [name])) for name in datasets]
        axes = [dataclasses.replace(_halves(index, [name])[-1], label=name) for name in datasets]
        out.append(_section("base-to-novel", first, layouts, axes, shots=shots_in_words(first.shots)))
    return out


def _halves(index: Mapping[tuple[str, str], int], names: Sequence[str]) -> list[Column]:
    """Base, novel and H; of several data sets both kinds of H."""
    datasets = tuple(names)
    base = tuple(index.get((name, "base"), ABSENT) for name in names)
    novel = tuple(index.get((name, "novel"), ABSENT) for name in names)
    several = len(names) > 1
    columns = [
        Column(label="Base", datasets=datasets, places=base),
        Column(label="Novel", datasets=datasets, places=novel),
        Column(
            label="H of the means" if several else "H",
            kind="harmonic",
            datasets=datasets,
            places=base,
            others=novel,
        ),
    ]
    if several:
        columns.append(Column(label="mean of H", kind="mean harmonic", datasets=datasets, places=base, others=novel))
    return columns


def _targets(protocol: str, places: PlacesByNumber) -> list[Section]:
    """One table per source: the source, every target, and the average of the targets."""
    out = []
    averages = {"domain": "OOD average", "transfer": AVERAGE}
    for group in _groups(places, lambda place: (_source(protocol, place), place.shots)):
        first = next(iter(group.values()))
        source = _source(protocol, first)
        own = [number for number, place in group.items() if place.dataset == source]
        targets = [number for number in group if number not in own]
        axes = [
            Column(label=_label(group[number]), datasets=(group[number].dataset,), places=(number,))
            for number in own + targets
        ]
        columns = list(axes)
        if len(targets) > 1:
            columns.append(
                Column(
                    label=averages.get(protocol, "Average of targets"),
                    datasets=tuple(group[number].dataset for number in targets),
                    places=tuple(targets),
                )
            )
        title = f"From {source}" if source else "All data sets"
        layout = Layout(title=title, columns=tuple(columns))
        out.append(_section(protocol, first, [layout], axes, source=source, shots=shots_in_words(first.shots)))
    return out


def _source(protocol: str, place: Place) -> str:
    """A record on the source itself has an empty source."""
    return place.source or ("" if protocol == "transfer" else place.dataset)


def _label(place: Place) -> str:
    return place.dataset if place.subset == "all" else f"{place.dataset}, {place.subset}"


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
    extra = [
        *([f"{subset} classes"] if subset else []),
        *([f"from {source or first.source}"] if source or first.source else []),
        *([shots] if shots else []),
    ]
    return Section(
        protocol=protocol,
        title=TITLES.get(protocol, protocol) + (f": {', '.join(extra)}" if extra else ""),
        words=WORDS.get(protocol, ""),
        layouts=tuple(layouts),
        radar=tuple(axes),
    )
