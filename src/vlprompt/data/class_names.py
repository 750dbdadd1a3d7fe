"""Class names by folder: the published files that say what ``n00004475`` means, and what is odd about their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlprompt import reading
from vlprompt.data.listing import class_name, some
from vlprompt.errors import data_error
from vlprompt.types import plain_name

WORDNET_ID = re.compile(r"n\d{8}")
PUBLISHED = (
    "imagenet21k_miil_tree.pth",
    "imagenet21k_wordnet_lemmas.txt",
    "classnames.txt",
    "class_names.txt",
    "words.txt",
)
"""Names under which such files are published; looked for in the data's folder and in the one above."""
FORMATS = (
    "lines of `n00004475 organism, being` (a space or a tab between), imagenet21k_wordnet_lemmas.txt with "
    "imagenet21k_wordnet_ids.txt, JSON of folder to name, or imagenet21k_miil_tree.pth"
)


def named(keys: Sequence[str], names: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(kept keys, their names, what is odd). `names`: key -> name or synonyms with commas; the first one stands for the class.

    A class without a name is left out. Nothing else is mended: classes with one name keep it, and no prompt tells them apart.
    """
    chosen: dict[str, str] = {}
    synonyms: dict[str, tuple[str, ...]] = {}
    by_name: dict[str, list[str]] = {}
    for key in keys:
        every = tuple(one for one in (class_name(part) for part in names.get(key, "").split(",")) if one)
        if not every:
            continue
        if len(every) > 1:
            synonyms[key] = every
        chosen[key] = every[0]
        by_name.setdefault(plain_name(every[0]), []).append(key)
    notes = []
    if synonyms:
        shown = some([f"{key} ({', '.join(every)})" for key, every in synonyms.items()], 3)
        notes.append(f"{len(synonyms)} classes have synonyms; the first is used: {shown}.")
    if twice := {name: found for name, found in by_name.items() if len(found) > 1}:
        number = sum(map(len, twice.values()))
        shown = some([f"{name!r} ({', '.join(found)})" for name, found in twice.items()], 3)
        notes.append(f"{number} classes share {len(twice)} names and cannot be told apart by text: {shown}.")
    if empty := [key for key in keys if key not in chosen]:
        notes.append(f"{len(empty)} classes have no name and are left out: {some(empty)}.")
    if unused := len(names.keys() - set(keys)):
        notes.append(f"{unused} names in the file belong to no folder.")
    return tuple(chosen), tuple(chosen.values()), tuple(notes)


def published_file(root: Path) -> Path | None:
    """The class-name file in a data set's folder or the one above it; None: there is none under a published name."""
    for place in (root, root.resolve().parent):
        for name in PUBLISHED:
            if (place / name).is_file():
                return place / name
    return None


def is_code(key: str) -> bool:
    """Whether a class key is a number or a WordNet id, and no word that a text tower knows."""
    return WORDNET_ID.fullmatch(key) is not None or not any(letter.isalpha() for letter in key)


def odd_names(names: Sequence[str]) -> list[str]:
    """What is odd about class names as words of a sentence, a note each."""
    codes = [name for name in names if is_code(name)]
    numbered = [name for name in names if name not in codes and re.match(r"(n\d{8}|\d{2,})[\s.\-]", name)]
    out = []
    if codes:
        out.append(
            f"class names are read as words, and these have none: {some(codes)}. Put a {PUBLISHED[2]} with lines as "
            f"`{codes[0]} its name` into the folder"
        )
    if len(numbered) > len(names) / 2:
        out.append(
            f"class names are read as words, number and all: {some(numbered, 3)}. Rename the classes, without the number"
        )
    return out


def read_class_names(path: Path, keys: Collection[str] = ()) -> dict[str, str]:
    """Key -> name(s) of a class-name file. UserError (exit 3): no such file, or a format that is none of FORMATS.

    keys: that lines of text may begin with, if they are not WordNet ids.
    """
    if not path.is_file():
        raise data_error(f"{path}: there is no such class-name file. Allowed: {FORMATS}.")
    if path.suffix in (".pth", ".pt"):
        return _strings(_tree(path), path)
    try:
        text = reading.text(path)
        if path.suffix == ".json":
            return _strings(reading.json_value(text, str(path)), path)
    except ValueError as error:
        raise data_error(f"{path}: not readable as text ({error}). Allowed: {FORMATS}.") from error
    return _from_lines(path, [line for line in text.splitlines() if line.strip()], keys)


def read_words(path: Path, keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(class key -> its words, names in the file that no class has) of a file that a person wrote.

    CSV or TSV with two columns, JSON of folder to words, or lines of ``folder: words``. A folder may stand as its words too
    (``oak tree`` for ``oak_tree``). UserError (exit 3): no such file, another format, or a file that names none of the classes.
    """
    wanted = {name.casefold(): key for key in reversed(keys) for name in (class_name(key), key)}
    if not path.is_file():
        raise data_error(f"--class-names {path}: there is no such file. Give a file with lines of `folder: words`.")
    text = reading.text(path)
    if path.suffix.lower() == ".json":
        pairs = list(_strings(reading.json_value(text, str(path)), path).items())
    elif path.suffix.lower() in (".csv", ".tsv"):
        lines = text.splitlines()
        delimiter = max(
            ",;\t", key=lambda sign: sum(line.split(sign)[0].strip(' "').casefold() in wanted for line in lines)
        )
        rows = [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if len(row) > 1]
        widths = [max(number for number, cell in enumerate(("", *row)) if cell.strip() or not number) for row in rows]
        if widths and max(widths) > max(2, min(widths)):
            wide = rows[widths.index(max(widths))]
            raise data_error(
                f"{path}: {delimiter.join(wide)[:80]!r} has {len(wide)} cells, and others have fewer. Put words with a {delimiter!r} in "
                "them between quotes."
            )
        pairs = [(row[0], row[1]) for row in rows]
        pairs = pairs[1:] if pairs and pairs[0][0].strip().casefold() not in wanted else pairs  # its header
    else:
        pairs = [_pair(line, wanted) for line in text.splitlines() if line.strip()]
    known = (
        (wanted[key.strip().casefold()], " ".join(words.split()))
        for key, words in pairs
        if key.strip().casefold() in wanted
    )
    found = _single([(key, words) for key, words in known if words], path)
    if not found:
        raise data_error(
            f"{path} names none of the classes ({some(keys)}). Write a line for each: `{keys[0]}: its words`, a CSV of folder,words, or "
            f'JSON: {{"{keys[0]}": "its words"}}.'
        )
    return found, [key.strip() for key, _ in pairs if key.strip().casefold() not in wanted]


def _pair(line: str, wanted: Collection[str]) -> tuple[str, str]:
    """A line's class and words: the longest known class that it begins with, else what stands before a colon, a tab or a space."""
    for place in sorted((mark.start() for mark in re.finditer(r"[\s:=,]", line.strip())), reverse=True):
        if line.strip()[:place].casefold() in wanted:
            return line.strip()[:place], line.strip()[place:].lstrip(" \t:=,")
    key, *words = re.split(r"\s*[:=\t]\s*|\s+", line.strip(), maxsplit=1)
    return key, words[0] if words else ""


def _from_lines(path: Path, lines: list[str], keys: Collection[str] = ()) -> dict[str, str]:
    pairs = [re.split(r"\s+", line.strip(), maxsplit=1) for line in lines]
    if all(WORDNET_ID.fullmatch(pair[0]) or pair[0] in keys for pair in pairs):
        return _single([(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs], path)
    beside = path.with_name(path.name.replace("lemmas", "ids"))
    if beside != path and beside.is_file():
        ids = reading.text(beside).split()
        if len(ids) == len(lines):
            return dict(zip(ids, lines, strict=True))
        raise data_error(f"{path} has {len(lines)} names, and {beside.name} {len(ids)} keys.")
    if all("\t" in line for line in lines):
        return _single([(key.strip(), names.strip()) for key, names in (line.split("\t", 1) for line in lines)], path)
    raise data_error(f"{path}: its lines do not begin with a class key. Allowed: {FORMATS}.")


def _single(pairs: Iterable[tuple[str, str]], path: Path) -> dict[str, str]:
    """The pairs as a mapping. UserError: one class with two names."""
    out: dict[str, str] = {}
    for key, words in pairs:
        if out.setdefault(key, words) != words:
            raise data_error(f"{path} names the class {key} twice: {out[key]!r} and {words!r}. Keep one.")
    return out


def _tree(path: Path) -> object:
    """`class_description` of the published semantic tree. torch's restricted reader: nothing in the file is executed."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)["class_description"]
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        raise data_error(
            f"{path} cannot be read as imagenet21k_miil_tree.pth ({error}). Allowed: {FORMATS}."
        ) from error


def _strings(value: Any, path: Path) -> dict[str, str]:
    """{key: name}, {key: [names]} and {"0": [key, name]} as {key: names with commas}."""
    if not isinstance(value, Mapping):
        raise data_error(f"{path}: it holds no mapping of class keys to names. Allowed: {FORMATS}.")
    out: dict[str, str] = {}
    for key, names in value.items():
        every = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
        if not all(isinstance(one, str) for one in every):
            raise data_error(f"{path}: the name of {key!r} is {names!r}, no text.")
        if len(every) == 2 and WORDNET_ID.fullmatch(every[0]):
            key, every = every[0], every[1:]
        out[str(key)] = ", ".join(every)
    return out
