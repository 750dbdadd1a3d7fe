"""Run the trunk once over every training picture and a few views of it; training reads what it gives.

    python tools/pocket/medium/cells.py LITE0.pth WORK PART=VIEWS...

A PART is a folder WORK/PART with pixels.npy, (N, 64, 64, 4) drawings or (N, 128, 128, 3) photographs. It receives cells.npy,
(N, views, 16, 320) float16, and looks.json: what was done to each view. View 0 is the picture as the tests show it.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from trunk import CHANNELS, SIDE, TOKENS, Lite0

sys.path.insert(0, str(Path(__file__).parents[1]))
from batches import MEAN, STD, augment
from looks import STYLE_WORDS, draw_look
from sources import on_white

STYLE = {hand: hand for hand in STYLE_WORDS}
"""Hands whose style has words; the others pass for the roundest, and are not claimed to be it."""
CHUNK = 64


def plain(pixels: np.ndarray) -> torch.Tensor:
    """(B, 64, 64, 4) or (B, 128, 128, 3) uint8 -> (B, 3, 128, 128) in [0, 1], enlarged as the tests' pictures are."""
    rgb = on_white(pixels) if pixels.shape[-1] == 4 else pixels
    big = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in rgb]
    return torch.from_numpy(np.stack(big)).permute(0, 3, 1, 2).float() / 255


def shown(pixels: np.ndarray, hands: list[str], seed: int) -> tuple[torch.Tensor, list[dict]]:
    """One view at random of each picture, and its look."""
    rng, generator = random.Random(f"look {seed}"), torch.Generator().manual_seed(seed)
    looks = [draw_look(STYLE.get(hand, "noto"), rng) for hand in hands]
    rgba = torch.from_numpy(pixels)
    if rgba.shape[-1] == 3:
        rgba = torch.cat([rgba, torch.full_like(rgba[..., :1], 255)], -1)
    x = augment(rgba, looks, SIDE, generator)
    x = x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return x, [asdict(look) for look in looks]


def main(lite0: Path, work: Path, part: str, count: int) -> None:
    """Write the cells of one part, going on after the last whole chunk."""
    folder, trunk = work / part, Lite0.read(lite0)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    hands = [f["hand"] for f in json.loads((folder / "facts.json").read_text(encoding="utf-8"))]
    done = folder / "cells.npy"
    shape = (len(pixels), count, TOKENS, CHANNELS)
    log = folder / "looks.jsonl"
    start = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    cells = open_memmap(done, mode="r+" if start else "w+", dtype=np.float16, shape=shape)
    for number, first in enumerate(range(0, len(pixels), CHUNK)):
        if number < start:
            continue
        some, who = np.array(pixels[first : first + CHUNK]), hands[first : first + CHUNK]
        views, looks = [plain(some)], []
        for view in range(1, count):
            x, seen = shown(some, who, number * count + view)
            views.append(x)
            looks.append(seen)
        with torch.autocast("cpu", torch.bfloat16):
            for view, x in enumerate(views):
                cells[first : first + CHUNK, view] = trunk.cells(x).float().numpy()
        with log.open("a", encoding="utf-8") as out:
            out.write(json.dumps(looks) + "\n")


if __name__ == "__main__":
    for one in sys.argv[3:]:
        name, views = one.split("=")
        main(Path(sys.argv[1]), Path(sys.argv[2]), name, int(views))
