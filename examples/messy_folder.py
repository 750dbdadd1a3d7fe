"""A messy folder of pictures, to try `vlprompt` on: python examples/messy_folder.py FOLDER

It lays pictures of the embedded set `furniture` down as people's disks have them: folders in folders, six file formats, doubles under
other names and in another class, cut and empty files, a class with one picture, an empty class, a name that is not UTF-8, and notes.
Two calls give the same folder.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image

from vlprompt.data import open_dataset

FORMATS = {"png": "PNG", "jpg": "JPEG", "JPEG": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
PLACES = ("", "from the phone/2024", "scans", "from the phone/copy of 2024")
LIMITS = {3: 6, 5: 1}  # class -> its pictures, where they are few
FOLDERS = {2: "Fauteuil déco", 4: "Dishes_FOOD (old)"}  # class -> the folder's name as somebody wrote it


def main(root: Path) -> None:
    """Writes the folder; it must not be there yet."""
    dataset = open_dataset("furniture")
    names = [FOLDERS.get(number, name) for number, name in enumerate(dataset.class_names[:6])]
    taken = [0] * len(names)
    for sample in (*dataset.train, *dataset.val, *dataset.test):
        label = sample.label
        if label >= len(names) or taken[label] == LIMITS.get(label, 40):
            continue
        number, taken[label] = taken[label], taken[label] + 1
        ending = list(FORMATS)[number % len(FORMATS)]
        place = root / names[label] / PLACES[number % len(PLACES)]
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(sample.read()), formats=["PNG", "JPEG", "WEBP"]) as picture:
            picture.convert("RGB").save(place / f"IMG {number:03}.{ending}", format=FORMATS[ending])
    spoil(root, *(root / name for name in names[:3]))


def spoil(root: Path, first: Path, second: Path, third: Path) -> None:
    """What goes wrong on people's disks."""
    whole = (first / "IMG 000.png").read_bytes()
    (first / "IMG 900.png").write_bytes(whole[: len(whole) // 2])
    (first / "IMG 901.jpg").write_bytes(b"")
    (first / "IMG 902.jpg").write_bytes(b"<html>404 Not Found</html>")
    (first / "IMG 000 (1).png").write_bytes(whole)
    (second / "IMG 903.png").write_bytes(whole)
    (second / "notes.txt").write_text("ask about the prices", encoding="utf-8")
    (second / "Thumbs.db").write_bytes(b"\0" * 512)
    shutil.copy(first / "IMG 000.png", root / "IMG 904.png")
    (root / "to be sorted").mkdir()
    os.rename(third, os.fsencode(root) + b"/" + third.name.encode("latin-1"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
