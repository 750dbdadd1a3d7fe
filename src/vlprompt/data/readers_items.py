"""What the readers of the papers' data sets share: images by label, name and part, and the published rules that make parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlprompt.data.catalogue import Row
from vlprompt.data.samples import Part, Skipped
from vlprompt.errors import DATA, UserError

TRAIN_SHARE, VAL_SHARE = 0.5, 0.2
"""Of every class, where a data set has no parts of its own: published."""


class Item(NamedTuple):
    """One image as a data set's lists name it."""

    path: str
    """Relative to the data set's folder, with ``/``."""
    label: int
    name: str
    """The class name as the published code writes it."""
    part: Part


class Found(NamedTuple):
    """What a reader makes of a folder."""

    items: Sequence[Item]
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()


def divide(items: Iterable[Item]) -> list[Item]:
    """Round(n/2) of every class to train, round(n/5) to val, the rest to test: the published shares.

    Which images: in order of the SHA-256 of their paths (project's choice; the published code shuffles with the run's generator what
    the file system lists, once per machine).
    """
    out: list[Item] = []
    for members in _by_label(items).values():
        train, val = round(len(members) * TRAIN_SHARE), round(len(members) * VAL_SHARE)
        out += [item._replace(part=_part(number, train, val)) for number, item in enumerate(_mixed(members))]
    return out


def hold_out(items: Iterable[Item]) -> list[Item]:
    """Round(n/5) training images of every class become validation images, as published; which: as `divide`."""
    out: list[Item] = []
    for members in _by_label(items).values():
        val = round(len(members) * VAL_SHARE)
        out += [item._replace(part="val" if number < val else "train") for number, item in enumerate(_mixed(members))]
    return out


def _part(number: int, train: int, val: int) -> Part:
    return "train" if number < train else "val" if number < train + val else "test"


def _by_label(items: Iterable[Item]) -> dict[int, list[Item]]:
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def _mixed(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: hashlib.sha256(item.path.encode("utf-8", "surrogateescape")).hexdigest())


def ruled(row: Row) -> str:
    """The note on a data set that the rule has divided."""
    return (
        f"there is no {row.split}, so the images are divided by the published rule; which image goes where is then this project's "
        "choice, and results are not comparable image by image."
    )


def lines(path: Path) -> list[str]:
    """The lines of a list that are not empty; UserError where it cannot be read."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).", exit_code=DATA) from error
