"""The papers' data sets from their folders: the published split file where there is one, else the data set's own lists.

Labels, class names and the order of the images are those of KaiyangZhou/CoOp ``datasets/*.py``. Folders are read in sorted
order; the published code takes the file system's.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlprompt import reading
from vlprompt.data.class_names import read_class_names
from vlprompt.data.folders import children, folder_names, has_image_name
from vlprompt.data.listing import Entry, Listing, some
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import CLASS_NAMES, SetRow
from vlprompt.data.places import Places
from vlprompt.data.samples import PARTS, Part, Skipped, grouped
from vlprompt.errors import UserError, data_error


def read(row: SetRow, folder: Path) -> Listing:
    """All of one of the papers' data sets. UserError: something that it cannot be read without is missing or damaged.

    Images that the lists name and the disk has not are skipped. Numbers that are not the published ones become notes.
    """
    if catalogue.absent(row, folder):
        raise catalogue.not_there(row, row.name, folder)
    split = folder / row.split
    listed = bool(row.split) and split.is_file()
    if not listed and row.reader not in READERS:
        raise UserError(
            f"{row.title} is for pretraining a prompt, not for few-shot learning: `vlprompt pretrain --data DIR` reads it."
        )
    found = from_split(split) if listed else READERS[row.reader](row, folder)
    places = Places(folder, row.prefix if listed else "")
    there: list[Item] = []
    gone: list[Skipped] = []
    for item in found.items:
        path = item.path if found.image else places.find(item.path)
        if path is not None:
            there.append(item._replace(path=path))
        else:
            gone.append(Skipped(f"{places.prefix}/{item.path}".lstrip("/"), "no such file"))
    if listed and not there and gone:
        raise data_error(
            f"{split}: none of its {len(gone)} images are there, the first: {found.items[0].path}. Looked below "
            f"{folder / row.prefix}/. Its paths are relative to that folder: put the images there, or correct the paths."
        )
    keys, names, clash = _classes(found.items)
    entries = tuple(
        Entry(
            id=item.path,
            class_key=keys[item.label],
            part=item.part,
            source=functools.partial(found.image or _read, str(folder), item.path),
        )
        for item in there
    )
    notes = (*found.notes, *places.said, *clash, *differences(row, there, len(keys)))
    return Listing(
        name=row.name,
        class_keys=tuple(keys[label] for label in sorted(keys)),
        own_names=tuple(names[label] for label in sorted(keys)),
        entries=entries,
        skipped=tuple(sorted((*found.skipped, *gone))),
        template=row.template,
        decoding=row.decoding,
        in_order=True,
        notes=tuple(f"{row.title}: {note}" for note in notes),
    )


def differences(row: SetRow, items: Iterable[Item], num_classes: int) -> list[str]:
    """Where numbers of classes and images are not the published ones, a sentence each."""
    counts = Counter(item.part for item in items)
    found = [("classes", num_classes, row.classes)]
    found += [(f"{part} images", counts[part], size or 0) for part, size in zip(PARTS, row.sizes, strict=True)]
    return [
        f"{number:,} {what}; published are {size:,} ({row.sizes_source})."
        for what, number, size in found
        if number != size
    ]


def from_split(path: Path) -> Found:
    """The published split file: ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``; val may be missing."""
    try:
        lists = reading.json_file(path)
        items = [
            Item(str(image), int(label), "" if name is None else str(name), part)
            for part in PARTS
            for image, label, name in (lists.get(part, []) if part == "val" else lists[part])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise data_error(
            f"{path}: not a split file ({type(error).__name__}: {error}). Expected "
            '{"train": [[path, label, class name], ...], "val": [...], "test": [...]}. Fetch it again, or remove it: then the '
            "published rule divides the images."
        ) from error
    return Found(items)


def class_folders(row: SetRow, folder: Path) -> Found:
    """``IMAGES/class/image``, divided 50/20/30: DTD, EuroSAT, Caltech101, Food101."""
    images = row.images[0]
    skipped: list[Skipped] = []
    classes = [name for name in folder_names(folder / images) if name not in row.ignored]
    items = [
        Item(path, label, row.renamed.get(name, name), "train")
        for label, name in enumerate(classes)
        for path in _images(folder, f"{images}/{name}", skipped)
    ]
    return Found(divide(items, DIVIDED, "test"), skipped, [ruled(row)])


def imagenet(row: SetRow, folder: Path) -> Found:
    """``images/train/nXXXXXXXX/``, and ``images/val/`` for testing; there are no separate validation images.

    The classes are the folders of train; those of val that train has not are left out.
    """
    names = _class_names(folder)
    skipped: list[Skipped] = []
    train, val = row.images
    keys = folder_names(folder / train)
    more = sorted(set(folder_names(folder / val)) - set(keys))
    items = _wordnet_items(folder, train, keys, names, "train", skipped)
    items += _wordnet_items(folder, val, [key for key in keys if key not in more], names, "test", skipped)
    notes = [f"{len(more)} class folders of {val} are not in {train}, and are left out: {some(more)}."] if more else []
    return Found(items, skipped, notes)


def wordnet(row: SetRow, folder: Path) -> Found:
    """Class folders called after WordNet ids, for testing only; labels count the folders that are there, sorted."""
    images = row.images[0] if (folder / row.images[0]).is_dir() else "."
    skipped: list[Skipped] = []
    keys = folder_names(folder / images)
    return Found(_wordnet_items(folder, images, keys, _class_names(folder), "test", skipped), skipped)


def numbered(row: SetRow, folder: Path) -> Found:
    """ImageNetV2: class folders called 0 to 999, numbers of the lines of ``classnames.txt``."""
    names = list(_class_names(folder).values())
    images = row.images[0] if (folder / row.images[0]).is_dir() else "."
    skipped: list[Skipped] = []
    items: list[Item] = []
    numbers = {key: reading.whole(key) for key in folder_names(folder / images)}
    for key, label in sorted(((key, one) for key, one in numbers.items() if one is not None), key=lambda pair: pair[1]):
        if label >= len(names):
            raise data_error(f"{folder}: the class folder {key} has no line in {CLASS_NAMES}, which has {len(names)}.")
        items += [Item(path, label, names[label], "test") for path in _images(folder, f"{images}/{key}", skipped)]
    return Found(items, skipped)


def _wordnet_items(
    folder: Path, images: str, keys: Sequence[str], names: Mapping[str, str], part: Part, skipped: list[Skipped]
) -> list[Item]:
    """The images of class folders. Labels follow `keys`, the same for every part, whichever folders a part has."""
    there = set(folder_names(folder / images))
    if not there and any(has_image_name(child.name) for child in children(folder / images)):
        raise data_error(
            f"{folder}: images lie directly in {images}/. Sort them into class folders (n01440764/, ...), as train has them."
        )
    nameless = [key for key in keys if not names.get(key)]
    if nameless:
        raise data_error(f"{folder}: {len(nameless)} class folders have no name in {CLASS_NAMES}: {some(nameless)}.")
    return [
        Item(path, label, names[key], part)
        for label, key in enumerate(keys)
        if key in there
        for path in _images(folder, key if images == "." else f"{images}/{key}", skipped)
    ]


def _class_names(folder: Path) -> dict[str, str]:
    """WordNet id -> class name of ``classnames.txt``, in the order of its lines; of synonyms with commas the first."""
    path = next(one for one in catalogue.class_names_files(folder) if one.is_file())
    return {key: names.split(",")[0].strip() for key, names in read_class_names(path).items()}


def _classes(items: Iterable[Item]) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """Label -> a key that no other label has; label -> name; and what is odd about them. UserError: a label with two names."""
    first: dict[int, Item] = {}
    for item in items:
        other = first.setdefault(item.label, item)
        if other.name != item.name or not item.name.strip():
            raise data_error(
                f"label {item.label} is called {other.name!r} ({other.path}, {other.part}) and {item.name!r} ({item.path}, {item.part}). "
                "A label must have one name everywhere, since answers are compared by it. Correct the split file or list."
                if item.name.strip()
                else f"{item.path}: its class (label {item.label}) has no name. Give it one in the split file or list."
            )
    names = {label: item.name for label, item in first.items()}
    counts = Counter(names.values())
    keys = {label: name if counts[name] == 1 else f"{name} ({label})" for label, name in names.items()}
    double = [name for name, count in counts.items() if count > 1]
    odd = [f"several classes have one name, which no text can tell apart: {some(double)}."] if double else []
    return keys, names, odd


def _images(folder: Path, inside: str, skipped: list[Skipped]) -> list[str]:
    """The paths of the images in a class folder, sorted by name; what is not an image is listed as skipped."""
    found = []
    for child in children(folder / inside):
        path = child.name if inside == "." else f"{inside}/{child.name}"
        if has_image_name(child.name):
            found.append(path)
        else:
            skipped.append(Skipped(path, "not an image file"))
    return found


def _read(folder: str, path: str) -> bytes:
    return Path(folder, path).read_bytes()


def pets(row: SetRow, folder: Path) -> Found:
    """``annotations/trainval.txt`` and ``test.txt``: image, class from 1, species, breed; a fifth of trainval is held out."""

    def named(line: str) -> tuple[str, int, str] | None:
        words = line.split()
        if len(words) != 4 or reading.whole(words[1]) is None:
            return None
        return f"{words[0]}.jpg", int(words[1]) - 1, words[0].rpartition("_")[0].lower()

    def items(file: str, part: Part) -> list[Item]:
        place = folder / "annotations" / file
        return _listed(row, place, part, "image, class, species and breed", named, comment="#")

    return _held_out(row, items("trainval.txt", "train"), items("test.txt", "test"))


def cars(row: SetRow, folder: Path) -> Found:
    """``cars_meta.mat`` and two lists of annotations; the year, last in the name, is put first."""
    meta = _mat(folder / "devkit" / "cars_meta.mat", "class_names")
    names = [" ".join([words[-1], *words[:-1]]) for words in (str(name[0]).split(" ") for name in meta[0])]

    def items(file: Path, images: str, part: Part) -> list[Item]:
        try:
            labels = [(str(one["fname"][0]), int(one["class"][0, 0]) - 1) for one in _mat(file, "annotations")[0]]
            return [Item(f"{images}/{image}", label, names[label], part) for image, label in labels]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise data_error(f"{file}: not annotations with fname and a class of cars_meta.mat ({error}).") from error

    train = items(folder / "devkit" / "cars_train_annos.mat", "cars_train", "train")
    return _held_out(row, train, items(folder / "cars_test_annos_withlabels.mat", "cars_test", "test"))


def flowers(row: SetRow, folder: Path) -> Found:
    """``imagelabels.mat`` (a class from 1 for each image in order) and ``cat_to_name.json``, divided 50/20/30."""
    names = reading.json_object(folder / "cat_to_name.json")
    labels = [int(one) for one in _mat(folder / "imagelabels.mat", "labels")[0]]
    nameless = sorted({label for label in labels if str(label) not in names})
    if nameless:
        raise data_error(f"{folder / 'cat_to_name.json'}: no name for the classes {nameless[:5]}.")
    items = [
        Item(f"{row.images[0]}/image_{number:05d}.jpg", label - 1, str(names[str(label)]), "train")
        for number, label in enumerate(labels, 1)
    ]
    return Found(divide(items, DIVIDED, "test"), notes=[ruled(row)])


def aircraft(row: SetRow, folder: Path) -> Found:
    """``variants.txt`` and one official list per part: the image's number, then the variant."""
    label_of = {line: label for label, line in enumerate(lines(folder / "variants.txt"))}

    def named(line: str) -> tuple[str, int, str] | None:
        image, _, name = line.partition(" ")
        return (f"{image}.jpg", label_of[name], name) if name in label_of else None

    expected = "an image's number and a line of variants.txt"
    parts = [_listed(row, folder / f"images_variant_{part}.txt", part, expected, named) for part in PARTS]
    return Found([item for part in parts for item in part])


def sun(row: SetRow, folder: Path) -> Found:
    """``ClassName.txt`` and the first official partition; ``/b/bank/indoor`` is class "indoor bank"; a fifth is held out."""
    label_of = {line[1:]: label for label, line in enumerate(lines(folder / "ClassName.txt"))}

    def named(line: str) -> tuple[str, int, str] | None:
        key = line[1:].rpartition("/")[0]
        return (line[1:], label_of[key], " ".join(key.split("/")[:0:-1])) if key in label_of else None

    def items(file: str, part: Part) -> list[Item]:
        return _listed(row, folder / file, part, "/letter/class/image.jpg of a class of ClassName.txt", named)

    return _held_out(row, items("Training_01.txt", "train"), items("Testing_01.txt", "test"))


def ucf(row: SetRow, folder: Path) -> Found:
    """The first official list of videos; "ApplyLipstick/v_x.avi" is the middle frame "Apply_Lipstick/v_x.jpg"."""
    place = folder / "ucfTrainTestlist"
    label_of = {}
    for number, line in numbered_lines(place / "classInd.txt"):
        words = line.split()
        if len(words) != 2 or reading.whole(words[0]) is None:
            raise _bad(place / "classInd.txt", number, "a class from 1 and its name")
        label_of[words[1]] = int(words[0]) - 1

    def named(line: str) -> tuple[str, int, str] | None:
        action, _, video = line.split()[0].partition("/")
        name = "_".join(re.findall("[A-Z][^A-Z]*", action))
        return (f"{name}/{video.replace('.avi', '.jpg')}", label_of[action], name) if action in label_of else None

    def items(file: str, part: Part) -> list[Item]:
        return _listed(row, place / file, part, "Class/video.avi of a class of classInd.txt", named)

    return _held_out(row, items("trainlist01.txt", "train"), items("testlist01.txt", "test"))


BYTES, MOST_BYTES = 8, 1 << 30


@functools.lru_cache(maxsize=4)
def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a file in MNIST's layout, gzipped: images (N, height, width) or labels (N,). UserError: not such a file.

    The layout: two zero bytes, one that names the type (8: bytes), one with the number of axes, a big-endian 32-bit length of each
    axis, the values (the MNIST page; zalandoresearch/fashion-mnist utils/mnist_reader.py).
    """
    try:
        with gzip.open(path) as file:
            kind, axes = file.read(4)[2:]
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            wanted = math.prod(shape)
            data = file.read(wanted + 1) if axes in (1, 3) and wanted <= MOST_BYTES else b""
    except (OSError, ValueError, EOFError, zlib.error, IndexError, struct.error) as error:
        raise data_error(f"{path}: cannot be read ({error}). Fetch it again.") from error
    if kind != BYTES or len(data) != wanted:
        raise data_error(f"{path}: not a file of {wanted:,} bytes in {shape}. Fetch it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_image(folder: str, path: str) -> bytes:
    """Image number n of a file as a PNG; `path` is ``FILE/n``."""
    file, _, number = path.rpartition("/")
    out = io.BytesIO()
    Image.fromarray(read_idx(Path(folder, file))[int(number)]).save(out, "PNG")
    return out.getvalue()


FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""Label 0 to 9 of Fashion-MNIST: its README's names in lower case, the first ("T-shirt/top") cut short."""


def fashion(row: SetRow, folder: Path) -> Found:
    """Four files of arrays; the official test images, and a fifth of the others for validation."""
    items: dict[Part, list[Item]] = {"train": [], "test": []}
    parts: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "t10k"))
    for part, name in parts:
        images, labels = f"{name}-images-idx3-ubyte.gz", read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
        if len(read_idx(folder / images)) != len(labels) or labels.max(initial=0) >= len(FASHION):
            raise data_error(f"{folder}: {images} and its labels (0 to 9) do not belong together.")
        items[part] = [Item(f"{images}/{n}", int(k), FASHION[k], part) for n, k in enumerate(labels)]
    note = (
        "a fifth of the 60,000 published training images is held out for validation: this project's choice of images."
    )
    return Found([*divide(items["train"], HELD_OUT, "train"), *items["test"]], notes=[note], image=idx_image)


def _listed(
    row: SetRow,
    path: Path,
    part: Part,
    expected: str,
    named: Callable[[str], tuple[str, int, str] | None],
    comment: str | None = None,
) -> list[Item]:
    """The items of a list, one a line. `named`: a line's image, label and class name; None: the line is not as `expected`."""
    out = []
    for number, line in numbered_lines(path):
        if comment is None or not line.startswith(comment):
            if (found := named(line)) is None:
                raise _bad(path, number, expected)
            image, label, name = found
            out.append(Item(f"{row.images[0]}/{image}", label, name, part))
    return out


def _held_out(row: SetRow, train: list[Item], test: list[Item]) -> Found:
    return Found([*divide(train, HELD_OUT, "train"), *test], notes=[ruled(row)])


def _mat(path: Path, name: str) -> Any:
    """A variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        return loadmat(path)[name]
    except KeyError as error:
        raise data_error(f"{path}: there is no {name!r} in it.") from error
    except Exception as error:  # a damaged file makes the reader raise whatever it stumbles over
        raise data_error(f"{path}: not a MATLAB file that can be read ({error}).") from error


def _bad(path: Path, line: int, expected: str) -> UserError:
    return data_error(f"{path}: line {line} is not {expected}.")


HELD_OUT: dict[Part, float] = {"val": 0.2}
DIVIDED: dict[Part, float] = {"train": 0.5, "val": 0.2}
"""Shares of every class, as published: of training images without validation images, and of a data set that has no parts."""


class Item(NamedTuple):
    """One image as a data set's lists name it."""

    path: str
    """Relative to the data set's folder, with ``/``."""
    label: int
    name: str
    """The class name as the published code writes it."""
    part: Part


class Found(NamedTuple):
    """What a reader makes of a folder."""

    items: Sequence[Item]
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()
    image: Callable[[str, str], bytes] | None = None
    """Gives an image by folder and path, where images are not files."""


def divide(items: Iterable[Item], shares: Mapping[Part, float], rest: Part) -> list[Item]:
    """Round(share * n) of the n images of every class to each part, and what is left to `rest`.

    Which images: in order of the SHA-256 of their paths (project's choice; the published code shuffles with the run's generator what
    the file system lists, once per machine).
    """
    out: list[Item] = []
    for members in grouped(items, lambda item: item.label).values():
        parts = [part for part, share in shares.items() for _ in range(round(len(members) * share))]
        mixed = sorted(
            members, key=lambda item: hashlib.sha256(item.path.encode("utf-8", "surrogateescape")).hexdigest()
        )
        parts += [rest] * (len(members) - len(parts))
        out += [item._replace(part=part) for item, part in zip(mixed, parts, strict=True)]
    return out


def ruled(row: SetRow) -> str:
    """The note on a data set that the rule has divided."""
    return (
        f"there is no {row.split}, so the images are divided by the published rule; which image goes where is then this project's "
        "choice, and results are not comparable image by image."
    )


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, and their numbers in the file. UserError where it cannot be read."""
    return [(number, line.strip()) for number, line in enumerate(reading.text(path).splitlines(), 1) if line.strip()]


def lines(path: Path) -> list[str]:
    return [line for _, line in numbered_lines(path)]


READERS: dict[str, Callable[[SetRow, Path], Found]] = {
    "folders": class_folders,
    "imagenet": imagenet,
    "wordnet": wordnet,
    "numbered": numbered,
    "pets": pets,
    "cars": cars,
    "flowers": flowers,
    "aircraft": aircraft,
    "sun": sun,
    "ucf": ucf,
    "idx": fashion,
}
