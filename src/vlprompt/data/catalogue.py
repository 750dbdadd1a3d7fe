"""The papers' data sets as one table: where each lies on disk, how it is read, how large it is published to be.

The layout is the field's: KaiyangZhou/CoOp ``DATASETS.md`` and ``datasets/*.py``. A row is pure data; `readers` reads it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlprompt.errors import DATA, UserError

ROOT_VARIABLE = "VLPROMPT_DATA"
"""The environment variable that names the folder in which all of the papers' data sets lie."""
UNKNOWN = "unknown"
Reader = Literal[
    "folders", "pets", "cars", "flowers", "aircraft", "sun", "ucf", "imagenet", "numbered", "wordnet", "21k"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One place that a file can be fetched from, and who says so."""

    url: str
    source: str
    """Where the address stands in public."""
    checksum: str = UNKNOWN
    """``md5:...`` or ``sha256:...`` of the file."""
    checksum_source: str = UNKNOWN
    size: int | None = None
    """Bytes, where published."""
    name: str = ""
    """Of the file, where the address does not end with it."""

    @property
    def file(self) -> str:
        """The name that the file is kept under while it is fetched."""
        return self.name or self.url.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file of a data set, and its mirrors in the order in which they are tried."""

    gives: tuple[str, ...]
    """What stands in the data set's folder afterwards; it is not fetched again while all of it is there."""
    mirrors: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One data set of the papers."""

    name: str
    """What ``--data`` takes."""
    title: str
    """As the papers write it."""
    directory: str
    """Below the data root."""
    reader: Reader
    """How it is read where there is no split file."""
    images: tuple[str, ...]
    """Folders of images, relative to `directory`."""
    prefix: str = ""
    """What the paths in the split file are relative to."""
    split: str = ""
    """The published split file; empty: the data set has official parts."""
    needs: tuple[str, ...] = ()
    """Files that are read where there is no split file."""
    template: str
    aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Folders that are no classes."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Folder -> class name, where the published code changes it."""
    classes: int
    sizes: tuple[int | None, int | None, int | None]
    """Published numbers of training, validation and test images; None: no such part."""
    sizes_source: str
    licence: str
    """What is said of it, and by whom; unknown where nothing was found."""
    downloads: tuple[Download, ...] = ()
    manual: tuple[str, ...] = ()
    """Steps for people, where a login or a browser is needed."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that belongs in the folder, relative to it."""
        return (*self.images, *((self.split,) if self.split else self.needs))


def rows() -> tuple[Row, ...]:
    """All rows, in the papers' order."""
    from vlprompt.data.catalogue_rows import ROWS

    return ROWS


def names() -> tuple[str, ...]:
    """What ``--data`` takes, in the papers' order."""
    return tuple(row.name for row in rows())


FEW_SHOT = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101"),
)
"""The eleven sets of the few-shot and the base-to-novel comparison, in the papers' order."""
SHIFTED = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
"""The four variants of ImageNet, for testing only."""


def find(name: str) -> Row | None:
    """The row of a name, title, directory or alias, however it is written (``Food-101``, ``food_101``); None: there is none, or it
    is a path (``./dtd``)."""
    if "/" in name or os.sep in name:
        return None
    key = plain(name)
    for row in rows():
        if key in {plain(one) for one in (row.name, row.title, row.directory, *row.aliases)}:
            return row
    return None


def get(name: str) -> Row:
    """As `find`; UserError with the nearest name where there is none."""
    row = find(name)
    if row is None:
        near = difflib.get_close_matches(plain(name), [plain(one) for one in names()], n=1)
        hint = next((f" Did you mean {one!r}?" for one in names() if near and plain(one) == near[0]), "")
        raise UserError(f"there is no data set {name!r} in the table.{hint} Allowed: {', '.join(names())}.")
    return row


def plain(name: str) -> str:
    """Lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def data_root() -> Path | None:
    """``$VLPROMPT_DATA``; None where it is not set."""
    own = os.environ.get(ROOT_VARIABLE)
    return Path(own).expanduser() if own else None


def directory_of(row: Row, root: Path) -> Path:
    """Where a set lies below a data root: its published folder, else one under another of its names, however written."""
    if not (root / row.directory).is_dir() and root.is_dir():
        keys = {plain(name) for name in (row.directory, row.name, row.title, *row.aliases)}
        for child in sorted(root.iterdir()):
            if plain(child.name) in keys and child.is_dir():
                return child
    return root / row.directory


def place(spec: str, root: Path | None) -> Path | None:
    """The folder that a name of the table means below `root` (None: ``$VLPROMPT_DATA``); None where `spec` is no such name, or
    no root is known."""
    row, root = find(spec), root or data_root()
    if row is None or root is None:
        return None
    return directory_of(row, root)


def recognise(folder: Path) -> Row | None:
    """The row whose layout a folder has: its split file stands in it, or it has the name and all that belongs with it.

    An ImageNet variant is recognised without its class names too, since WordNet ids are no names.
    """
    for row in rows():
        if row.split and (folder / row.split).is_file():
            return row
    key = plain(folder.resolve().name)
    for row in rows():
        if key in {plain(one) for one in (row.name, row.title, row.directory)}:
            lost = set(absent(row, folder))
            return row if not lost or lost == {CLASS_NAMES} else None
    return None


def flat(folder: Path) -> bool:
    """Whether the class folders of an ImageNet variant lie directly in a folder."""
    return any(re.fullmatch(r"n\d{8}", child.name) and child.is_dir() for child in folder.iterdir())


def absent(row: Row, folder: Path) -> tuple[str, ...]:
    """What a data set cannot be read without and is not there. The split file is not part of it, where its sources are."""
    images = tuple(f"{one}/" for one in row.images if not (folder / one).is_dir())
    if row.reader in ("wordnet", "numbered") and images and folder.is_dir() and flat(folder):
        images = ()
    if row.split and (folder / row.split).is_file():
        return images
    lost = tuple(one for one in row.needs if not present(row, folder, one))
    return images + lost


def present(row: Row, folder: Path, file: str) -> bool:
    """Whether a file is there; the class names of ImageNet's variants may also stand beside ImageNet."""
    return (folder / file).exists() or (file == CLASS_NAMES and any(one.is_file() for one in class_names_files(folder)))


CLASS_NAMES = "classnames.txt"


def class_names_files(folder: Path) -> tuple[Path, ...]:
    """Where ``classnames.txt`` may stand: in the folder, above it, or in ImageNet's folder beside it."""
    above = folder.resolve().parent
    return folder / CLASS_NAMES, above / CLASS_NAMES, above / "imagenet" / CLASS_NAMES


def not_there(row: Row, spec: str, folder: Path | None) -> UserError:
    """The error for a set of the table that is not on this disk: where it belongs, and how to get it."""
    if folder is None:
        return UserError(
            f"{spec!r} is the papers' {row.title}, and there is no folder {spec!r} here. Say where the data sets lie with "
            f"--data-root DIR or {ROOT_VARIABLE}=DIR ({row.directory}/ belongs in it), or give the data set's own folder.",
            exit_code=DATA,
        )
    seen = f"is not complete; missing: {', '.join(absent(row, folder))}" if folder.is_dir() else "is not there"
    return UserError(
        f"{row.title}: {folder} {seen}. `vlprompt data get {row.name} --data-root {folder.parent}` "
        "fetches it or says how to.",
        exit_code=DATA,
    )
