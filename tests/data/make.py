"""Pictures and folders for the tests of the data."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vlprompt.data import Dataset, Sample
from vlprompt.types import Preprocess

PLAIN = Preprocess(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def noise(seed: int | str, width: int = 12, height: int = 10) -> Image.Image:
    """A random picture, the same for the same seed."""
    number = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little")
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, seed: int | str | None = None) -> Path:
    """Write a small picture; its content follows from its path unless a seed is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(str(path) if seed is None else seed)))
    return path


def folder(root: Path, counts: dict[str, int]) -> Path:
    """Class folders with so many pictures each; a key may be ``train/cat``."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            put(root / name / f"{number:02}.png", f"{name}/{number}")
    return root


def sample(id: str, label: int = 0, data: bytes | None = None) -> Sample:
    content = encoded(noise(id)) if data is None else data
    return Sample(id=id, label=label, source=lambda: content, size=len(content))


def dataset(train: dict[str, int], val: dict[str, int] | None = None, test: dict[str, int] | None = None) -> Dataset:
    """A data set in memory: images per class."""
    names = tuple(train)

    def part(kind: str, counts: dict[str, int]) -> tuple[Sample, ...]:
        return tuple(sample(f"{kind}/{n}/{i}", names.index(n)) for n, count in counts.items() for i in range(count))

    return Dataset(
        name="made",
        class_names=names,
        train=part("train", train),
        val=part("val", val or {}),
        test=part("test", test or {}),
    )
