"""A table of images: CSV or JSONL with path, label and perhaps split; paths are relative to the table's folder.

TABLE.csv?path=file_name&label=category&split=fold     the columns by name, where they are not called so
TABLE.csv?separator=;                                  several labels in one cell, with this between them
"""

from __future__ import annotations

import csv
import difflib
import functools
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.parse import parse_qsl

from vlprompt import reading
from vlprompt.data.folders import refusal
from vlprompt.data.listing import Entry, Listing, read_file, some
from vlprompt.data.places import Places
from vlprompt.data.samples import PARTS, Part, Skipped, part_of
from vlprompt.errors import UserError, data_error

COMMAS = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
COLUMNS = ("path", "label", "split")
MAX_CELL = 4096
"""Letters of a path or a label: as many as a path has on Linux, and more than a text tower reads."""
SEPARATOR = "separator"
LIST = "\x1e"
"""Begins a cell that is a list of labels."""
ALIASES = {
    "path": ("path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image", "img_path"),
    "label": ("label", "labels", "class", "category", "class_name", "label_name", "target", "species", "breed"),
    "split": ("split", "part", "subset", "set", "partition", "is_valid"),
}
"""What the columns may be called (project's choice): the first name that the table has."""
FOLDS = re.compile(r"k?_?folds?|k_fold|cv|is_(train|test|val)|phase|usage|stage")
"""Columns that divide a table in ways that are not read, and are not to be passed over in silence."""


MISSING = ("nan", "NaN", "NAN", "#N/A", "N/A", "NA", "<NA>", "null", "NULL", "None")
"""What programs write where a label is missing."""


@dataclass(frozen=True, slots=True)
class _TableRow:
    line: int
    path: str
    label: str
    part: Part | None


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as it stands: its columns as written, and the cells of every row by column."""

    place: Path
    columns: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, str]]]
    asked: Mapping[str, str]
    """path, label, split -> the column that was asked for."""


def table_of(spec: str) -> tuple[Path, dict[str, str]] | None:
    """(the table, the columns asked for) of ``TABLE.csv?label=COLUMN``; None: `spec` is not a table that is there."""
    place, _, query = spec.partition("?")
    path = Path(spec).expanduser() if Path(spec).expanduser().is_file() else Path(place).expanduser()
    if path.suffix.lower() not in COMMAS + LINES or not path.is_file():
        return None
    asked = dict(parse_qsl(query, keep_blank_values=True)) if not Path(spec).expanduser().is_file() else {}
    if odd := sorted(asked.keys() - {*COLUMNS, SEPARATOR}):
        raise _bad(
            path,
            f"unknown column setting {odd[0]!r}. Allowed: {', '.join((*COLUMNS, SEPARATOR))}, as in --columns path=file,label=kind",
        )
    return path, asked


def scan_table(table: Path, asked: Mapping[str, str]) -> Listing:
    """List the images that a table names; no image is opened.

    asked: path, label or split -> the column that is meant, where it is called otherwise; separator -> what stands between several
    labels of one cell. A file that is missing or cannot be an image is skipped.

    UserError, with the line: a missing column or cell, more cells than columns, an unknown split, a split on some lines only, one image
    with two labels or in two splits. Without a line: columns that leave open which is meant, and a table none of whose files exist.
    """
    whole = _read_table(table, asked)
    columns, notes = _columns(whole)
    rows = list(_rows(whole, columns))
    if not rows:
        raise data_error(f"{table}: the table has no rows.")
    without = [str(row.line) for row in rows if row.part is None]
    if 0 < len(without) < len(rows):
        raise _bad(table, f"no split on line{'s' * (len(without) > 1)} {some(without)}, though others have one")
    keys_of = _several(table, rows, asked.get(SEPARATOR))
    first: dict[str, _TableRow] = {}
    places = Places(table.parent)
    entries, skipped, missing = [], [], 0
    for row in rows:
        found = places.find(row.path) or row.path
        earlier = first.setdefault(found, row)
        if earlier is not row:
            if (earlier.label, earlier.part) != (row.label, row.part):
                raise _bad(table, f"{row.path} has another label or split on line {row.line} than on {earlier.line}")
            skipped.append(Skipped(row.path, f"listed again on line {row.line}"))
            continue
        path = table.parent / found
        reason, size = refusal(path)
        if reason:
            skipped.append(Skipped(row.path, reason))
            missing += reason == "no such file"
            continue
        read = functools.partial(read_file, str(path))
        key, *also = keys_of[row.label]
        entries.append(Entry(id=found, class_key=key, also=tuple(also), part=row.part, source=read, size=size))
    if missing == len(first):
        raise _bad(
            table,
            f"none of its {missing} files exist (the first: {rows[0].path}). Paths are relative to {table.parent}/",
        )
    keys = tuple(sorted({key for row in rows for key in keys_of[row.label]}))
    several = SEPARATOR in asked or any(row.label.startswith(LIST) for row in rows)
    notes += [] if several else _hint(table, keys)
    if blank := [row for row in rows if row.label in MISSING]:
        notes.append(
            f"{table.name}: line {blank[0].line} has the label {blank[0].label!r}, which is taken for a class."
        )
    return Listing(
        name=table.stem,
        several=several,
        class_keys=keys,
        entries=tuple(entries),
        skipped=tuple(skipped),
        notes=(*notes, *places.said),
    )


def _several(table: Path, rows: Sequence[_TableRow], separator: str | None) -> dict[str, tuple[str, ...]]:
    """Cell -> its classes, the rarest in the table first; the whole cell is one where there is no separator."""
    if separator == "":
        raise _bad(table, "the separator is empty. Give what stands between two labels, as in --columns separator=;")
    cells = {row.label: _labels(row.label, separator) for row in rows}
    if odd := [row for row in rows if not cells[row.label]]:
        raise _bad(table, f"line {odd[0].line} has no label in {odd[0].label!r}")
    counts = Counter(key for row in rows for key in set(cells[row.label]))
    return {cell: tuple(sorted(set(keys), key=lambda key: (counts[key], key))) for cell, keys in cells.items()}


def _labels(cell: str, separator: str | None) -> list[str]:
    if cell.startswith(LIST):
        return [str(one) for one in json.loads(cell[1:])]
    return [key for one in cell.split(separator) if (key := one.strip())] if separator else [cell]


def _hint(table: Path, keys: Sequence[str]) -> list[str]:
    """A note where labels look like several in one cell: each part is also in another label."""
    for sign in ";|,":
        joined = {key: [part.strip() for part in key.split(sign)] for key in keys if sign in key}
        counts = Counter(part for key in keys for part in set(joined.get(key, [key])))
        if len(joined) > 1 and all(counts[part] > 1 for parts in joined.values() for part in parts):
            first = next(iter(joined))
            return [
                f'{table.name}: {first!r} may be several labels. If it is, read it with --columns "separator={sign}".'
            ]
    return []


def _read_table(table: Path, asked: Mapping[str, str]) -> _Table:
    text = reading.text(table)
    if "\0" in text:
        raise _bad(table, "it holds bytes of zero, which no table of text does")
    columns, rows = (_json_cells if table.suffix.lower() in LINES else _csv_cells)(table, text)
    return _Table(table, columns, rows, asked)


def _csv_cells(table: Path, text: str) -> tuple[tuple[str, ...], list[tuple[int, Mapping[str, str]]]]:
    # Spreadsheets write ; or tabs in some countries: the header, whose words are known, says which.
    said = re.match(r"\s*\"?sep=(.)\"?[\r\n]+", text)  # Excel's own line on what stands between cells
    text = (text[said.end() :] if said else text).lstrip("\r\n ")
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = said[1] if said else max(",;\t|", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[tuple[int, Mapping[str, str]]] = []
    try:
        columns = [name.strip() for name in next(reader, [])]
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if any(cells[len(columns) :]):
                raise _bad(
                    table,
                    f"line {reader.line_num} has {len(cells)} cells under {len(columns)} columns: {delimiter.join(row)[:80]!r}. Put a "
                    f'label with a comma between quotes, as in picture.jpg,"pepper, bell"',
                )
            rows.append((reader.line_num, dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))))
    except csv.Error as error:
        raise _bad(table, f"line {reader.line_num} is not CSV ({error})") from error
    double = [
        name for number, name in enumerate(columns) if name and name.casefold() in map(str.casefold, columns[:number])
    ]
    if double:
        raise _bad(table, f"two columns are called {double[0]!r}. Rename one of them")
    return tuple(name for name in columns if name), rows


def _json_cells(table: Path, text: str) -> tuple[tuple[str, ...], list[tuple[int, Mapping[str, str]]]]:
    rows: list[tuple[int, Mapping[str, str]]] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = reading.json_value(line, f"{table}: line {number}")
        if not isinstance(value, dict):
            raise _bad(table, f"line {number} is not an object with path and label")
        columns |= dict.fromkeys(value)
        rows.append((number, {name: _cell(cell) for name, cell in value.items()}))
    return tuple(columns), rows


def _cell(value: object) -> str:
    """A JSON value as a cell; a list of texts, and what is neither text nor a whole number, are kept as JSON behind a sign that no text
    begins with."""
    if value is None:
        return ""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        own = sorted({text for one in value if (text := unicodedata.normalize("NFC", one.strip()))})
        return own[0] if len(own) == 1 else f"{LIST}{json.dumps(own, ensure_ascii=False)}" if own else ""
    plain = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if plain else f"\0{json.dumps(value)[:80]}"


def _columns(table: _Table) -> tuple[dict[str, str], list[str]]:
    """(path, label and split -> their columns, notes). UserError where a column is missing, or where more than one may be meant."""
    by_name = {name.casefold(): name for name in table.columns}
    chosen: dict[str, str] = {}
    for what in COLUMNS:
        if (wanted := table.asked.get(what)) is not None:
            if wanted and wanted.casefold() not in by_name:
                raise _bad(table.place, f"no column {wanted!r}. Its columns are {', '.join(table.columns)}")
            if wanted:
                chosen[what] = by_name[wanted.casefold()]
            continue
        found = [
            by_name[name] for name in ALIASES[what] if name in by_name and by_name[name] not in table.asked.values()
        ]
        if found and found[0].casefold() != what and len(found) > 1:
            raise _bad(
                table.place,
                f"{what} may be any of the columns {', '.join(found)}. Say which with --columns {what}={found[0]}",
            )
        if found:
            chosen[what] = found[0]
    lost = [what for what in ("path", "label") if what not in chosen]
    if lost:
        raise _bad(
            table.place,
            f"no column {' and no column '.join(map(repr, lost))}; its columns are {', '.join(table.columns)}. Expected path,label or "
            f"path,label,split; say which columns are meant with --columns path=NAME,label=NAME",
        )
    if twice := [what for what in chosen if list(chosen.values()).count(chosen[what]) > 1]:
        raise _bad(table.place, f"{' and '.join(twice)} are both the column {chosen[twice[0]]!r}. Give each its own")
    others = [name for name in table.columns if name not in chosen.values()]
    dividing = [name for name in others if FOLDS.fullmatch(name.casefold()) or _divides(table, name)]
    if dividing and "split" not in table.asked and "split" not in chosen:
        raise _bad(
            table.place,
            f"the column {dividing[0]!r} seems to divide the images. Say so with --columns split={dividing[0]} (its cells: train, val, "
            "test), or leave it unread with --columns split=",
        )
    return chosen, [f"{table.place.name}: the columns {some(others)} are not used."] if others else []


def _divides(table: _Table, column: str) -> bool:
    """Whether every cell of a column names a part."""
    return bool(table.rows) and all(part_of(row.get(column, "")) for _, row in table.rows)


def _rows(table: _Table, columns: Mapping[str, str]) -> Iterator[_TableRow]:
    for line, row in table.rows:
        cells = {what: row.get(name, "") for what, name in columns.items()}
        for what in ("path", "label"):
            if not cells[what]:
                raise _bad(table.place, f"line {line} has no {what}")
        for what, cell in cells.items():
            if cell.startswith("\0") or (cell.startswith(LIST) and what != "label"):
                raise _bad(table.place, f"line {line}: {what} is {cell[1:]}; it must be text")
            if len(cell) > MAX_CELL:
                raise _bad(table.place, f"line {line}: {what} has {len(cell):,} letters. Allowed are {MAX_CELL:,}")
        path = re.sub(r"^(\./)+", "", cells["path"])
        yield _TableRow(
            line,
            path,
            unicodedata.normalize("NFC", cells["label"]),
            _part(table.place, line, cells.get("split", ""), columns.get("split", "")),
        )


def _part(table: Path, line: int, cell: str, column: str) -> Part | None:
    if column.casefold() == "is_valid" and cell.lower() in ("true", "false", "1", "0"):  # fastai's
        return "val" if cell.lower() in ("true", "1") else "train"
    if not cell:
        return None
    part = part_of(cell)
    if part is None:
        near = difflib.get_close_matches(cell.lower(), PARTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise _bad(table, f"unknown split {cell!r} on line {line}.{hint} Allowed: {', '.join(PARTS)}")
    return part


def _bad(table: Path, seen: str) -> UserError:
    return data_error(f"{table}: {seen}.")
