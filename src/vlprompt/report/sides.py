"""The two sides of a comparison: finished runs, sorted into cells that can be set against each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprompt import records
from vlprompt.errors import UserError, data_error, unknown
from vlprompt.records import Predictions, Record

FIELDS = {
    "protocol": "protocol",
    "dataset": "data set",
    "subset": "classes",
    "source": "source",
    "shots": "shots",
    "model": "model",
    "setting": "setting",
}
"""What must agree, and its name in messages."""
Key = tuple[object, ...]
ROUNDED = 0.01
"""Points by which a stored accuracy may differ from the one counted again."""


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, its record, and its predictions, read when they are asked for."""

    directory: Path
    record: Record

    @cached_property
    def predictions(self) -> Predictions:
        """UserError where the run kept none."""
        found = records.read_predictions(self.directory, self.record)
        if found is None:
            raise data_error(
                f"{self.directory} has no {records.PREDICTIONS}, so it cannot be compared image by image. Run it again."
            )
        return found

    def require_fit(self) -> None:
        """UserError where the predictions are damaged, or give another accuracy than the record."""
        found, said = self.predictions, self.record.top1
        own = 100 * float((found.predicted == found.label).mean()) if len(found.label) else None
        if (said is None) != (own is None) or abs((said or 0.0) - (own or 0.0)) > ROUNDED:
            raise data_error(
                f"{self.directory}: its record says {said} % top-1, its predictions give {own}; one of them was changed."
            )

    @cached_property
    def sorted_images(self) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.bool_]]:
        """Image hashes, labels and whether the answer was right, in the order of the hashes; each (N,)."""
        found = self.predictions
        order = np.argsort(found.id_hash, kind="stable")
        right = found.predicted == found.label
        return found.id_hash[order], found.label[order], right[order]


def seedless(record: Record) -> bool:
    """Whether nothing was learned from training images, so neither seed nor shots matter."""
    return record.epochs == 0 and (record.parameters == 0 or (record.setting == "test-time" and record.shots == 0))


def name_of(record: Record) -> str:
    """The method, and what it started from."""
    return record.method + (f" (from {record.init[:8]})" if record.init else "")


def read_side(root: Path, method: str | None = None) -> list[Run]:
    """Every finished run at or below a directory, of one method if it is named.

    UserError where there is none, or where several methods are there and none is named.
    """
    runs = [Run(directory, record) for directory, record in records.find(root)]
    if not runs:
        raise data_error(f"{root} has no finished run ({records.RESULT}) in it.")
    methods = sorted({run.record.method for run in runs})
    if method is None and len(methods) > 1:
        raise UserError(
            f"{root} has runs of {len(methods)} methods: {', '.join(methods)}. Name a directory of one of them, or one for each "
            f"side: --methods {methods[0]},{methods[1]}."
        )
    if method is not None and method not in methods:
        raise unknown(f"method in {root}", method, methods)
    return [run for run in runs if method in (None, run.record.method)]


@dataclass(frozen=True, slots=True)
class SeedRuns:
    """One side's runs over seeds, alike in everything else."""

    runs: tuple[Run, ...]

    @property
    def record(self) -> Record:
        """The first seed's."""
        return self.runs[0].record

    @property
    def fixed(self) -> bool:
        return seedless(self.record)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.record.seed for run in self.runs)


def cells(runs: Iterable[Run], fields: Sequence[str]) -> dict[Key, SeedRuns]:
    """Runs by the values of `fields`, in the order of seeds. UserError where a seed is there twice."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(getattr(run.record, field) for field in fields), []).append(run)
    out = {}
    for key, group in groups.items():
        group.sort(key=lambda run: run.record.seed)
        for one, other in pairwise(group):
            if one.record.seed == other.record.seed:
                raise data_error(
                    f"{one.directory} and {other.directory} are both seed {one.record.seed} of {name_of(one.record)} on "
                    f"{one.record.dataset}. Name a directory that holds one of them."
                )
        out[key] = SeedRuns(tuple(group))
    return out


def paired(
    left: dict[Key, SeedRuns], right: dict[Key, SeedRuns], fields: Sequence[str]
) -> tuple[list[tuple[SeedRuns, SeedRuns]], list[str]]:
    """The cells that both sides have, and a note for each that only one has. What depends on no seed goes with any shots.

    UserError with what differs where they have none in common.
    """
    pairs = []
    for key, cell in left.items():
        for other_key, other in right.items():
            loose = cell.fixed or other.fixed
            if all(a == b or (loose and field == "shots") for a, b, field in zip(key, other_key, fields, strict=True)):
                pairs.append((key, other_key))
    if not pairs:
        raise data_error("not comparable: " + _reason(list(left), list(right), fields))
    ours, theirs = map(set, zip(*pairs, strict=True))
    notes = [f"only in the first: {_words(key, fields)}" for key in left if key not in ours]
    notes += [f"only in the second: {_words(key, fields)}" for key in right if key not in theirs]
    return [(left[one], right[other]) for one, other in pairs], notes


def _reason(left: list[Key], right: list[Key], fields: Sequence[str]) -> str:
    """What differs between the two nearest cells."""
    nearest = min(((a, b) for a in left for b in right), key=lambda pair: sum(x != y for x, y in zip(*pair)))
    wrong = [
        f"{FIELDS[field]} {_value(field, a)} against {_value(field, b)}"
        for field, a, b in zip(fields, *nearest, strict=True)
        if a != b
    ]
    return f"{'; '.join(wrong)}. Compare runs that agree in this, or say --although NAME if it is meant to differ."


def _words(key: Key, fields: Sequence[str]) -> str:
    shown = ("protocol", "dataset", "subset", "source", "shots")
    values = {field: value for field, value in zip(fields, key, strict=True) if field in shown}
    return ", ".join(f"{FIELDS[field]} {_value(field, value)}" for field, value in values.items() if value != "")


def _value(field: str, value: object) -> str:
    if field == "shots":
        return "all" if value is None else str(value)
    return repr(value) if field == "source" else str(value)
