"""The small files of runs and grids, of which one value is changed or the bytes are torn; then they are read as a command does."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile import values
from vlprompt import records
from vlprompt.bench import work
from vlprompt.engine.choose import CHOICE
from vlprompt.engine.config import RunConfig, same_work
from vlprompt.engine.observer import SILENT
from vlprompt.engine.run import chosen
from vlprompt.engine.test import seen_among
from vlprompt.methods.resolve import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file with good contents, and what reads it in a directory."""

    name: str
    good: Mapping[str, Any]
    read: Callable[[Path], object]


def _chosen(place: Path) -> None:
    config = RunConfig(method="auto", model="pocket-s", data="photos", out=place, shots=4, seeds=(1,))
    found, _ = chosen(config, SILENT)
    assert isinstance(str(resolve(found.method, found.overrides)), str)


def _attempted(place: Path) -> None:
    history = work.read(place)
    assert all(isinstance(reason, str) for reason in history.reasons)
    with suppress(work.GivenUp), work.attempt(place, 2):
        pass


def _same(name: str) -> Callable[[Path], object]:
    return lambda place: same_work(place / name, COURSE)


ASKED = {
    "model": "pocket-s",
    "shots": 4,
    "recipe": "auto",
    "subset": "all",
    "template": None,
    "views": None,
    "data": "photos",
}
CHOSEN = {
    "label": "CoOp",
    "method": "coop",
    "overrides": {"epochs": "20", "n_ctx": "4"},
    "sentence": "coop was right for 71.0 % of the images.",
    "images": 40,
    "seconds": 3.5,
    "tried": [{"label": "CoOp", "accuracy": 71.0, "seconds": 1.5, "why_not": ""}],
}
COURSE = {
    "method": "coop",
    "options": {"n_ctx": 4, "init": "normal", "plpp.k": 5},
    "weight_hash": "ab" * 32,
    "dtype": "float32",
    "views": 2,
    "dataset": "photos",
    "data_hash": "cd" * 32,
    "shots": 4,
    "seed": 1,
    "hash": "ef" * 32,
}
SPLIT = {"train": [["red/0.png", 0], ["blue/0.png", 1]], "val": [], "test": [["red/1.png", 0]], "seen": ["ab" * 32]}
FILES = (
    File(name=CHOICE, good=CHOSEN | {"asked": ASKED}, read=_chosen),
    File(name="course.json", good=COURSE, read=_same("course.json")),
    File(name="cell.json", good=COURSE | {"protocol": "few-shot"}, read=_same("cell.json")),
    File(name=work.ATTEMPTS, good={"schema": 1, "begun": True, "reasons": ["it was killed", "no"]}, read=_attempted),
    File(name=records.SPLIT, good=SPLIT, read=records.images_of),
    File(name=records.SPLIT, good=SPLIT, read=lambda place: seen_among((), place)),
    File(name=records.CURVE, good={"images": [2, 4], "right": ["0101", "0111"]}, read=records.read_curve),
)


def tries(file: File, stream: random.Random) -> None:
    """One try: an altered value, or torn bytes."""
    data = values.written(file.good)
    if stream.random() < 0.3:
        data = values.torn(data, stream)
    else:
        data = values.written(
            values.put(file.good, stream.choice(list(values.places(file.good))), stream.choice(values.ODD))
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).write_bytes(data)
        file.read(Path(folder))


def good(file: File, folder: Path) -> object:
    """What an unaltered file is read as."""
    (folder / file.name).write_text(json.dumps(file.good), encoding="utf-8")
    return file.read(folder)
