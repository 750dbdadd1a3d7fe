"""Which sentences stand for a class: one list for all, or several for each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlprompt import reading
from vlprompt.errors import UserError, data_error
from vlprompt.methods.templates import IMAGENET, SELECTED, SIXTY
from vlprompt.pocket import descriptions
from vlprompt.types import Ensemble, plain_name

LISTS = {
    "own": None,
    "selected": Ensemble(templates=SELECTED, unit=True, own=True),
    "selected-alone": Ensemble(templates=SELECTED, unit=True),
    "imagenet-60": Ensemble(templates=SIXTY, unit=True),
    "imagenet-80": Ensemble(templates=IMAGENET, unit=True),
}
"""Option -> sentences; None: the data set's template alone."""
POCKET = "pocket"
SUFFIXES = (".json", ".toml", ".csv")
BY_CLASS = '{"'
"""How sentences by class begin where they are kept in one line."""
BETWEEN = " | "
"""Between sentences that are written in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceOptions:
    """What may be chosen about zero-shot classification."""

    templates: str = "own"
    """`own`: the data set's; the mean of several, each feature normalised: `selected` (7 and the data set's; `selected-alone`
    without it, as published for ImageNet), `imagenet-60`, `imagenet-80`; a file with one per line; or the sentences themselves, with
    " | " between them."""

    def __post_init__(self) -> None:
        """A file is read at once: its sentences are what is kept, so an artifact needs no file next to it."""
        path = Path(self.templates).expanduser()
        if path.suffix in SUFFIXES:
            raise UserError(
                f"templates={self.templates}: a file of sentences for each class is for the method descriptions "
                f"(--method descriptions --sentences {self.templates}). Allowed here: a text file with a sentence per line."
            )
        if self.templates not in LISTS and "{}" not in self.templates:
            object.__setattr__(self, "templates", BETWEEN.join(_read(path)))
        bad = [one for one in _listed(self.templates) if one.count("{}") != 1]
        if bad:
            raise UserError(f"templates: {bad[0]!r} must have one {{}}, where the class name stands.")

    @property
    def ensemble(self) -> Ensemble | None:
        if self.templates in LISTS:
            return LISTS[self.templates]
        return Ensemble(templates=_listed(self.templates), unit=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptionOptions:
    """What may be chosen about descriptions of classes."""

    sentences: str = POCKET
    """A .json, .toml or .csv file with sentences for each class; `pocket`: those of the embedded data sets' classes."""

    def __post_init__(self) -> None:
        """A file is read at once, as that of `SentenceOptions`."""
        if self.sentences == POCKET or self.sentences.startswith(BY_CLASS):
            return
        path = Path(self.sentences).expanduser()
        if path.suffix not in SUFFIXES:
            raise data_error(
                f"sentences={self.sentences}: allowed are {POCKET} (the embedded sets) and a file that ends in "
                f"{', '.join(SUFFIXES)}, with sentences for each class."
            )
        object.__setattr__(self, "sentences", json.dumps(read_sentences(path), ensure_ascii=False))

    @property
    def ensemble(self) -> Ensemble:
        if self.sentences == POCKET:
            return _by_class(read_sentences(descriptions()))
        return _by_class(checked_sentences(reading.json_value(self.sentences, "sentences"), "sentences"))


def _by_class(found: Mapping[str, Sequence[str]]) -> Ensemble:
    return Ensemble(templates=(), unit=True, by_class={name: tuple(some) for name, some in found.items()})


def read_sentences(path: Path) -> dict[str, list[str]]:
    """Class -> sentences, of a JSON or TOML table of lists, or a CSV with the columns `class` and `sentence`. UserError: others.

    Such files are made with a language model. Source of the use: CuPL, arXiv 2209.03320 (the mean of normalised features).
    """
    content = reading.text(path)
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(content)))
        if not rows or not {"class", "sentence"} <= set(rows[0]):
            raise data_error(f"{path}: a CSV of sentences has the columns class and sentence.")
        value: dict[str, list[str]] = {}
        for row in rows:
            value.setdefault(row["class"] or "", []).append(row["sentence"] or "")
        return checked_sentences(value, str(path))
    return checked_sentences(
        reading.json_value(content, str(path)) if path.suffix == ".json" else reading.toml_value(content, str(path)),
        str(path),
    )


def checked_sentences(value: object, where: str) -> dict[str, list[str]]:
    """The table with plain names; one sentence may stand without a list. UserError: another form, an empty sentence, a class twice."""
    found: dict[str, list[str]] = {}
    for name, some in value.items() if isinstance(value, dict) else ():
        some = [some] if isinstance(some, str) else some
        if not isinstance(some, list) or not some or not all(isinstance(one, str) and one.strip() for one in some):
            raise data_error(f"{where}: the class {name!r} has {reading.shown(some)}, not a list of sentences.")
        if plain_name(name) in found:
            raise data_error(f"{where}: the class {name!r} is listed twice.")
        found[plain_name(name)] = [one.strip() for one in some]
    if not found:
        raise data_error(
            f'{where}: no table of sentences. Write for example {{"cat": ["a small pet with whiskers", "..."]}}.'
        )
    return found


def _listed(text: str) -> tuple[str, ...]:
    return () if text in LISTS else tuple(one.strip() for one in text.split(BETWEEN.strip()) if one.strip())


def _read(path: Path) -> list[str]:
    """The lines of a file that are not empty. UserError where it cannot be read or has none."""
    try:
        lines = [line.strip() for line in reading.text(path).splitlines() if line.strip()]
    except UserError as problem:
        raise data_error(
            f"templates={path}: it is none of {', '.join(LISTS)} and no file that can be read ({problem})."
        ) from problem
    if not lines:
        raise data_error(f"templates={path}: the file has no sentences. Write one per line, each with one {{}}.")
    return lines
