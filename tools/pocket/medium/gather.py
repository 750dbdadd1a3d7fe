"""Parts of the training pictures: WORK/PART/pixels.npy and facts.json, from WORK of prepare.py and choose.py, and from icons.

python tools/pocket/medium/gather.py drawings WORK
python tools/pocket/medium/gather.py white WORK PART PIXELS.npy FACTS.json     # (N, 64, 64, 3) on white, facts with title and hand
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def alpha_of_white(rgb: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) on white -> (N, S, S, 4): the most transparent picture that looks the same on white."""
    alpha = 255 - rgb.min(-1, keepdims=True).astype(np.float32)
    colour = np.where(alpha > 0, (rgb.astype(np.float32) - (255 - alpha)) * 255 / np.maximum(alpha, 1), 255)
    return np.concatenate([np.rint(colour), alpha], -1).clip(0, 255).astype(np.uint8)


def write(folder: Path, pixels: np.ndarray, facts: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pixels.npy", pixels)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    print(folder.name, len(facts))


def main(kind: str, work: Path, *rest: str) -> None:
    if kind == "drawings":
        drawings = json.loads((work / "drawings.json").read_text(encoding="utf-8"))
        chosen = json.loads((work / "pretrain.json").read_text(encoding="utf-8"))
        pixels = np.load(work / "pixels.npy", mmap_mode="r")[chosen]
        write(work / "drawings", pixels, [drawings[i] for i in chosen])
    else:
        part, pictures, facts = rest
        rows = json.loads(Path(facts).read_text(encoding="utf-8"))
        pixels = np.load(pictures, mmap_mode="r")
        write(
            work / part,
            np.concatenate([alpha_of_white(p) for p in np.array_split(pixels, 1 + len(rows) // 2048)]),
            rows,
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
