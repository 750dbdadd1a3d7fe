"""A part of Fashion-MNIST, from Debian's `dataset-fashion-mnist`: its published split, and fewer images of each class."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from pictures import Picture

NAME = "fashion"
FACTS = {NAME: {"template": "a photo of a {}.", "description": "Photographs of clothes: a part of Fashion-MNIST."}}
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""In the order of the labels; the published names in lower case, without '/top'."""
PARTS = {"train": ("train", 0, 32), "val": ("train", 32, 40), "test": ("t10k", 0, 300)}
"""Split -> the published part, and which of each class's images in the order of the file. Nothing is left out: what the split's
authors thought of as independent is taken as it is, though many shoes look alike."""


def pictures(folder: Path) -> list[Picture]:
    """The first images of each class."""
    out = []
    for split, (part, start, stop) in PARTS.items():
        images, labels = (read(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        for label, name in enumerate(CLASSES):
            for i in np.flatnonzero(labels == label)[start:stop]:
                out.append(
                    Picture(
                        set=NAME,
                        label=name,
                        split=split,
                        concept=f"fashion/{part}/{i}",
                        title=name.lower(),
                        hand="zalando",
                        source=f"{part}-images-idx3-ubyte.gz/{i}",
                        pixels=np.repeat(images[i][..., None], 3, axis=2),
                    )
                )
    return out


def read(path: Path) -> np.ndarray:
    """The array of a gzipped IDX file of bytes."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
