"""The papers' data sets as one table: where each lies on disk, how it is read, how large it is published to be.

The layout is the field's: KaiyangZhou/CoOp ``DATASETS.md`` and ``datasets/*.py``. A row is pure data, of `sets.toml`, with the
addresses that its files can be fetched from; `readers` reads what it describes.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlprompt.data.samples import Decoding
from vlprompt.errors import UserError, data_error

ROOT_VARIABLE = "VLPROMPT_DATA"
"""The environment variable that names the folder in which all of the papers' data sets lie."""
CLASS_NAMES = "classnames.txt"
UNKNOWN = "unknown"
Reader = Literal[
    "folders", "pets", "cars", "flowers", "aircraft", "sun", "ucf", "imagenet", "numbered", "wordnet", "21k", "idx"
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
class SetRow:
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
    decoding: Decoding = "published"
    """How its files become RGB: as the published code reads them, or ``upright`` as everybody else's."""
    template: str
    aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Folders that are not classes."""
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


def _row(values: dict[str, Any]) -> SetRow:
    downloads = tuple(
        Download(gives=tuple(one["gives"]), mirrors=tuple(Address(**address) for address in one["mirrors"]))
        for one in values.pop("downloads", ())
    )
    values["sizes"] = [number or None for number in values["sizes"]]
    lists: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    return SetRow(**lists, downloads=downloads)


ROWS = tuple(map(_row, tomllib.loads(Path(__file__).with_name("sets.toml").read_text(encoding="utf-8"))["sets"]))


def names() -> tuple[str, ...]:
    """What ``--data`` takes, in the papers' order."""
    return tuple(row.name for row in ROWS)


FEW_SHOT = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101"),
)
"""The eleven sets of the few-shot and the base-to-novel comparison, in the papers' order."""
SHIFTED = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
"""The four variants of ImageNet, for testing only."""


def find(name: str) -> SetRow | None:
    """The row of a name, title, directory or alias, however it is written (``Food-101``, ``food_101``); None: there is none, or it
    is a path (``./dtd``)."""
    if "/" in name or os.sep in name:
        return None
    return next((row for row in ROWS if plain(name) in _keys(row)), None)


def _keys(row: SetRow) -> set[str]:
    return {plain(one) for one in (row.name, row.title, row.directory, *row.aliases)}


def get(name: str) -> SetRow:
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


def directory_of(row: SetRow, root: Path) -> Path:
    """Where a set lies below a data root: its published folder, else one under another of its names, however written."""
    if not (root / row.directory).is_dir() and root.is_dir():
        for child in sorted(root.iterdir()):
            if plain(child.name) in _keys(row) and child.is_dir():
                return child
    return root / row.directory


def place(spec: str) -> Path | None:
    """The folder that a name of the table means below ``$VLPROMPT_DATA``; None: `spec` is no such name, or no root is known."""
    row, root = find(spec), data_root()
    return None if row is None or root is None else directory_of(row, root)


def recognise(folder: Path) -> SetRow | None:
    """The row whose layout a folder has: its split file stands in it, or it has the name and all that belongs with it.

    An ImageNet variant is recognised without its class names too, since WordNet ids are not names.
    """
    for row in ROWS:
        if row.split and (folder / row.split).is_file():
            return row
    key = plain(folder.resolve().name)
    called = [row for row in ROWS if key in map(plain, (row.name, row.title, row.directory))]
    return called[0] if called and set(absent(called[0], folder)) <= {CLASS_NAMES} else None


def flat(folder: Path) -> bool:
    """Whether the class folders of an ImageNet variant lie directly in a folder."""
    return any(re.fullmatch(r"n\d{8}", child.name) and child.is_dir() for child in folder.iterdir())


def absent(row: SetRow, folder: Path) -> tuple[str, ...]:
    """What a data set cannot be read without and is not there. The split file is not part of it, where its sources are."""
    images = tuple(f"{one}/" for one in row.images if not (folder / one).is_dir())
    if row.reader in ("wordnet", "numbered") and images and folder.is_dir() and flat(folder):
        images = ()
    if row.split and (folder / row.split).is_file():
        return images
    lost = tuple(one for one in row.needs if not present(folder, one))
    return images + lost


def present(folder: Path, file: str) -> bool:
    """Whether a file is there; the class names of ImageNet's variants may also stand next to ImageNet."""
    return (folder / file).exists() or (file == CLASS_NAMES and any(one.is_file() for one in class_names_files(folder)))


def class_names_files(folder: Path) -> tuple[Path, ...]:
    """Where ``classnames.txt`` may stand: in the folder, above it, or in ImageNet's folder next to it."""
    above = folder.resolve().parent
    return folder / CLASS_NAMES, above / CLASS_NAMES, above / "imagenet" / CLASS_NAMES


def not_there(row: SetRow, spec: str, folder: Path | None) -> UserError:
    """The error for a set of the table that is not on this disk: where it belongs, and how to get it."""
    if folder is None:
        return data_error(
            f"{spec!r} is the papers' {row.title}, and there is no folder {spec!r} here. Say where the data sets lie with "
            f"--data-root DIR or {ROOT_VARIABLE}=DIR ({row.directory}/ belongs in it), or give the data set's own folder."
        )
    seen = f"is not complete; missing: {', '.join(absent(row, folder))}" if folder.is_dir() else "is not there"
    return data_error(
        f"{row.title}: {folder} {seen}. `vlprompt data get {row.name} --data-root {folder.parent}` "
        "fetches it or says how to."
    )
