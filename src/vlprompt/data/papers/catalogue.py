"""The papers' data sets as one table: where each lies on disk, how it is read, how large it is published to be.

The layout is the field's: KaiyangZhou/CoOp ``DATASETS.md`` and ``datasets/*.py``. A row is pure data, of `sets.toml`; `readers` reads
what it describes.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from vlprompt.data.papers.row import CLASS_NAMES, Address, Download, SetRow
from vlprompt.errors import UserError, data_error

ROOT_VARIABLE = "VLPROMPT_DATA"
"""The environment variable that names the folder in which all of the papers' data sets lie."""


def _row(values: dict[str, Any]) -> SetRow:
    downloads = tuple(
        Download(gives=tuple(one["gives"]), mirrors=tuple(Address(**address) for address in one["mirrors"]))
        for one in values.pop("downloads", ())
    )
    values["sizes"] = [number or None for number in values["sizes"]]
    lists: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    return SetRow(**lists, downloads=downloads)


ROWS: tuple[SetRow, ...] = tuple(
    map(_row, tomllib.loads(Path(__file__).with_name("sets.toml").read_text(encoding="utf-8"))["sets"])
)


def rows() -> tuple[SetRow, ...]:
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


def find(name: str) -> SetRow | None:
    """The row of a name, title, directory or alias, however it is written (``Food-101``, ``food_101``); None: there is none, or it
    is a path (``./dtd``)."""
    if "/" in name or os.sep in name:
        return None
    key = plain(name)
    for row in rows():
        if key in {plain(one) for one in (row.name, row.title, row.directory, *row.aliases)}:
            return row
    return None


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
        keys = {plain(name) for name in (row.directory, row.name, row.title, *row.aliases)}
        for child in sorted(root.iterdir()):
            if plain(child.name) in keys and child.is_dir():
                return child
    return root / row.directory


def place(spec: str, root: Path | None) -> Path | None:
    """The folder that a name of the table means below `root` (None: ``$VLPROMPT_DATA``); None where `spec` is not such a name, or
    no root is known."""
    row, root = find(spec), root or data_root()
    if row is None or root is None:
        return None
    return directory_of(row, root)


def recognise(folder: Path) -> SetRow | None:
    """The row whose layout a folder has: its split file stands in it, or it has the name and all that belongs with it.

    An ImageNet variant is recognised without its class names too, since WordNet ids are not names.
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
