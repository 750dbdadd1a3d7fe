"""Folders of made-up images for all tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Shade = tuple[int, int, int]


def write_squares(
    root: Path,
    shades: Mapping[str, Shade | None],
    parts: Mapping[str, int],
    *,
    seed: int = 0,
    noise: int = 70,
    size: tuple[int, int] = (36, 44),
    called: str = "{i}.png",
) -> Path:
    """PART/CLASS/i.png: noisy squares in the shade of their class (None: noise alone). parts: images of a class; size: (height, width)."""
    rng = np.random.RandomState(seed)
    for part, number in parts.items():
        for name, shade in shades.items():
            place = root / part / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                base, low, high = ((0, 0, 0), 0, 255) if shade is None else (shade, -noise, noise)
                pixels = np.clip(np.array(base) + rng.randint(low, high, (*size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / called.format(i=i, name=name))
    return root
