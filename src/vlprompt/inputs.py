"""Pictures, labels and errors of the Python interface: what people hand over, as data sets and samples."""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vlprompt.data import DEFAULT_TEMPLATE, Dataset, Sample, open_dataset, open_image, split_by_rule
from vlprompt.data.folders import DEEPEST, has_image_name, hidden
from vlprompt.errors import UserError, data_error
from vlprompt.types import plain_name

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


def column(frame: Any, name: str) -> list[Any]:
    """The images or labels of a frame."""
    if name not in frame.columns:
        raise UserError(f"the frame has no column {name!r}; it has {list(frame.columns)}. Needed: image and label.")
    return list(frame[name])


def as_frame(images: Sequence[Any], answers: Any, probabilities: Any, labels: Iterable[Any] | None) -> Any:
    """A pandas DataFrame with a row for each image. UserError: pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise UserError("a frame needs pandas, which is not installed: pip install pandas.") from None
    names = [str(one) if isinstance(one, str | Path) else f"image {n}" for n, one in enumerate(images)]
    out = pandas.DataFrame({"image": names, "answer": answers, "probability": probabilities})
    if labels is not None:
        out["label"] = list(labels)
        out["right"] = [
            set(said) == set(one) if isinstance(said, tuple) else said == one
            for said, one in zip(out["answer"], out["label"], strict=True)
        ]
    return out


def listed(X: Any) -> Iterator[Any]:
    """The images one by one: one image, many of them, a frame's, or the pictures below a folder."""
    if hasattr(X, "columns"):
        yield from column(X, "image")
    elif isinstance(X, str | Path) and Path(X).expanduser().is_dir():
        top = Path(X).expanduser()
        found = sorted(
            Path(folder) / file
            for folder, _, files in _walk(top)
            for file in files
            if has_image_name(file) and not hidden(file)
        )
        if not found:
            raise data_error(f"{X}: there is no image in this folder or below it.")
        yield from found
    elif is_one(X):
        yield X
    else:
        yield from X


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, which fails where folders lie too deep in each other."""
    for folder, inside, files in os.walk(top):
        if len(Path(folder).parts) - len(top.parts) >= DEEPEST:
            inside.clear()
        yield folder, inside, files


def chunks(X: Any) -> Iterator[list[Any]]:
    rest = listed(X)
    while chunk := list(itertools.islice(rest, CHUNK)):
        yield chunk


def as_dataset(data: Data) -> Dataset:
    """A data set by name, or one of images in memory, all of which are training images."""
    if isinstance(data, str | Path):
        return split_by_rule(open_dataset(data))
    images, labels, *rest = data
    several = any(isinstance(label, tuple) for label in labels)
    if rest:
        given = names_of(rest[0])
    elif several:
        given = names_of(sorted({name for one in labels for name in one}))
    elif all(isinstance(label, str) for label in labels):
        given = names_of(sorted(set(labels)))
    else:
        raise UserError(
            "labels that are numbers need class names, since a prompt is made of them: give (images, labels, class names), or "
            "names as labels."
        )
    if len(given) < 2:
        raise UserError(f"a classifier needs at least two classes with different names; these are {given}.")
    train = _of_sets(images, labels, given) if several else samples(images, indices(labels, given))
    return Dataset(
        name="images in memory", class_names=tuple(given), template=DEFAULT_TEMPLATE, train=train, several=several
    )


def label_sets(y: Sequence[Any], class_names: Any) -> list[tuple[str, ...]] | None:
    """The names of each image's labels, of lists of names or of rows of 0 and 1 (as scikit-learn's indicator matrix, whose columns are
    `class_names`). None: there is one label for each image."""
    if len(y) and all(
        isinstance(one, list | tuple | set | frozenset) and all(isinstance(n, str) for n in one) for one in y
    ):
        return [tuple(sorted(set(one))) for one in y]
    even = len(y) > 0 and all(np.ndim(one) == 1 and len(one) == len(y[0]) for one in y)
    rows: NDArray[Any] = np.asarray(y) if even else np.zeros(0)
    if rows.ndim != 2 or not np.isin(rows, (0, 1)).all():
        return None
    if class_names is None or isinstance(class_names, Mapping) or len(class_names) != rows.shape[1]:
        raise UserError(
            f"rows of 0 and 1 need class_names, a list with a name for each of the {rows.shape[1]} columns."
        )
    names = np.array(names_of(class_names))
    return [tuple(names[row.astype(bool)].tolist()) for row in rows]


def labelled(X: Any, y: Iterable[Any] | None, words: Any) -> tuple[Data, NDArray[Any] | None]:
    """What `as_dataset` reads of images with their labels, and the labels of the classes where `y` has them. words: class names."""
    if y is None and hasattr(X, "columns"):
        y = column(X, "label")
    if y is None:
        if isinstance(X, str | Path | tuple):
            return X, None
        raise UserError("these are images without labels: call fit(images, labels), or give a folder.")
    images = [X] if is_one(X) else list(listed(X))
    if isinstance(y, str | bytes) or not isinstance(y, Iterable):
        raise UserError(
            f"labels are a list with one for each image; {y!r} is not. With one image write fit([image], [label])."
        )
    y = list(y)
    if unlabelled := [place for place, one in enumerate(y) if _is_missing(one)]:
        raise UserError(
            f"{len(unlabelled)} of {len(y)} images have no label (the first: number {unlabelled[0] + 1}). Label them, or leave them out."
        )
    try:
        if (sets := label_sets(y, words)) is not None:
            return (images, sets, list(words or sorted(set().union(*sets)))), None
        given = np.asarray(y)
        labels, places = np.unique(given, return_inverse=True)
    except UserError:
        raise
    except (TypeError, ValueError):
        raise UserError(
            f"labels are names, whole numbers, or for several of them lists of names. These begin with {y[0]!r}."
        ) from None
    if words is None:
        if given.dtype.kind not in "UO" or not all(isinstance(one, str) for one in labels.tolist()):
            raise UserError(
                "labels that are numbers need class names, since a prompt is made of them: PromptClassifier(class_names=[...]), "
                f"one for each of {labels.tolist()[:9]}, or names as labels."
            )
        names = [str(one) for one in labels]
    elif isinstance(words, Mapping):
        missing = [one for one in labels.tolist() if one not in words]
        if missing:
            raise UserError(f"class_names has no words for {missing[0]!r}. It has: {', '.join(map(repr, words))}.")
        names = [words[one] for one in labels.tolist()]
    elif len(names_of(words)) != len(labels):
        raise UserError(
            f"there are {len(words)} class_names and {len(labels)} labels ({labels.tolist()[:9]}); every label needs one."
        )
    else:
        names = names_of(words)
    return (images, places.reshape(-1).tolist(), names), labels


def _is_missing(label: Any) -> bool:
    """As pandas understands it, which need not be installed."""
    nan = isinstance(label, float | np.floating) and bool(np.isnan(label))
    return label is None or nan or type(label).__name__ in ("NAType", "NaTType")


def _of_sets(images: Sequence[ImageLike], labels: Sequence[Any], names: list[str]) -> tuple[Sample, ...]:
    """Images with several labels each; `label` is the rarest. UserError: an image without a label."""
    counts = Counter(place for one in labels for place in indices(one, names))
    places = [sorted(indices(one, names), key=lambda place: (counts[place], place)) for one in labels]
    if not all(places):
        raise UserError(f"image {places.index([])} has no label. Every image needs one or more.")
    found = samples(images, [own[0] for own in places])
    return tuple(replace(one, also=tuple(own[1:])) for one, own in zip(found, places, strict=True))


def names_of(given: Any) -> list[str]:
    """Class names as people hand them over, in the order of their numbers: a list, ``{0: name}`` or ``{name: 0}``.

    UserError for one text, for anything that is not words, and for two names that read the same.
    """
    if isinstance(given, str):
        parts = [part.strip() for part in given.split(",")]
        raise UserError(f"class names are a list, and this is one text, {given!r}. Give {parts}.")
    if isinstance(given, Mapping):
        given = _numbered(given)
    names = sorted(given) if isinstance(given, set | frozenset) else list(given)
    wrong = [one for one in names if not isinstance(one, str) or not one.strip()]
    if wrong:
        raise UserError(
            f"class names are words, since a prompt is made of them; {wrong[0]!r} is not. Give a list of words."
        )
    seen: dict[str, str] = {}
    for name in map(str, names):
        key = plain_name(name)
        if key in seen:
            raise UserError(f"two class names read the same: {seen[key]!r} and {name!r}. Class names must differ.")
        seen[key] = name
    return [str(name) for name in names]


def asked_names(given: Any) -> list[str] | None:
    """As `names_of`, of classes that pictures are compared with; None: the learned ones. UserError for one alone."""
    names = None if given is None else names_of(given)
    if names is not None and len(names) == 1:
        raise UserError(
            f"there is one class name, {names[0]!r}, which would always have probability 1. Give two or more."
        )
    return names


def _numbered(given: Mapping[Any, Any]) -> list[Any]:
    """The names of ``{0: name}`` (also ``{"0": name}``) or ``{name: 0}`` in the order of their numbers."""
    for numbers, names in ((list(given), list(given.values())), (list(given.values()), list(given))):
        try:
            found = {int(number): name for number, name in zip(numbers, names, strict=True)}
        except (TypeError, ValueError):
            continue
        if sorted(found) == list(range(len(given))) and all(isinstance(name, str) for name in names):
            return [found[number] for number in range(len(given))]
    raise UserError(
        f"class names as a mapping are {{0: name, 1: name, ...}} or {{name: 0, ...}} with the numbers 0 to {len(given) - 1}, each "
        f"once. This one has {list(given.items())[:3]}."
    )


def indices(labels: Sequence[Any], class_names: Sequence[str]) -> list[int]:
    """Labels as indices into the class names. UserError for a label that is neither a name nor a whole number."""
    places = {name: place for place, name in enumerate(class_names)}
    out = []
    for label in labels:
        place = places.get(label, -1) if isinstance(label, str) else _whole(label)
        if not 0 <= place < len(class_names):
            raise UserError(
                f"label {label!r} is not a class. Allowed: {', '.join(class_names)}, or 0 to {len(class_names) - 1}."
            )
        out.append(place)
    return out


def _whole(label: Any) -> int:
    """A label that is a number. UserError for anything else."""
    if np.ndim(label) > 0:
        raise UserError(
            f"a label has {np.size(label)} numbers. Give one number or name per image; of one-hot rows labels.argmax(1)."
        )
    try:
        number = float(label)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise UserError(f"label {label!r} is not a class. Give names, or whole numbers from 0.")
    return int(number)


def is_one(images: object) -> bool:
    """One image; an array or tensor of four axes is a batch, an array of texts or objects is a list."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":
        return False
    return (
        isinstance(images, str | Path | Image.Image | bytes | bytearray)
        or hasattr(images, "read")
        or (isinstance(images, np.ndarray | torch.Tensor) and images.ndim < 4)
    )


def samples(images: ImageLike | Iterable[ImageLike], labels: Sequence[int]) -> tuple[Sample, ...]:
    """Images of any kind with their labels."""
    items: list[Any] = list(listed(images))
    if len(items) != len(labels):
        raise UserError(f"there are {len(items)} images and {len(labels)} labels; every image needs one.")
    return tuple(_sample(number, image, label) for number, (image, label) in enumerate(zip(items, labels, strict=True)))


def _sample(number: int, image: Any, label: int) -> Sample:
    """A file is read when it is needed; what is in memory is kept as PNG, which loses nothing."""
    if isinstance(image, str) and image.split(":", 1)[0] in ("http", "https", "data", "file"):
        raise UserError(
            f"{image[:80]} is an address, and images here are files. Read it first, and give its bytes or a path."
        )
    if isinstance(image, str | Path):
        return Sample(id=str(image), label=label, source=Path(image).expanduser().read_bytes)
    name = f"image {number}"
    if hasattr(image, "read") and not isinstance(image, Image.Image):
        image = image.read()
    if isinstance(image, bytes | bytearray):
        return Sample(id=name, label=label, source=bytes(image).__bytes__)
    buffer = io.BytesIO()
    open_image(image, name=name).save(buffer, format="PNG", compress_level=1)
    return Sample(id=name, label=label, source=buffer.getvalue)
