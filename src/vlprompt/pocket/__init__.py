"""The pocket: small data sets of real drawings and a small CLIP, inside the package.

Nothing here needs torch. Pictures are WebP bytes, 64 x 64; the model is a directory in the Hugging Face layout.
"""

from __future__ import annotations

import difflib
import functools
import json
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PocketRow", "PocketSet", "info", "model_dir", "model_names", "names", "read", "rows"]

_HERE = Path(__file__).resolve().parent
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class PocketSet:
    """One data set: its name, hand-written template with {}, class names in label order, and what it is."""

    name: str
    template: str
    class_names: tuple[str, ...]
    description: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PocketRow:
    """One image: its key (path in the archive), label, split, and the concept and hand that drew it.

    All images of one concept are in one split.
    """

    key: str
    label: int
    split: str
    concept: str
    hand: str


def names() -> list[str]:
    """Names of the data sets, sorted."""
    return sorted(_manifest()["sets"])


def info(name: str) -> PocketSet:
    """Facts of the data set `name`; an unknown name is a ValueError that says the nearest."""
    entry = _entry(name)
    return PocketSet(
        name=name,
        template=entry["template"],
        class_names=tuple(entry["classes"]),
        description=entry["description"],
        sources=tuple(sorted({image["hand"] for image in entry["images"]})),
    )


def rows(name: str) -> list[PocketRow]:
    """All images of the data set `name`, sorted by key."""
    entry = _entry(name)
    label_of = {label: number for number, label in enumerate(entry["classes"])}
    return [
        PocketRow(
            key=image["path"],
            label=label_of[image["class"]],
            split=image["split"],
            concept=image["concept"],
            hand=image["hand"],
        )
        for image in entry["images"]
    ]


def read(key: str) -> bytes:
    """The WebP bytes of one image; an unknown key is a ValueError."""
    archive = _archive()
    try:
        # One file handle for the process: a fork must not share it while another thread reads.
        with _LOCK:
            return archive.read(key)
    except KeyError:
        raise ValueError(_unknown("image", key, archive.namelist())) from None


def model_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def model_dir(name: str = "pocket-s") -> Path:
    """The directory of a shipped model, in the Hugging Face CLIP layout."""
    if name not in model_names():
        raise ValueError(_unknown("model", name, model_names()))
    return _HERE / name


@functools.cache
def _archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(_HERE / "images.zip")


@functools.cache
def _manifest() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(read("manifest.json"))
    return facts


def _entry(name: str) -> dict[str, Any]:
    sets: dict[str, dict[str, Any]] = _manifest()["sets"]
    if name not in sets:
        raise ValueError(_unknown("data set", name, sets))
    return sets[name]


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    choices = list(known)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.0)
    nearest = f"; did you mean '{near[0]}'?" if near else ""
    listed = f" (there are: {', '.join(choices)})" if len(choices) <= 12 else ""
    return f"the pocket has no {kind} '{name}'{nearest}{listed}"
