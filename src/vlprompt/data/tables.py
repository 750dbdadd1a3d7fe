"""A table of images: CSV or JSONL with path, label and perhaps split; paths are relative to the table's folder."""

from __future__ import annotations

import csv
import difflib
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from vlprompt.data.folders import refusal
from vlprompt.data.listing import Entry, Listing, some
from vlprompt.data.samples import PART_NAMES, PARTS, Part, Skipped
from vlprompt.errors import DATA, UserError

COMMAS = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
COLUMNS = ("path", "label", "split")


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    label: str
    part: Part | None


def scan_table(table: Path) -> Listing:
    """List the images that a table names; no image is opened.

    A file that is missing or cannot be an image is skipped. UserError, with the line: a missing column or cell, an unknown
    split, a split on some lines only, one image with two labels or in two splits; and a table none of whose files exist.
    """
    rows = list(_rows(table))
    if not rows:
        raise UserError(f"{table}: the table has no rows.", exit_code=DATA)
    without = [str(row.line) for row in rows if row.part is None]
    if 0 < len(without) < len(rows):
        raise _bad(table, f"no split on line{'s' * (len(without) > 1)} {some(without)}, though others have one")
    first: dict[str, _Row] = {}
    entries, skipped, missing = [], [], 0
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier is not row:
            if (earlier.label, earlier.part) != (row.label, row.part):
                raise _bad(table, f"{row.path} has another label or split on line {row.line} than on {earlier.line}")
            skipped.append(Skipped(row.path, f"listed again on line {row.line}"))
            continue
        path = table.parent / row.path
        reason, size = refusal(path)
        if reason:
            skipped.append(Skipped(row.path, reason))
            missing += reason == "no such file"
            continue
        read = functools.partial(_read, str(path))
        entries.append(Entry(id=row.path, class_key=row.label, part=row.part, source=read, size=size))
    if missing == len(first):
        raise _bad(
            table,
            f"none of its {missing} files exist (the first: {rows[0].path}). Paths are relative to {table.parent}/",
        )
    keys = tuple(sorted({row.label for row in rows}))
    return Listing(name=table.stem, class_keys=keys, entries=tuple(entries), skipped=tuple(skipped))


def _rows(table: Path) -> Iterator[_Row]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(table, f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise _bad(table, f"cannot be read ({error.strerror})") from error
    cells = _json_cells if table.suffix.lower() in LINES else _csv_cells
    for line, row in cells(table, text):
        for column in ("path", "label"):
            if not row.get(column):
                raise _bad(table, f"line {line} has no {column}")
        yield _Row(line, PurePath(row["path"]).as_posix(), row["label"], _part(table, line, row.get("split", "")))


def _csv_cells(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    # Spreadsheets write ; or tabs in some countries: the header, whose words are known, says which.
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
    lost = [column for column in ("path", "label") if column not in names.values()]
    if lost:
        raise _bad(
            table,
            f"no column {' and no column '.join(map(repr, lost))} in its first line, which has {list(names.values())}. "
            "Expected path,label or path,label,split",
        )
    try:
        for row in reader:
            yield reader.line_num, {names[key]: (row[key] or "").strip() for key in names}
    except csv.Error as error:
        raise _bad(table, f"line {reader.line_num} is not CSV ({error})") from error


def _json_cells(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad(table, f"line {number} is not JSON ({error.msg})") from error
        if not isinstance(value, dict):
            raise _bad(table, f"line {number} is not an object with path and label")
        cells = {}
        for column in COLUMNS:
            cell = value.get(column)
            if isinstance(cell, bool) or not isinstance(cell, str | int | None):
                raise _bad(table, f"line {number}: {column} is {json.dumps(cell)}; it must be text")
            cells[column] = "" if cell is None else str(cell).strip()
        yield number, cells


def _part(table: Path, line: int, cell: str) -> Part | None:
    if not cell:
        return None
    part = PART_NAMES.get(cell.lower())
    if part is None:
        near = difflib.get_close_matches(cell.lower(), PARTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise _bad(table, f"unknown split {cell!r} on line {line}.{hint} Allowed: {', '.join(PARTS)}")
    return part


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _bad(table: Path, seen: str) -> UserError:
    return UserError(f"{table}: {seen}.", exit_code=DATA)
