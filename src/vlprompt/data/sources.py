"""Where a data set comes from: the pocket, the papers' sets, a folder, a table, or the Hub."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from vlprompt.data.class_names import odd_names, read_words
from vlprompt.data.folders import LAYOUT, scan_folder
from vlprompt.data.listing import Entry, Listing, as_dataset, problems, some
from vlprompt.data.papers import catalogue, readers
from vlprompt.data.samples import Dataset, Skipped, Tested, part_of
from vlprompt.data.tables import COMMAS, LINES, scan_table, table_of
from vlprompt.errors import UserError, data_error
from vlprompt.types import plain_name

HUB = "hub:"
"""Stands before the id of a data set on the Hub."""
NAMES = "names"
"""What a file with the classes' words is called in a source: ``photos?names=words.csv``."""


def open_dataset(spec: str | Path, *, strict: bool = False, val_as_test: bool = True, to_learn: bool = True) -> Dataset:
    """The data set that `spec` means: a pocket set's name, one of the papers' sets (`catalogue`) by name or by its folder, a
    folder of class folders, a CSV or JSONL table, or ``hub:OWNER/NAME``.

    ``SOURCE?names=FILE`` reads the words of its classes from a file (`class_names.read_words`).

    Only names and sizes are looked at, so large folders open fast; `verify` decodes. A name of the pocket, and one of
    the papers' below the data root, goes before a folder of that name (write ``./name`` for the folder). Classes are sorted by
    folder name; the papers' sets keep their labels and their order. A source without train, val and test gives all its images
    as `train` with ``divided=False``; `split_by_rule` divides them. val_as_test: whether validation images stand for test images
    that are not there (False: for what measures on validation images alone). to_learn: as `listing.problems`.
    UserError (exit code 3): nothing there, no usable image, one class, an empty class, two classes with one name, another
    layout than expected; with `strict` also any skipped file.
    """
    listing = list_source(spec, val_as_test=val_as_test)
    if found := problems(listing, to_learn=to_learn):
        raise data_error(f"{spec}: {' '.join(found)} {LAYOUT if not listing.entries else ''}".rstrip())
    if strict and listing.skipped:
        raise strict_error(str(spec), listing.skipped)
    return apart(
        dataclasses.replace(as_dataset(listing), notes=notes_of(listing), renamed=named_by(str(spec))[1] is not None)
    )


def named_by(spec: str) -> tuple[str, Path | None]:
    """(the source, the file with its classes' words) of ``SOURCE?names=FILE``."""
    place, _, query = spec.rpartition("?")
    settings = dict(parse_qsl(query))
    file = settings.pop(NAMES, None)
    if file is None:
        return spec, None
    return place + (f"?{urlencode(settings)}" if settings else ""), Path(file).expanduser()


def _renamed(listing: Listing, file: Path) -> Listing:
    """The listing with the words of a file for its classes. UserError: two classes with one name."""
    words, unused = read_words(file, listing.class_keys)
    own = listing.own_names or listing.class_keys
    names = tuple(words.get(key, name) for key, name in zip(listing.class_keys, own, strict=True))
    shown = [plain_name(name) for name in names]
    if twice := [name for number, name in enumerate(names) if shown[number] in shown[:number]]:
        raise data_error(f"{file} gives two classes one name: {twice[0]!r}. Give each its own words.")
    kept = [key for key in listing.class_keys if key not in words]
    notes = [f"{file.name} has no words for {some(kept)}: the folder's name is used."] if kept else []
    notes += [f"{file.name} has words for classes that are not there: {some(unused)}."] if unused else []
    return dataclasses.replace(listing, own_names=names, notes=(*listing.notes, *notes))


def notes_of(listing: Listing) -> tuple[str, ...]:
    """What to know of a source: its own notes, and class names that are not words."""
    return (*listing.notes, *(() if listing.own_names else odd_names(listing.class_names)))


def apart(dataset: Dataset) -> Dataset:
    """A data set whose test images are nowhere among its others: an image in several parts is a test image only.

    Copies under other names are found when images are drawn (`Dataset.tested`), since that takes reading them.
    """
    asked = {sample.id for sample in dataset.test}
    train, val = (tuple(one for one in part if one.id not in asked) for part in (dataset.train, dataset.val))
    lost = [one.id for one in (*dataset.train, *dataset.val) if one.id in asked]
    note = f"{len(lost)} images are listed as test images too, and are not learned from: {some(lost, 3)}."
    return dataclasses.replace(
        dataset,
        train=train,
        val=val,
        tested=Tested(dataset.test) if dataset.test else None,
        notes=(*dataset.notes, *([note] if lost else [])),
    )


def strict_error(where: str, skipped: Sequence[Skipped]) -> UserError:
    """The error that --strict makes of skipped images."""
    bad = [f"{skip.id} ({skip.reason})" for skip in skipped]
    return data_error(
        f"{where}: {len(bad)} file{'s' * (len(bad) != 1)} cannot be used: {some(bad)}. "
        "Repair or remove them, or leave out --strict to skip them."
    )


def list_source(spec: str | Path, *, val_as_test: bool = True) -> Listing:
    """All that a source holds, unjudged; UserError where `spec` means nothing or its layout cannot be read.

    Where there are train and val but no test, the val images are the test images, unless `val_as_test` is False. Where there is train
    alone, it is as if there were no parts.
    """
    source, file = named_by(spec) if isinstance(spec, str) else (spec, None)
    listing = _listed(source)
    listing = listing if file is None else _renamed(listing, file)
    parts = {entry.part for entry in listing.entries}
    if "train" not in parts or "test" in parts or ("val" in parts and not val_as_test):
        return listing
    if "val" not in parts:
        note = "there are training images alone: they are divided by the rule, and 30 % are tested on. --folds 4 learns from all."
        entries = tuple(dataclasses.replace(one, part=None) for one in listing.entries)
        return dataclasses.replace(listing, entries=entries, notes=(*listing.notes, note))
    moved = tuple(dataclasses.replace(one, part="test") if one.part == "val" else one for one in listing.entries)
    note = "there are no test images: accuracy is measured on the validation images, and none are left to choose a seed by."
    return dataclasses.replace(listing, entries=moved, notes=(*listing.notes, note))


def _listed(spec: str | Path) -> Listing:
    from vlprompt import pocket

    if isinstance(spec, str) and spec in pocket.names():
        return _scan_pocket(spec)
    if isinstance(spec, str) and spec.startswith(HUB):
        from vlprompt.data.hub import scan_hub

        return scan_hub(spec.removeprefix(HUB))
    if (listing := _published(str(spec))) is not None:
        return listing
    path = Path(spec).expanduser()
    if str(spec) and path.is_dir():
        return scan_folder(path)
    if (table := table_of(str(spec))) is not None:
        return scan_table(*table)
    if str(spec) and path.is_file():
        raise data_error(
            f"{spec} is a file, but not a table of images. Allowed: a folder of class folders, "
            f"a table ({', '.join(COMMAS + LINES)}), or a name of vlprompt data list."
        )
    if (row := catalogue.find(str(spec))) is not None:
        raise catalogue.not_there(row, str(spec), catalogue.place(str(spec)))
    near = difflib.get_close_matches(str(spec), (*pocket.names(), *catalogue.names()), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise data_error(
        f"there is no folder, table or embedded set {str(spec)!r}.{hint} vlprompt data list names the embedded and the papers' sets."
    )


def _published(spec: str) -> Listing | None:
    """One of the papers' sets, by its name below the data root or by its folder; None: `spec` is something else."""
    named = catalogue.place(spec)
    if named is not None and named.is_dir():
        return readers.read(catalogue.get(spec), named)
    folder = Path(spec).expanduser()
    row = catalogue.recognise(folder) if spec and folder.is_dir() else None
    return None if row is None else readers.read(row, folder)


def _scan_pocket(name: str) -> Listing:
    from vlprompt import pocket

    facts = pocket.info(name)
    entries = [
        Entry(
            id=row.key,
            class_key=facts.class_names[row.label],
            part=part_of(row.split),
            source=functools.partial(pocket.read, row.key),
        )
        for row in pocket.rows(name)
    ]
    return Listing(name=name, class_keys=facts.class_names, entries=tuple(entries), template=facts.template)
