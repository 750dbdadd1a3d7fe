"""A picture of a data set with all that its manifest says, for the sets that are built straight from a package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from archive import slug, store, webp
from PIL import Image
from sets import fingerprints


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image: where it belongs, what it shows, whose it is, its file in the package, and its pixels (H, W, 3)."""

    set: str
    label: str
    split: str
    concept: str
    title: str
    hand: str
    source: str
    pixels: np.ndarray
    credit: str = ""
    """The author, where the licence asks for the name."""


def prints(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of pictures of any size, looked at as 64 x 64."""
    small = [np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.LANCZOS)) for p in pictures]
    return fingerprints(np.stack([np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]) for p in small]))


def archive_of(target: Path, facts: dict[str, dict], pictures: list[Picture], *, quality: int | None) -> None:
    """Write one archive; `facts` are what else stands in the manifest of each set: template, description, role."""
    files: dict[str, bytes] = {}
    sets: dict[str, dict] = {
        name: {**entry, "classes": sorted({p.label for p in pictures if p.set == name}, key=str.lower), "images": []}
        for name, entry in facts.items()
    }
    count: dict[str, int] = {}
    for p in pictures:
        place = f"{p.set}/{p.split}/{slug(p.label)}"
        count[place] = count.get(place, -1) + 1
        path = f"{place}/{count[place]:03d}.webp"
        files[path] = webp(p.pixels, quality)
        row = {"path": path, "class": p.label, "split": p.split, "concept": p.concept, "title": p.title}
        row |= {"hand": p.hand, "source": p.source} | ({"credit": p.credit} if p.credit else {})
        sets[p.set]["images"].append(row)
    for entry in sets.values():
        if of := entry.get("domain_of"):
            entry["classes"] = sets[of]["classes"]
        entry["images"].sort(key=lambda row: row["path"])
    store(target, {"schema": 1, "sets": dict(sorted(sets.items()))}, files)
