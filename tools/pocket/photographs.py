"""Photographs in the public domain from Debian's `gcompris-qt-data`: a set to ask about, of test images alone.

`photographs.tsv` says what each shows, who made it and its page, as the README of its folder in GCompris does (the package's
copyright file still lists older pictures of the same names). Pictures under other licences are not in it.
"""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pictures import Picture, prints
from PIL import Image
from sets import grouped, near_duplicates

NAME = "photographs"
FACTS = {
    NAME: {
        "template": "a photo of a {}.",
        "description": "Photographs of animals, monuments and tools; to test on only.",
        "role": "test",
    }
}
TABLE = Path(__file__).with_name("photographs.tsv")
SHORT_SIDE = 128
"""Pixels of the shorter side."""


def pictures(package: Path) -> list[Picture]:
    """Every photograph of the table; of nearly equal ones the first."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[str, np.ndarray] = {}
    for activity in sorted({row["file"].split("/")[0] for row in rows}):
        wanted = {row["file"] for row in rows}
        for path, content in resources(package / f"usr/share/gcompris-qt/rcc/{activity}.rcc"):
            key = "/".join((activity, *path.rsplit(".", 1)[0].split("/")[-2:]))
            if key in wanted and path.endswith(".webp"):
                found[key] = _small(content)
    there = [row for row in rows if row["file"] in found]
    pairs = near_duplicates(prints([found[row["file"]] for row in there]), range(len(there)))
    first = {group[0] for group in grouped([[n] for n in range(len(there))], pairs)}
    return [
        Picture(
            set=NAME,
            label=row["class"],
            split="test",
            concept=f"photographs/{row['file']}",
            title=row["class"],
            hand="gcompris",
            source=row["file"],
            credit=f"{row['author']}, {row['page']}",
            pixels=found[row["file"]],
        )
        for n, row in enumerate(there)
        if n in first
    ]


def resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a Qt resource file (formats 1 to 3, plain or zlib)."""
    data = path.read_bytes()
    version, tree, contents, names = struct.unpack(">IIII", data[4:20])
    size = 22 if version >= 2 else 14

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * size
        name_at, flags = struct.unpack(">IH", data[at : at + 6])
        start = names + name_at
        (length,) = struct.unpack(">H", data[start : start + 2])
        here = f"{folder}/{data[start + 6 : start + 6 + 2 * length].decode('utf-16-be')}" if node else folder
        if flags & 2:
            count, first = struct.unpack(">II", data[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, here)
            return
        (offset,) = struct.unpack(">I", data[at + 10 : at + 14])
        (length,) = struct.unpack(">I", data[contents + offset : contents + offset + 4])
        content = data[contents + offset + 4 : contents + offset + 4 + length]
        yield here, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def _small(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
        canvas = Image.new("RGBA", picture.size, "white")
        canvas.alpha_composite(picture.convert("RGBA"))
    scale = SHORT_SIDE / min(canvas.size)
    size = [max(SHORT_SIDE, round(side * scale)) for side in canvas.size]
    return np.asarray(canvas.convert("RGB").resize(size, Image.Resampling.LANCZOS))
