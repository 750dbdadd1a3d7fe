"""Pictures with a class for every pixel: Pascal VOC's, COCO-Stuff's and ADE20K's folders as they are published, or plain folders.

A plain one has ``images/NAME.jpg``, ``masks/NAME.png`` and ``classes.txt``: a name per line, of which the pixels hold the number, from 0.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlprompt import reading
from vlprompt.data.folders import has_image_name
from vlprompt.errors import data_error

IGNORED = -1
"""Of a pixel that has no class."""
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The VOC classes in the order of their numbers, from 1 (the VOC development kit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A set of pictures with masks."""

    layout: str
    class_names: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    """(picture, mask), by name."""
    first: int
    """The pixel value of the first class."""

    def labels(self, mask: Path) -> NDArray[np.int64]:
        """(H, W): the class of every pixel; `IGNORED` where the value stands for none. UserError: no mask of one channel."""
        content = reading.data(mask)
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                value_HW = np.array(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
            raise data_error(f"{mask}: no PNG that can be read ({problem}).") from problem
        if value_HW.ndim != 2:
            raise data_error(
                f"{mask}: a mask has one number for every pixel; this one has {value_HW.ndim - 1} channels' axes."
            )
        label_HW = value_HW.astype(np.int64) - self.first
        return np.where((label_HW >= 0) & (label_HW < len(self.class_names)), label_HW, IGNORED)


class _Layout(NamedTuple):
    name: str
    images: str
    masks: str
    first: int
    names: Callable[[Path], tuple[str, ...]]
    listed: str = ""
    """A file with the names of the pictures that have masks; "": every mask's picture."""


def _lines(name: str, parse: Callable[[str], str]) -> Callable[[Path], tuple[str, ...]]:
    def read(folder: Path) -> tuple[str, ...]:
        return tuple(found for line in reading.text(folder / name).splitlines() if (found := parse(line)))

    return read


def _coco(line: str) -> str:
    """``12: street sign`` -> the name; number 0 stands for no class."""
    number, _, name = line.partition(":")
    return "" if number.strip() in ("", "0") else name.strip()


def _ade(line: str) -> str:
    """The last of the tab-separated columns, its first word of several; the head has the title Name."""
    name = line.rstrip("\n").rpartition("\t")[2].split(",")[0].strip()
    return "" if name == "Name" else name


LAYOUTS = (
    _Layout("voc", "JPEGImages", "SegmentationClass", 1, lambda _folder: VOC, "ImageSets/Segmentation/val.txt"),
    _Layout("coco-stuff", "images/val2017", "annotations/val2017", 0, _lines("labels.txt", _coco)),
    _Layout("ade20k", "images/validation", "annotations/validation", 1, _lines("objectInfo150.txt", _ade)),
    _Layout("folders", "images", "masks", 0, _lines("classes.txt", str.strip)),
)
_WANTED = (
    "VOC (JPEGImages, SegmentationClass), COCO-Stuff (images/val2017, annotations/val2017, labels.txt), ADE20K (images/validation, "
    "annotations/validation, objectInfo150.txt), or images, masks and classes.txt"
)


def open_masks(folder: Path) -> Masked:
    """Find the layout of a folder and pair its masks with their pictures. UserError: none of the layouts, a picture that is missing."""
    layout = next((one for one in LAYOUTS if (folder / one.images).is_dir() and (folder / one.masks).is_dir()), None)
    if layout is None:
        raise data_error(f"{folder}: no folder of pictures with masks. Allowed: {_WANTED}.")
    pictures = {one.stem: one for one in sorted((folder / layout.images).iterdir()) if has_image_name(one.name)}
    masks = {one.stem: one for one in sorted((folder / layout.masks).glob("*.png"))}
    wanted = list(masks)
    if layout.listed and (folder / layout.listed).is_file():
        wanted = reading.text(folder / layout.listed).split()
    missing = [name for name in wanted if name not in pictures or name not in masks]
    if missing or not wanted:
        said = f"{len(missing)} lack a picture or a mask: {', '.join(missing[:5])}" if missing else "there is no mask"
        raise data_error(f"{folder}: {said}. A mask and its picture have the same name.")
    names = layout.names(folder)
    if len(names) < 2 or len(set(names)) < len(names):
        raise data_error(f"{folder}: the list of classes has {len(names)} names, {len(set(names))} of them different.")
    pairs = tuple((pictures[name], masks[name]) for name in wanted)
    return Masked(layout=layout.name, class_names=names, pairs=pairs, first=layout.first)
