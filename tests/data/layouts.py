"""Miniatures of the papers' data sets on disk, each in the layout that the field has, with what it must be read as.

What is expected is written out by hand here, from the published code's rules, and not computed by the readers' own code.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.data.make import put

Split = dict[str, list[list[object]]]
NUMBER = 10
"""Images of a class, where nothing else is said."""


@dataclass(frozen=True)
class Expected:
    """What a miniature holds."""

    class_names: tuple[str, ...]
    """In label order, as they stand in a sentence."""
    counts: dict[str, int]
    """Images per part."""
    sample: dict[str, int]
    """Some images (paths below the data set's folder) and their labels."""


Maker = Callable[[Path], Expected]


def write_split(path: Path, parts: Split) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts), encoding="utf-8")


def classes(root: Path, folders: list[str], number: int = NUMBER) -> None:
    for folder in folders:
        for i in range(number):
            put(root / folder / f"image_{i:04}.jpg", f"{root.name}/{folder}/{i}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def caltech(root: Path) -> Expected:
    classes(root / "101_ObjectCategories", ["BACKGROUND_Google", "Faces", "Faces_easy", "airplanes", "sea_horse"])
    return Expected(
        class_names=("face", "airplane", "sea horse"),
        counts={"train": 15, "val": 6, "test": 9},
        sample={
            "101_ObjectCategories/Faces/image_0003.jpg": 0,
            "101_ObjectCategories/airplanes/image_0000.jpg": 1,
            "101_ObjectCategories/sea_horse/image_0009.jpg": 2,
        },
    )


def food(root: Path) -> Expected:
    classes(root / "images", ["apple_pie", "waffles"])
    write(root / "meta/classes.txt", "apple_pie\nwaffles\n")
    return Expected(("apple pie", "waffles"), {"train": 10, "val": 4, "test": 6}, {"images/waffles/image_0000.jpg": 1})


def dtd(root: Path) -> Expected:
    classes(root / "images", ["banded", "zigzagged"], number=7)  # 7: round(3.5) is 4, round(1.4) is 1, 2 are left
    write(root / "images/.directory", "clutter")
    return Expected(("banded", "zigzagged"), {"train": 8, "val": 2, "test": 4}, {"images/banded/image_0006.jpg": 0})


def eurosat(root: Path) -> Expected:
    classes(root / "2750", ["AnnualCrop", "Forest", "SeaLake"])
    return Expected(
        ("Annual Crop Land", "Forest", "Sea or Lake"),
        {"train": 15, "val": 6, "test": 9},
        {"2750/SeaLake/image_0001.jpg": 2},
    )


def pets(root: Path) -> Expected:
    breeds = {"Abyssinian": 1, "american_bulldog": 2}
    lists: dict[str, list[str]] = {"trainval.txt": [], "test.txt": []}
    for breed, label in breeds.items():
        for i in range(15):
            put(root / "images" / f"{breed}_{i}.jpg")
            lists["trainval.txt" if i < 10 else "test.txt"].append(f"{breed}_{i} {label} 1 1")
    for name, rows in lists.items():
        write(root / "annotations" / name, "\n".join(rows) + "\n")
    return Expected(
        ("abyssinian", "american bulldog"),
        {"train": 16, "val": 4, "test": 10},
        {"images/Abyssinian_3.jpg": 0, "images/american_bulldog_14.jpg": 1},
    )


def cars(root: Path) -> Expected:
    names = ["AM General Hummer SUV 2000", "BMW M3 Coupe 2012"]
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for folder, file, number in (
        ("cars_train", "devkit/cars_train_annos.mat", 10),
        ("cars_test", "cars_test_annos_withlabels.mat", 4),
    ):
        rows = [(f"{i + 1:05}.jpg", i % 2 + 1) for i in range(number)]
        for name, _ in rows:
            put(root / folder / name)
        annotations = np.zeros((1, number), dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
        for i, (name, label) in enumerate(rows):
            annotations[0, i] = (np.array([[1]]), np.array([[label]], dtype=np.uint8), name)
        savemat(root / file, {"annotations": annotations})
    return Expected(
        ("2000 AM General Hummer SUV", "2012 BMW M3 Coupe"),
        {"train": 8, "val": 2, "test": 4},
        {"cars_train/00001.jpg": 0, "cars_test/00004.jpg": 1},
    )


def flowers(root: Path) -> Expected:
    labels = [2] * 10 + [1] * 10  # the published code counts images from 1, in the order of the file
    for i in range(len(labels)):
        put(root / "jpg" / f"image_{i + 1:05}.jpg")
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    write(root / "cat_to_name.json", json.dumps({"1": "pink primrose", "2": "hard-leaved pocket orchid"}))
    return Expected(
        ("pink primrose", "hard-leaved pocket orchid"),
        {"train": 10, "val": 4, "test": 6},
        {"jpg/image_00001.jpg": 1, "jpg/image_00011.jpg": 0},
    )


def aircraft(root: Path) -> Expected:
    write(root / "variants.txt", "707-320\nBoeing 717\n")
    number = 0
    for part, per_class in (("train", 3), ("val", 2), ("test", 2)):
        rows = []
        for name in ("Boeing 717", "707-320"):
            for _ in range(per_class):
                number += 1
                put(root / "images" / f"{number:07}.jpg")
                rows.append(f"{number:07} {name}")
        write(root / f"images_variant_{part}.txt", "\n".join(rows) + "\n")
    return Expected(
        ("707-320", "Boeing 717"),
        {"train": 6, "val": 4, "test": 4},
        {"images/0000001.jpg": 1, "images/0000004.jpg": 0},
    )


def sun(root: Path) -> Expected:
    names = ["/a/abbey", "/b/bank/indoor"]
    write(root / "ClassName.txt", "\n".join(names) + "\n")
    for file, first, number in (("Training_01.txt", 0, 5), ("Testing_01.txt", 5, 4)):
        rows = [f"{name}/sun_{i:04}.jpg" for name in names for i in range(first, first + number)]
        for row in rows:
            put(root / "SUN397" / row[1:])
        write(root / file, "\n".join(rows) + "\n")
    return Expected(
        ("abbey", "indoor bank"),
        {"train": 8, "val": 2, "test": 8},
        {"SUN397/a/abbey/sun_0000.jpg": 0, "SUN397/b/bank/indoor/sun_0008.jpg": 1},
    )


def ucf(root: Path) -> Expected:
    write(root / "ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup\n2 YoYo\n")
    for file, first, number in (("trainlist01", 0, 5), ("testlist01", 5, 3)):
        rows = []
        for label, (action, folder) in enumerate((("ApplyEyeMakeup", "Apply_Eye_Makeup"), ("YoYo", "Yo_Yo")), 1):
            for i in range(first, first + number):
                put(root / "UCF-101-midframes" / folder / f"v_{action}_g{i:02}_c01.jpg")
                rows.append(f"{action}/v_{action}_g{i:02}_c01.avi" + (f" {label}" if file == "trainlist01" else ""))
        write(root / f"ucfTrainTestlist/{file}.txt", "\n".join(rows) + "\n")
    return Expected(
        ("Apply Eye Makeup", "Yo Yo"),
        {"train": 8, "val": 2, "test": 6},
        {"UCF-101-midframes/Yo_Yo/v_YoYo_g07_c01.jpg": 1},
    )


WORDNET = {
    "n01440764": "tench",
    "n01443537": "goldfish",
    "n01498041": "stingray",
    "n04355933": "sunglasses",
    "n04356056": "sunglasses",
}
"""As in CLIP's list, two classes of which are called sunglasses."""


def class_names(folder: Path) -> None:
    write(folder / "classnames.txt", "\n".join(f"{key} {name}" for key, name in WORDNET.items()) + "\n")


def imagenet(root: Path) -> Expected:
    classes(root / "images/train", list(WORDNET), 4)
    classes(root / "images/val", list(WORDNET), 2)
    class_names(root)
    return Expected(
        tuple(WORDNET.values()),
        {"train": 20, "val": 0, "test": 10},
        {"images/train/n01443537/image_0001.jpg": 1, "images/val/n04356056/image_0000.jpg": 4},
    )


def v2(root: Path) -> Expected:
    classes(root / "imagenetv2-matched-frequency-format-val", [str(i) for i in range(len(WORDNET))], 2)
    class_names(root)
    return Expected(
        tuple(WORDNET.values()),
        {"train": 0, "val": 0, "test": 10},
        {"imagenetv2-matched-frequency-format-val/2/image_0000.jpg": 2},
    )


def variant(images: str) -> Maker:
    """Sketch, A and R: some of the classes, labels counted among those that are there."""

    def make(root: Path) -> Expected:
        classes(root / images, ["n04355933", "n01443537", "n01498041"], 2)
        write(root / images / "README.txt", "about the classes")
        class_names(root)
        return Expected(
            ("goldfish", "stingray", "sunglasses"),
            {"train": 0, "val": 0, "test": 6},
            {f"{images}/n04355933/image_0001.jpg": 2, f"{images}/n01443537/image_0001.jpg": 0},
        )

    return make


def fashion(root: Path) -> Expected:
    root.mkdir(parents=True, exist_ok=True)
    for name, number in (("train", 20), ("t10k", 10)):
        labels = np.arange(number, dtype=np.uint8) % 10
        images = np.random.default_rng(number).integers(0, 256, (number, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (root / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    return Expected(
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        {"train": 20, "val": 0, "test": 10},  # round(2 / 5) is 0
        {"train-images-idx3-ubyte.gz/13": 3, "t10k-images-idx3-ubyte.gz/9": 9},
    )


MAKERS: dict[str, Maker] = {
    "imagenet": imagenet,
    "caltech101": caltech,
    "oxford_pets": pets,
    "stanford_cars": cars,
    "oxford_flowers": flowers,
    "food101": food,
    "fgvc_aircraft": aircraft,
    "sun397": sun,
    "dtd": dtd,
    "eurosat": eurosat,
    "ucf101": ucf,
    "imagenetv2": v2,
    "imagenet_sketch": variant("images"),
    "imagenet_a": variant("imagenet-a"),
    "imagenet_r": variant("imagenet-r"),
    "fashion_mnist": fashion,
}
"""Data set -> a maker of its folder, without a split file."""
DIRECTORIES = {
    "imagenet": "imagenet",
    "caltech101": "caltech-101",
    "oxford_pets": "oxford_pets",
    "stanford_cars": "stanford_cars",
    "oxford_flowers": "oxford_flowers",
    "food101": "food-101",
    "fgvc_aircraft": "fgvc_aircraft",
    "sun397": "sun397",
    "dtd": "dtd",
    "eurosat": "eurosat",
    "ucf101": "ucf101",
    "imagenetv2": "imagenetv2",
    "imagenet_sketch": "imagenet-sketch",
    "imagenet_a": "imagenet-adversarial",
    "imagenet_r": "imagenet-rendition",
    "fashion_mnist": "fashion-mnist",
}
"""As ``DATASETS.md`` has them."""
PREFIXES = {
    "caltech101": ("split_zhou_Caltech101.json", "101_ObjectCategories"),
    "oxford_pets": ("split_zhou_OxfordPets.json", "images"),
    "stanford_cars": ("split_zhou_StanfordCars.json", ""),
    "oxford_flowers": ("split_zhou_OxfordFlowers.json", "jpg"),
    "food101": ("split_zhou_Food101.json", "images"),
    "sun397": ("split_zhou_SUN397.json", "SUN397"),
    "dtd": ("split_zhou_DescribableTextures.json", "images"),
    "eurosat": ("split_zhou_EuroSAT.json", "2750"),
    "ucf101": ("split_zhou_UCF101.json", "UCF-101-midframes"),
}
"""The split file, and what its paths are relative to."""
