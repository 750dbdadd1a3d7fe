"""Crops of photographs for the trunk to look at: WORK/photographs/pixels.npy (N, 128, 128, 3), facts.json.

    python tools/pocket/medium/wallpapers.py FOLDER WORK

FOLDER holds unpacked wallpaper packages. Nothing says what a crop shows; the trunk's own answer is the target.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CROPS, LEAST = 128, 64, 0.12
ENDS, FORMATS = {".jpg", ".jpeg", ".png", ".webp"}, ("JPEG", "PNG", "WEBP")


def crops(path: Path, rng: random.Random) -> list[np.ndarray]:
    """Square crops of one picture, from nearly all of its height down to LEAST of it."""
    picture = Image.open(path, formats=FORMATS).convert("RGB")
    picture.thumbnail((1600, 1600))
    short = min(picture.size)
    out = []
    for _ in range(CROPS if short >= 400 else 0):
        side = round(short * LEAST ** rng.random())
        left, top = rng.randint(0, picture.width - side), rng.randint(0, picture.height - side)
        crop = np.asarray(
            picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        )
        if crop.std() > 12:
            out.append(crop)
    return out


def main(folder: Path, work: Path) -> None:
    """Cut all pictures once each; small copies of one picture are passed over by their name."""
    rng, seen, pixels, facts = random.Random(3), set(), [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDS and not p.is_symlink()):
        try:
            with Image.open(path, formats=FORMATS) as picture:
                tiny = picture.copy().convert("L").resize((8, 8))
        except OSError:
            continue
        look = tuple(np.asarray(tiny).flatten() // 32)
        if look in seen:
            continue
        seen.add(look)
        for crop in crops(path, rng):
            pixels.append(crop)
            facts.append({"hand": "photograph", "path": path.relative_to(folder).as_posix()})
    (work / "photographs").mkdir(parents=True, exist_ok=True)
    np.save(work / "photographs" / "pixels.npy", np.stack(pixels))
    (work / "photographs" / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    print(len(seen), "photographs,", len(pixels), "crops")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
