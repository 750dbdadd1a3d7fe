"""The pocket: small data sets of real drawings and photographs and a small CLIP, inside the package.

Nothing here needs torch. Pictures are WebP bytes, of 28 to 128 pixels and more; the model is a directory in the Hugging Face layout.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlprompt.errors import unknown

SMALL = "pocket-s"
"""The faster of the embedded models, which knows drawings alone."""
MODEL = os.environ.get("VLPROMPT_MODEL") or "pocket-m"
"""What is used where no model is named: the variable ``VLPROMPT_MODEL``, else the embedded model that knows photographs."""

_HERE = Path(__file__).resolve().parent
_LOCK = threading.Lock()
_MANIFEST = "manifest.json"
Role = Literal["benchmark", "domain", "pretraining", "test"]


@dataclass(frozen=True, kw_only=True)
class PocketSet:
    """One data set: its name, hand-written template with {}, class names in label order, and what it is."""

    name: str
    template: str
    class_names: tuple[str, ...]
    description: str
    sources: tuple[str, ...]
    """The hands that drew it, sorted."""
    role: Role = "benchmark"
    """`domain`: test images alone, in the classes of another set; `test`: test images alone, too few to learn from;
    `pretraining`: images that the shipped models have seen."""
    domain_of: str | None = None
    """The set whose classes a domain has."""


@dataclass(frozen=True, kw_only=True)
class PocketRow:
    """One image: its key (path in an archive), label, split, its concept and the hand that made it.

    The concept of an icon is all that its hand drew, else the thing shown. All images of one concept are in one split, except in the
    pretraining set, whose classes are the concepts.
    """

    key: str
    label: int
    split: str
    concept: str
    hand: str


def names(role: Role | None = None) -> list[str]:
    """Names of the data sets, sorted; of one role, or all."""
    return [name for name in sorted(_sets()) if role in (None, _sets()[name].get("role", "benchmark"))]


def info(name: str) -> PocketSet:
    """Facts of the data set `name`; an unknown name is a UserError that says the nearest."""
    entry = _entry(name)
    return PocketSet(
        name=name,
        template=entry["template"],
        class_names=tuple(entry["classes"]),
        description=entry["description"],
        sources=tuple(sorted({image["hand"] for image in entry["images"]})),
        role=entry.get("role", "benchmark"),
        domain_of=entry.get("domain_of"),
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
    """The WebP bytes of one image; an unknown key is a UserError."""
    archives = _archives()
    if key not in archives:
        raise unknown("embedded image", key, archives)
    # One file handle an archive for the process: a fork must not share it while another thread reads.
    with _LOCK:
        return archives[key].read(key)


def model_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def descriptions() -> Path:
    """The file of three sentences for each class of the sets, all but the pretraining set's. Written with a language model."""
    return _HERE / "descriptions.json"


def model_dir(name: str = SMALL) -> Path:
    """The directory of a shipped model, in the Hugging Face CLIP layout."""
    if name not in model_names():
        raise unknown("embedded model", name, model_names())
    return _HERE / name


@functools.cache
def _opened() -> tuple[zipfile.ZipFile, ...]:
    return tuple(zipfile.ZipFile(path) for path in sorted(_HERE.glob("*.zip")))


@functools.cache
def _archives() -> dict[str, zipfile.ZipFile]:
    """Image key -> the archive that holds it."""
    return {key: one for one in _opened() for key in one.namelist() if key.endswith(".webp")}


@functools.cache
def _sets() -> dict[str, dict[str, Any]]:
    """Set -> its facts and images; a set's images may lie in several archives."""
    out: dict[str, dict[str, Any]] = {}
    for one in _opened():
        with _LOCK:
            manifest = json.loads(one.read(_MANIFEST))
        for name, entry in manifest["sets"].items():
            if name in out:
                entry = {**entry, "images": out[name]["images"] + entry["images"]}
            out[name] = {**entry, "images": sorted(entry["images"], key=lambda image: image["path"])}
    return out


def _entry(name: str) -> dict[str, Any]:
    if name not in _sets():
        raise unknown("embedded data set", name, _sets())
    return _sets()[name]
