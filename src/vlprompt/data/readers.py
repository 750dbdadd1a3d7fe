"""The papers' data sets from their folders: the published split file where there is one, else the data set's own lists.

Labels, class names and the order of the images are those of KaiyangZhou/CoOp ``datasets/*.py``; folders are read in sorted order
(the published code takes them as the file system gives them).
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vlprompt.data import catalogue
from vlprompt.data import readers_lists as own
from vlprompt.data.catalogue import Row
from vlprompt.data.files import has_image_name, hidden
from vlprompt.data.listing import Entry, Listing, some
from vlprompt.data.readers_items import Found, Item, divide, lines, ruled
from vlprompt.data.samples import PARTS, Part, Skipped
from vlprompt.errors import DATA, UserError


def read(row: Row, folder: Path) -> Listing:
    """All of one of the papers' data sets. UserError: something that it cannot be read without is missing or damaged.

    Images that the lists name and the disk has not are skipped. Numbers that are not the published ones become notes.
    """
    if catalogue.absent(row, folder):
        raise catalogue.not_there(row, row.name, folder)
    split = folder / row.split
    found = from_split(row, split) if row.split and split.is_file() else _own_lists(row)(row, folder)
    disk = _Disk(folder)
    there: list[Item] = []
    gone: list[Skipped] = []
    for item in found.items:
        if disk.has(item.path):
            there.append(item)
        else:
            gone.append(Skipped(item.path, "no such file"))
    keys, names, clash = _classes(found.items)
    entries = tuple(
        Entry(
            id=item.path,
            class_key=keys[item.label],
            part=item.part,
            source=functools.partial(_read, str(folder), item.path),
        )
        for item in there
    )
    notes = (*found.notes, *clash, *differences(row, there, len(keys)))
    return Listing(
        name=row.name,
        class_keys=tuple(keys[label] for label in sorted(keys)),
        own_names=tuple(names[label] for label in sorted(keys)),
        entries=entries,
        skipped=tuple(sorted((*found.skipped, *gone))),
        template=row.template,
        in_order=True,
        notes=tuple(f"{row.title}: {note}" for note in notes),
    )


def differences(row: Row, items: Iterable[Item], num_classes: int) -> list[str]:
    """Where numbers of classes and images are not the published ones, a sentence each."""
    counts = Counter(item.part for item in items)
    found = [("classes", num_classes, row.classes)]
    found += [(f"{part} images", counts[part], size or 0) for part, size in zip(PARTS, row.sizes, strict=True)]
    return [
        f"{number:,} {what}; published are {size:,} ({row.sizes_source})."
        for what, number, size in found
        if number != size
    ]


def from_split(row: Row, path: Path) -> Found:
    """The published split file: ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``."""
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        items = [
            Item(f"{row.prefix}/{image}" if row.prefix else str(image), int(label), str(name), part)
            for part in PARTS
            for image, label, name in lists[part]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a split file ({type(error).__name__}: {error}). Expected "
            '{"train": [[path, label, class name], ...], "val": [...], "test": [...]}. Fetch it anew, or take it away: the images are '
            "then divided by the published rule.",
            exit_code=DATA,
        ) from error
    return Found(items)


def class_folders(row: Row, folder: Path) -> Found:
    """``IMAGES/class/image``, divided 50/20/30: DTD, EuroSAT, Caltech101, Food101."""
    images = row.images[0]
    skipped: list[Skipped] = []
    classes = [name for name in _folders(folder / images) if name not in row.ignored]
    items = [
        Item(path, label, row.renamed.get(name, name), "train")
        for label, name in enumerate(classes)
        for path in _images(folder, f"{images}/{name}", skipped)
    ]
    return Found(divide(items), skipped, [ruled(row)])


def imagenet(row: Row, folder: Path) -> Found:
    """``images/train/nXXXXXXXX/``, and ``images/val/`` for testing; there are no validation images of its own."""
    names = _class_names(folder)
    skipped: list[Skipped] = []
    items: list[Item] = []
    parts: tuple[tuple[str, Part], ...] = ((row.images[0], "train"), (row.images[1], "test"))
    for images, part in parts:
        items += _wordnet_items(folder, images, names, part, skipped)
    return Found(items, skipped)


def wordnet(row: Row, folder: Path) -> Found:
    """Class folders called after WordNet ids, for testing only; labels count the folders that are there, sorted."""
    images = row.images[0] if (folder / row.images[0]).is_dir() else "."
    skipped: list[Skipped] = []
    return Found(_wordnet_items(folder, images, _class_names(folder), "test", skipped), skipped)


def numbered(row: Row, folder: Path) -> Found:
    """ImageNetV2: class folders called 0 to 999, numbers of the lines of ``classnames.txt``."""
    names = list(_class_names(folder).values())
    images = row.images[0] if (folder / row.images[0]).is_dir() else "."
    skipped: list[Skipped] = []
    items: list[Item] = []
    for key in sorted((key for key in _folders(folder / images) if key.isdecimal()), key=int):
        if int(key) >= len(names):
            raise UserError(
                f"{folder}: the class folder {key} has no line in {catalogue.CLASS_NAMES}, which has {len(names)}.",
                exit_code=DATA,
            )
        items += [Item(path, int(key), names[int(key)], "test") for path in _images(folder, f"{images}/{key}", skipped)]
    return Found(items, skipped)


def _wordnet_items(
    folder: Path, images: str, names: Mapping[str, str], part: Part, skipped: list[Skipped]
) -> list[Item]:
    keys = _folders(folder / images)
    nameless = [key for key in keys if key not in names]
    if nameless:
        raise UserError(
            f"{folder}: {len(nameless)} class folders have no line in {catalogue.CLASS_NAMES}: {some(nameless)}.",
            exit_code=DATA,
        )
    return [
        Item(path, label, names[key], part)
        for label, key in enumerate(keys)
        for path in _images(folder, key if images == "." else f"{images}/{key}", skipped)
    ]


def _class_names(folder: Path) -> dict[str, str]:
    """WordNet id -> class name of ``classnames.txt``, in the order of its lines."""
    path = next(one for one in catalogue.class_names_files(folder) if one.is_file())
    pairs = (line.strip().partition(" ") for line in lines(path))
    return {key: name for key, _, name in pairs}


def _own_lists(row: Row) -> Callable[[Row, Path], Found]:
    if row.reader == "21k":
        raise UserError(
            f"{row.title} is for pretraining a prompt, not for few-shot learning: `vlprompt pretrain --data DIR` reads it."
        )
    return {
        "folders": class_folders,
        "imagenet": imagenet,
        "wordnet": wordnet,
        "numbered": numbered,
        "pets": own.pets,
        "cars": own.cars,
        "flowers": own.flowers,
        "aircraft": own.aircraft,
        "sun": own.sun,
        "ucf": own.ucf,
    }[row.reader]


def _classes(items: Iterable[Item]) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """Label -> a key that no other label has; label -> name; and what is odd about them."""
    names: dict[int, str] = {}
    odd = []
    for item in items:
        if names.setdefault(item.label, item.name) != item.name:
            odd.append(f"class {item.label} is called {names[item.label]!r} and {item.name!r}; the first is used.")
    counts = Counter(names.values())
    keys = {label: name if counts[name] == 1 else f"{name} ({label})" for label, name in names.items()}
    double = [name for name, count in counts.items() if count > 1]
    if double:
        odd.append(f"several classes have one name, which no text can tell apart: {some(double)}.")
    return keys, names, list(dict.fromkeys(odd))


class _Disk:
    """Which files there are, asked of each folder once."""

    def __init__(self, root: Path) -> None:
        self._root, self._seen = root, dict[str, frozenset[str]]()

    def has(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._seen:
            try:
                self._seen[folder] = frozenset(os.listdir(self._root / folder))
            except OSError:
                self._seen[folder] = frozenset()
        return name in self._seen[folder]


def _folders(folder: Path) -> list[str]:
    return sorted(child.name for child in _children(folder) if child.is_dir())


def _images(folder: Path, inside: str, skipped: list[Skipped]) -> list[str]:
    """The paths of the images in a class folder, sorted by name; what is no image is listed as skipped."""
    found = []
    for child in sorted(_children(folder / inside), key=lambda child: child.name):
        path = child.name if inside == "." else f"{inside}/{child.name}"
        if has_image_name(child.name):
            found.append(path)
        else:
            skipped.append(Skipped(path, "not an image file"))
    return found


def _children(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [child for child in found if not hidden(child.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).", exit_code=DATA) from error


def _read(folder: str, path: str) -> bytes:
    return Path(folder, path).read_bytes()
