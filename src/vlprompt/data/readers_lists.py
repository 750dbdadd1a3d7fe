"""Readers of the data sets that bring lists of their own: text files, JSON and MATLAB's ``.mat``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlprompt.data.catalogue import Row
from vlprompt.data.readers_items import Found, Item, divide, hold_out, lines, ruled
from vlprompt.data.samples import PARTS, Part
from vlprompt.errors import DATA, UserError


def pets(row: Row, folder: Path) -> Found:
    """``annotations/trainval.txt`` and ``test.txt``: image, class from 1, species, breed; a fifth of trainval is held out."""

    def items(file: str, part: Part) -> list[Item]:
        out = []
        for number, line in enumerate(lines(folder / "annotations" / file), 1):
            if line.startswith("#"):
                continue
            words = line.split()
            if len(words) != 4 or not words[1].isdecimal():
                raise _bad(folder / "annotations" / file, number, "image, class, species and breed")
            breed = words[0].rpartition("_")[0].lower()
            out.append(Item(f"{row.images[0]}/{words[0]}.jpg", int(words[1]) - 1, breed, part))
        return out

    return _held_out(row, items("trainval.txt", "train"), items("test.txt", "test"))


def cars(row: Row, folder: Path) -> Found:
    """``cars_meta.mat`` and two lists of annotations; the year, last in the name, is put first."""
    meta = _mat(folder / "devkit" / "cars_meta.mat", "class_names")
    names = [" ".join([words[-1], *words[:-1]]) for words in (str(name[0]).split(" ") for name in meta[0])]

    def items(file: Path, images: str, part: Part) -> list[Item]:
        try:
            labels = [(str(one["fname"][0]), int(one["class"][0, 0]) - 1) for one in _mat(file, "annotations")[0]]
            return [Item(f"{images}/{image}", label, names[label], part) for image, label in labels]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{file}: not annotations with fname and a class of cars_meta.mat ({error}).", exit_code=DATA
            ) from error

    train = items(folder / "devkit" / "cars_train_annos.mat", "cars_train", "train")
    return _held_out(row, train, items(folder / "cars_test_annos_withlabels.mat", "cars_test", "test"))


def flowers(row: Row, folder: Path) -> Found:
    """``imagelabels.mat`` (a class from 1 for each image in order) and ``cat_to_name.json``, divided 50/20/30."""
    names = _json(folder / "cat_to_name.json")
    labels = [int(one) for one in _mat(folder / "imagelabels.mat", "labels")[0]]
    nameless = sorted({label for label in labels if str(label) not in names})
    if nameless:
        raise UserError(f"{folder / 'cat_to_name.json'}: no name for the classes {nameless[:5]}.", exit_code=DATA)
    items = [
        Item(f"{row.images[0]}/image_{number:05d}.jpg", label - 1, names[str(label)], "train")
        for number, label in enumerate(labels, 1)
    ]
    return Found(divide(items), notes=[ruled(row)])


def aircraft(row: Row, folder: Path) -> Found:
    """``variants.txt`` and one official list per part: the image's number, then the variant."""
    names = [line.strip() for line in lines(folder / "variants.txt")]
    label_of = {name: label for label, name in enumerate(names)}
    out = []
    for part in PARTS:
        file = folder / f"images_variant_{part}.txt"
        for number, line in enumerate(lines(file), 1):
            image, _, name = line.strip().partition(" ")
            if name not in label_of:
                raise _bad(file, number, "an image's number and a line of variants.txt")
            out.append(Item(f"{row.images[0]}/{image}.jpg", label_of[name], name, part))
    return Found(out)


def sun(row: Row, folder: Path) -> Found:
    """``ClassName.txt`` and the first official partition; ``/b/bank/indoor`` is class "indoor bank"; a fifth is held out."""
    label_of = {line.strip()[1:]: label for label, line in enumerate(lines(folder / "ClassName.txt"))}

    def items(file: str, part: Part) -> list[Item]:
        out = []
        for number, line in enumerate(lines(folder / file), 1):
            image = line.strip()[1:]
            key = image.rpartition("/")[0]
            if key not in label_of:
                raise _bad(folder / file, number, "/letter/class/image.jpg of a class of ClassName.txt")
            out.append(Item(f"{row.images[0]}/{image}", label_of[key], " ".join(key.split("/")[:0:-1]), part))
        return out

    return _held_out(row, items("Training_01.txt", "train"), items("Testing_01.txt", "test"))


def ucf(row: Row, folder: Path) -> Found:
    """The first official list of videos; "ApplyLipstick/v_x.avi" is the middle frame "Apply_Lipstick/v_x.jpg"."""
    place = folder / "ucfTrainTestlist"
    label_of = {}
    for number, line in enumerate(lines(place / "classInd.txt"), 1):
        words = line.split()
        if len(words) != 2 or not words[0].isdecimal():
            raise _bad(place / "classInd.txt", number, "a class from 1 and its name")
        label_of[words[1]] = int(words[0]) - 1

    def items(file: str, part: Part) -> list[Item]:
        out = []
        for number, line in enumerate(lines(place / file), 1):
            action, _, video = line.split()[0].partition("/")
            if action not in label_of:
                raise _bad(place / file, number, "Class/video.avi of a class of classInd.txt")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            out.append(Item(f"{row.images[0]}/{name}/{video.replace('.avi', '.jpg')}", label_of[action], name, part))
        return out

    return _held_out(row, items("trainlist01.txt", "train"), items("testlist01.txt", "test"))


def _held_out(row: Row, train: list[Item], test: list[Item]) -> Found:
    return Found([*hold_out(train), *test], notes=[ruled(row)])


def _mat(path: Path, name: str) -> Any:
    """A variable of a MATLAB file."""
    from scipy.io import loadmat

    try:
        return loadmat(path)[name]
    except KeyError as error:
        raise UserError(f"{path}: there is no {name!r} in it.", exit_code=DATA) from error
    except Exception as error:  # a damaged file makes the reader raise whatever it stumbles over
        raise UserError(f"{path}: not a MATLAB file that can be read ({error}).", exit_code=DATA) from error


def _json(path: Path) -> Mapping[str, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON that can be read ({error}).", exit_code=DATA) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not an object of class -> name.", exit_code=DATA)
    return {str(key): str(name) for key, name in value.items()}


def _bad(path: Path, line: int, expected: str) -> UserError:
    return UserError(f"{path}: line {line} is not {expected}.", exit_code=DATA)
