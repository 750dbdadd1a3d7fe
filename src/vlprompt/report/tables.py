"""Accuracy tables from records: learned and zero-shot, mean and spread over seeds, missing runs shown as missing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table as RichTable
from rich.text import Text

from vlprompt import plain
from vlprompt.records import Record, harmonic

MISSING = "missing"
NOT_MEASURED = "-"


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over several seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for one value."""
    count: int | None
    """How many; None where no seed is involved."""

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} +- {self.deviation:.1f}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and spread of what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    deviation = statistics.stdev(measured) if len(measured) > 1 else None
    return Spread(statistics.fmean(measured), deviation, len(measured))


@dataclass(frozen=True, slots=True)
class TableRow:
    """One method on one data set with one number of shots, over its seeds."""

    method: str
    dataset: str
    shots: int | None
    model: str
    subset: str
    records: tuple[Record, ...]

    @property
    def top1(self) -> Spread | None:
        return spread(record.top1 for record in self.records)

    @property
    def zero_shot(self) -> Spread | None:
        """Of the best hand-written words where they were looked for, else of the template."""
        return spread(record.by_hand_top1 for record in self.records)

    @property
    def gain(self) -> Spread | None:
        """Learned minus zero-shot in points, seed by seed."""
        both = [(one.top1, one.by_hand_top1) for one in self.records]
        return spread(a - b for a, b in both if a is not None and b is not None)


def in_words(words: str) -> str:
    """Hand-written words for people: a template, the bare name, or the name of several sentences."""
    if words == "{}":
        return "'{}' (the bare name)"
    return repr(words) if "{}" in words else f"{words!r} (the mean of several sentences)"


def rows(records: Iterable[Record]) -> list[TableRow]:
    """One row per method, data set, shots, model and subset, in the order of their first records."""
    groups: dict[tuple[str, str, int | None, str, str], list[Record]] = {}
    for record in records:
        key = (record.method, record.dataset, record.shots, record.model, record.subset)
        groups.setdefault(key, []).append(record)
    return [TableRow(*key, tuple(group)) for key, group in groups.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in cells, to be shown in a terminal or in Markdown."""

    title: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    remark: str = ""
    least: tuple[str, ...] = ()
    """Columns that are left out first, in this order, where the terminal is too narrow."""


def accuracy(records: Sequence[Record], *, seeds: Sequence[int] = ()) -> Table:
    """Test accuracy in percent. seeds: those that were planned; one without a record is shown as missing."""
    found = rows(records)
    names = sorted({f"{row.dataset}{'' if row.subset == 'all' else f' ({row.subset} classes)'}" for row in found})
    learned = [row for row in found if any(one.num_train or one.parameters for one in row.records)]
    shots = sorted({"all images" if row.shots is None else f"{row.shots} shots" for row in learned})
    return Table(
        title="Test accuracy in percent" + (f": {', '.join([*names, *shots])}" if found else ""),
        header=("method", "learned numbers", "seeds", "zero-shot", "learned", "gain", "macro-F1", "seconds"),
        cells=tuple(_cells(row, seeds) for row in found),
        remark=_remark(found) if found else "",
        least=LEAST,
    )


def halves(records: Sequence[Record]) -> Table:
    """Base-to-novel on one data set in percent: a row per method; H is the harmonic mean of both halves, seed by seed.

    Titles of columns are short, because all of them should fit a terminal."""
    found: dict[str, dict[str, dict[int, Record]]] = {}
    for record in records:
        found.setdefault(record.method, {}).setdefault(record.subset, {})[record.seed] = record
    cells = []
    for method, parts in found.items():
        base, novel = parts.get("base", {}), parts.get("novel", {})
        both = [(base[seed].top1, novel[seed].top1) for seed in sorted(base.keys() & novel.keys())]
        seconds = spread(one.seconds for one in base.values())
        cells.append(
            (
                method,
                f"{next(iter((*base.values(), *novel.values()))).parameters:,}",
                ", ".join(map(str, sorted(base))),
                _text(spread(one.top1 for one in base.values())),
                _text(spread(one.top1 for one in novel.values())),
                _text(spread(None if a is None or b is None else harmonic(a, b) for a, b in both)),
                NOT_MEASURED if seconds is None else f"{seconds.mean:.1f}",
            )
        )
    first = records[0]
    shots = next((f"{one.shots} pictures" for one in records if one.shots), "all pictures")
    tested = {one.subset: f"{one.num_test} of {one.num_classes}" for one in records}
    return Table(
        title=f"Test accuracy in percent: {first.dataset}, learned from {shots} of each class of the first half",
        header=("method", "learned numbers", "seeds", "seen classes", "new classes", "H", "seconds"),
        cells=tuple(cells),
        remark=f"Test images: {tested.get('base')} classes of which it saw pictures, {tested.get('novel')} new ones. "
        "Mean +- standard deviation over seeds.",
        least=(*LEAST, "H"),
    )


LEARNED = " Learned numbers: how many the method learns; the model stays as it is."
LEAST = ("seconds", "macro-F1", "learned numbers", "seeds")


def _cells(row: TableRow, seeds: Sequence[int]) -> tuple[str, ...]:
    done = sorted(record.seed for record in row.records)
    lacking = sorted(set(seeds) - set(done))
    gain = row.gain
    return (
        row.method,
        f"{row.records[0].parameters:,}",
        ", ".join(map(str, done)) + (f" ({', '.join(map(str, lacking))} {MISSING})" if lacking else ""),
        _text(row.zero_shot and Spread(row.zero_shot.mean, None, 1)),
        _text(row.top1),
        NOT_MEASURED if gain is None or row.records[0].by_hand else f"{gain.mean:+.1f}",
        _text(spread(record.macro_f1 for record in row.records)),
        f"{statistics.fmean(record.seconds for record in row.records):.1f}",
    )


def _text(value: Spread | None) -> str:
    return NOT_MEASURED if value is None else str(value)


def _remark(found: Sequence[TableRow]) -> str:
    first = found[0].records[0]
    several = any(len(row.records) > 1 for row in found)
    tested = f"{first.num_test} test images"
    if first.folds:
        tested = f"{first.num_test:,} images asked in {first.folds} folds"
    elif first.test_of:
        tested = f"{first.num_test:,} of {first.test_of:,} test images, drawn evenly"
    words = f"{first.num_classes} classes, {tested}; zero-shot: hand-written words alone, "
    words += f"{in_words(first.hand_written)}, the best of several." if first.hand_written else f"{first.template!r}."
    words += LEARNED if first.parameters else ""
    return words + (" Mean +- standard deviation over seeds." if several else "")


def fitting(table: Table, width: int) -> Table:
    """The table without as many of its least needed columns as make it fit; what is left out is said below it."""
    kept = list(range(len(table.header)))
    gone = []
    for name in table.least:
        needed = sum(max(len(row[place]) for row in (table.header, *table.cells)) + 3 for place in kept) + 1
        if needed <= width:
            break
        if name in table.header:
            kept.remove(table.header.index(name))
            gone.append(name)
    if not gone:
        return table
    said = f"Left out for width: {', '.join(gone)}."
    if "learned numbers" in gone:
        table = replace(table, remark=table.remark.replace(LEARNED, ""))
    return replace(
        table,
        header=tuple(table.header[place] for place in kept),
        cells=tuple(tuple(row[place] for place in kept) for row in table.cells),
        remark=f"{table.remark} {said}".strip(),
    )


def as_rich(table: Table, width: int | None = None) -> RichTable:
    """For a terminal of so many columns (None: any): names to the left, numbers to the right."""
    table = table if width is None else fitting(table, width)
    out = RichTable(title=Text(table.title), caption=Text(table.remark) if table.remark else None, title_justify="left")
    out.caption_justify = "left"
    for place, name in enumerate(table.header):
        out.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in table.cells:
        out.add_row(*map(Text, row))
    return out


def as_markdown(table: Table) -> str:
    """As a Markdown table with its title and remark as paragraphs."""
    lines = [f"{table.title}.", "", *plain.markdown_rows(table.header, table.cells, numbers=True)]
    return "\n".join(lines + (["", table.remark] if table.remark else [])) + "\n"
