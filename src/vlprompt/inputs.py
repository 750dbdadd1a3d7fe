"""Pictures, labels and errors of the Python interface: what people hand over, as data sets and samples."""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vlprompt.data import DEFAULT_TEMPLATE, Dataset, Sample, open_dataset, open_image, split_by_rule
from vlprompt.data.folders import has_image_name, hidden
from vlprompt.errors import DATA, UserError

P = ParamSpec("P")
R = TypeVar("R")
CHUNK = 64
"""Pictures that are held at once where they come one by one."""


ImageLike = str | Path | Image.Image | NDArray[Any] | torch.Tensor
"""A path, a PIL image, an array (H, W), (H, W, C) or a tensor (C, H, W); uint8, or float from 0 to 1."""
Data = str | Path | tuple[Sequence[ImageLike], Sequence[Any]] | tuple[Sequence[ImageLike], Sequence[Any], Sequence[str]]
"""A folder, table or pocket set; or (images, labels), or (images, labels, class names) with labels as indices or names."""


def plainly(function: Callable[P, R]) -> Callable[P, R]:
    """A `UserError` comes out with the caller's lines and ours at the door, without the package's insides."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            problem = error.with_traceback(None)
        problem.__cause__, problem.__context__ = None, None
        raise problem

    return called


def of_frame(frame: Any) -> tuple[list[Any], list[Any]]:
    """Images and labels of a frame's columns."""
    missing = [name for name in ("image", "label") if name not in frame.columns]
    if missing:
        raise UserError(
            f"the frame has no column {missing[0]!r}; it has {list(frame.columns)}. Needed: image and label."
        )
    return list(frame["image"]), list(frame["label"])


def listed(X: Any) -> Iterator[Any]:
    """The images one by one: one image, many of them, or the pictures below a folder."""
    if isinstance(X, str | Path) and Path(X).expanduser().is_dir():
        top = Path(X).expanduser()
        found = sorted(
            Path(folder) / file
            for folder, _, files in os.walk(top)
            for file in files
            if has_image_name(file) and not hidden(file)
        )
        if not found:
            raise UserError(f"{X}: there is no image in this folder or below it.", exit_code=DATA)
        yield from found
    elif is_one(X):
        yield X
    else:
        yield from X


def chunks(X: Any) -> Iterator[list[Any]]:
    rest = listed(X)
    while chunk := list(itertools.islice(rest, CHUNK)):
        yield chunk


def as_dataset(data: Data) -> Dataset:
    """A data set by name, or one of images in memory, all of which are training images."""
    if isinstance(data, str | Path):
        return split_by_rule(open_dataset(data))
    images, labels, *rest = data
    given = [str(name) for name in rest[0]] if rest else None
    if given is None and all(isinstance(label, str) for label in labels):
        given = sorted(set(labels))
    if given is None:
        raise UserError(
            "labels that are numbers need class names, since a prompt is made of them: give (images, labels, class names), or "
            "names as labels."
        )
    if len(given) < 2 or len(set(given)) < len(given):
        raise UserError(f"a classifier needs at least two classes with different names; these are {given}.")
    return Dataset(
        name="images in memory",
        class_names=tuple(given),
        template=DEFAULT_TEMPLATE,
        train=samples(images, indices(labels, given)),
    )


def indices(labels: Sequence[Any], class_names: Sequence[str]) -> list[int]:
    """Labels as indices into the class names. UserError for a label that is neither a name nor an index."""
    places = {name: place for place, name in enumerate(class_names)}
    out = []
    for label in labels:
        place = places.get(label, -1) if isinstance(label, str) else int(label)
        if not 0 <= place < len(class_names):
            raise UserError(
                f"label {label!r} is not a class. Allowed: {', '.join(class_names)}, or 0 to {len(class_names) - 1}."
            )
        out.append(place)
    return out


def is_one(images: object) -> bool:
    """One image; an array or tensor of four axes is a batch."""
    return isinstance(images, str | Path | Image.Image) or (
        isinstance(images, np.ndarray | torch.Tensor) and images.ndim < 4
    )


def samples(images: ImageLike | Iterable[ImageLike], labels: Sequence[int]) -> tuple[Sample, ...]:
    """Images of any kind with their labels."""
    items: list[Any] = list(listed(images))
    if len(items) != len(labels):
        raise UserError(f"there are {len(items)} images and {len(labels)} labels; every image needs one.")
    return tuple(_sample(number, image, label) for number, (image, label) in enumerate(zip(items, labels, strict=True)))


def _sample(number: int, image: Any, label: int) -> Sample:
    """A file is read when it is needed; what is in memory is kept as PNG, which loses nothing."""
    if isinstance(image, str | Path):
        return Sample(id=str(image), label=label, source=Path(image).expanduser().read_bytes)
    name = f"image {number}"
    buffer = io.BytesIO()
    open_image(image, name=name).save(buffer, format="PNG", compress_level=1)
    return Sample(id=name, label=label, source=buffer.getvalue)
