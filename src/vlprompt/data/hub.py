"""Image data sets of the Hub, through the `datasets` library (extra ``hub-data``): which column is the image, which the class.

    hub:OWNER/NAME
    hub:OWNER/NAME?label=fine_label&image=img&config=plain_text&revision=main

The library keeps its own cache, logs in with HF_TOKEN and obeys HF_HUB_OFFLINE. A directory in place of the id is read as the
library reads local files.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from vlprompt.data.listing import Entry, Listing, some
from vlprompt.data.samples import Part, Skipped, part_of
from vlprompt.errors import UserError, data_error, reason_of

if TYPE_CHECKING:
    from datasets import Dataset as Table

INSTALL = "pip install 'vlprompt[hub-data]'"
SETTINGS = ("label", "image", "config", "revision")
LABELS = ("label", "labels", "class", "target", "category")
"""Names of the class column where several columns or none are class labels by type (project's choice)."""


def scan_hub(spec: str) -> Listing:
    """A data set of the Hub by what stands behind ``hub:``. UserError: the extra is missing, no such set, or no image or class
    column that is clear."""
    place, _, query = spec.partition("?")
    settings = dict(parse_qsl(query))
    odd = sorted(settings.keys() - set(SETTINGS))
    if not place or odd:
        raise UserError(
            f"hub:{spec}: {f'unknown setting {odd[0]!r}' if odd else 'no id'}. Expected hub:OWNER/NAME, with settings as in "
            f"hub:OWNER/NAME?label=COLUMN&image=COLUMN&config=NAME&revision=NAME."
        )
    tables = _load(place, settings.get("config"), settings.get("revision"))
    name = place.rstrip("/").rpartition("/")[2]
    return listing_of(tables, name, image=settings.get("image"), label=settings.get("label"))


def listing_of(
    tables: Mapping[str, Table], name: str, *, image: str | None = None, label: str | None = None
) -> Listing:
    """The parts of a `datasets.DatasetDict` as a listing. Rows whose class is negative (unpublished test labels) are skipped.

    image, label: columns, where the types leave it open. Parts that are neither train, val nor test are left out, and noted.
    """
    from datasets import Image

    image, label, names = _columns(tables, name, image, label)
    parts: dict[str, Part] = {key: part for key in tables if (part := part_of(key)) is not None}
    others = [key for key in tables if key not in parts]
    undivided = set(parts.values()) <= {"train"}
    chosen = list(parts) or others[:1]
    notes = [f"{name}: the parts {some(others)} are not used."] if parts and others else []
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    keys = names or _values(tables, chosen, label)
    known = set(keys)
    for key in chosen:
        table = tables[key].cast_column(image, Image(decode=False))
        for row, value in enumerate(table[label]):
            id = f"{key}/{row:07d}"
            label_key = _key(value, names)
            if label_key not in known:
                skipped.append(Skipped(id, "no class"))
                continue
            entries.append(
                Entry(
                    id=id,
                    class_key=label_key,
                    part=None if undivided else parts.get(key),
                    source=functools.partial(_bytes, table, image, row),
                )
            )
    return Listing(
        name=name, class_keys=keys, entries=tuple(entries), skipped=tuple(skipped), notes=tuple(notes), in_order=True
    )


def _load(place: str, config: str | None, revision: str | None) -> Mapping[str, Table]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from datasets import DatasetDict, load_dataset
    except ImportError as error:
        raise data_error(
            f"data sets of the Hub need the `datasets` library, which is not installed: {INSTALL}."
        ) from error
    place = str(Path(place).expanduser()) if place.startswith(("/", "~", ".")) else place
    try:
        found = load_dataset(place, config, revision=revision)
    except Exception as error:  # the library and those below it raise what they meet
        raise data_error(
            f"hub:{place} cannot be opened: {reason_of(error)}. Check the id (owner/name), accept the set's terms on its page and log in "
            "with `hf auth login` where it asks for that, or give ?config=NAME."
        ) from error
    return found if isinstance(found, DatasetDict) else {"train": found}


def _columns(
    tables: Mapping[str, Table], name: str, image: str | None, label: str | None
) -> tuple[str, str, tuple[str, ...] | None]:
    """The columns of the image and of the class, and the class names in label order, where the column's type has them."""
    from datasets import ClassLabel, Image

    features = next(iter(tables.values())).features
    for column in (image, label):
        if column is not None and column not in features:
            raise data_error(f"hub:{name} has no column {column!r}; it has {', '.join(features)}.")
    pictures = [key for key, kind in features.items() if isinstance(kind, Image)]
    classes = [key for key, kind in features.items() if isinstance(kind, ClassLabel)]
    plain = [key for key in LABELS if key in features and key not in pictures]
    image = image or _only("image", pictures, name, features)
    label = label or (classes[0] if len(classes) == 1 else None) or _only("label", plain or classes, name, features)
    kind = features[label]
    return image, label, tuple(kind.names) if isinstance(kind, ClassLabel) else None


def _only(what: str, found: Sequence[str], name: str, features: Mapping[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    seen = f"several columns that may be it: {', '.join(found)}" if found else "no column that is clear"
    raise data_error(f"hub:{name}: {seen}. Say which with ?{what}=COLUMN; its columns are {', '.join(features)}.")


def _key(value: object, names: Sequence[str] | None) -> str:
    """The class of a row as the listing names it; empty for a row without one."""
    if value is None:
        return ""
    if names is None:
        return str(value)
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else ""


def _values(tables: Mapping[str, Table], parts: Sequence[str], column: str) -> tuple[str, ...]:
    """The classes of a column without names, sorted; numbers by size."""
    found = {value for part in parts for value in tables[part].unique(column) if value is not None and value != -1}
    whole = all(isinstance(value, int) for value in found)
    return tuple(str(value) for value in (sorted(found) if whole else sorted(found, key=str)))


def _bytes(table: Table, column: str, row: int) -> bytes:
    cell = table[row][column]
    data = cell["bytes"]
    return bytes(data) if data is not None else Path(cell["path"]).read_bytes()
