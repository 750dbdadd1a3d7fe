"""Folders as people have them: parts under many names, archives in folders, WordNet ids, a class that a part lacks."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.make import folder, put
from vlprompt.data import Dataset, open_dataset
from vlprompt.data.papers import catalogue
from vlprompt.data.samples import part_of
from vlprompt.errors import UserError

KEYS = ("n01440764", "n01443537", "n01484850")
NAMES = ("tench", "goldfish", "great white shark")


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.val), len(dataset.test)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_data", "test_data"),
        ("trainset", "testset"),
        ("Train-Images", "Test-Images"),
        ("ILSVRC_train", "ILSVRC_test"),
        ("archive/train", "archive/test"),
        ("a/b/Training", "a/b/Testing"),
        ("train/images", "test/images"),
    ],
)
def test_parts_under_other_names(tmp_path: Path, train: str, test: str) -> None:
    folder(tmp_path, {f"{train}/cat": 3, f"{train}/dog": 3, f"{test}/cat": 2, f"{test}/dog": 2})
    dataset = open_dataset(tmp_path)
    assert (dataset.class_names, sizes(dataset)) == (("cat", "dog"), (6, 0, 4))


@pytest.mark.parametrize("val", ["val", "validation-set", "dev", "ILSVRC_val"])
def test_without_a_test_folder_the_validation_images_are_tested_on(tmp_path: Path, val: str) -> None:
    folder(tmp_path, {"train/cat": 3, "train/dog": 3, f"{val}/cat": 2, f"{val}/dog": 2})
    dataset = open_dataset(tmp_path)
    assert sizes(dataset) == (6, 0, 4)
    assert "accuracy is measured on the validation images" in dataset.notes[0]


def test_names_of_things_are_no_parts() -> None:
    for name in ("bullet train", "test tube", "trains", "valley", "latest", "crash_test_dummy", "device", "set", ""):
        assert part_of(name) is None, name


@pytest.mark.parametrize(("first", "second"), [("learning", "checking"), ("fold1", "fold2"), ("photo", "sketch")])
def test_folders_that_hold_the_same_folders_are_asked_about(tmp_path: Path, first: str, second: str) -> None:
    folder(tmp_path, {f"{part}/{name}": 2 for part in (first, second) for name in ("cat", "dog")})
    with pytest.raises(UserError, match=r"hold the same folders \(cat, dog\).*Are they train/ and test/"):
        open_dataset(tmp_path)


def test_classes_with_one_folder_each_inside_are_classes(tmp_path: Path) -> None:
    folder(tmp_path, {"cat/images": 3, "dog/images": 3, "cow/images": 3})
    assert open_dataset(tmp_path).class_names == ("cat", "cow", "dog")


def test_a_test_folder_without_labels_is_left_out(tmp_path: Path) -> None:
    folder(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1, "test": 2})
    dataset = open_dataset(tmp_path)
    assert sizes(dataset) == (6, 0, 2)
    assert "test/ holds images without class folders" in dataset.notes[0]


def imagenet(root: Path, train: str = "images/train", val: str = "images/val", lines: str = "") -> Path:
    for key in KEYS:
        for number in range(3):
            put(root / train / key / f"{key}_{number}.jpg")
        put(root / val / key / f"val_{key}.jpg")
    lines = lines or "".join(f"{key} {name}\n" for key, name in zip(KEYS, NAMES, strict=True))
    (root / "classnames.txt").write_bytes(lines.encode())
    return root


@pytest.mark.parametrize(
    "lines",
    [
        "\ufeff" + "".join(f"{key} {name}\r\n" for key, name in zip(KEYS, NAMES, strict=True)),
        "".join(f"{key}\t{name}, Tinca tinca\n" for key, name in zip(KEYS, NAMES, strict=True)),
        "".join(f"{key} {name}\n" for key, name in zip(KEYS[::-1], NAMES[::-1], strict=True)),
    ],
)
@pytest.mark.parametrize("places", [("images/train", "images/val"), ("train", "val")])
def test_wordnet_ids_are_read_by_the_names_beside_them(tmp_path: Path, lines: str, places: tuple[str, str]) -> None:
    dataset = open_dataset(imagenet(tmp_path / "imagenet", *places, lines=lines))
    assert dataset.class_names == NAMES
    assert sizes(dataset) == (9, 0, 3)


def labels_by_key(dataset: Dataset) -> set[tuple[str, str]]:
    every = (*dataset.train, *dataset.val, *dataset.test)
    return {(key, dataset.class_names[one.label]) for one in every for key in KEYS if key in one.id}


@pytest.mark.parametrize("lost", ["images/val/n01443537", "images/train/n01443537"])
def test_a_part_that_lacks_a_class_shifts_no_label(tmp_path: Path, lost: str) -> None:
    root = imagenet(tmp_path / "imagenet")
    shutil.rmtree(root / lost)
    dataset = open_dataset(root)
    kept = [0, 2] if "train" in lost else [0, 1, 2]
    assert dataset.class_names == tuple(NAMES[label] for label in kept)
    assert labels_by_key(dataset) == {(KEYS[label], NAMES[label]) for label in kept}


def test_images_that_were_never_sorted_are_said_to_be_so(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "imagenet")
    shutil.rmtree(root / "images/val")
    put(root / "images/val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match=r"images lie directly in images/val/. Sort them into class folders"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("00000", "00001", "00014"), "these have none: 00000"),
        (("n01440764", "n02102040"), "these have none: n01440764"),
        (("001.Black_footed_Albatross", "002.Laysan_Albatross"), "number and all: 001.Black footed Albatross"),
        (("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), "number and all: n02085620-Chihuahua"),
        (("00000_Animalia_Annelida", "00001_Animalia_Annelida"), "number and all"),
    ],
)
def test_names_that_are_no_words_are_noted(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    folder(tmp_path, dict.fromkeys(names, 3))
    assert said in " ".join(open_dataset(tmp_path).notes)
    lines = "".join(f"{name} thing {n}\n" for n, name in enumerate(names))
    (tmp_path / "classnames.txt").write_text(lines, encoding="utf-8")
    if said.startswith("these have none"):
        assert open_dataset(tmp_path).class_names == tuple(f"thing {n}" for n in range(len(names)))


def split_of(root: Path, change: Callable[[str, int, str], list[object]] | None = None, **other: object) -> Path:
    row = catalogue.get("caltech101")
    place = root / row.directory
    layouts.classes(place / row.prefix, ["cat", "dog"], 6)
    rows = [(f"{name}/image_{n:04}.jpg", label, name) for label, name in enumerate(("cat", "dog")) for n in range(6)]
    changed = [change(*row) if change else list(row) for row in rows]
    parts = {"train": changed[::2], "val": [], "test": changed[1::2]} | other
    (place / row.split).write_text(json.dumps(parts), encoding="utf-8")
    return place


def test_a_label_has_one_name_in_a_split_file(tmp_path: Path) -> None:
    place = split_of(tmp_path, test=[["cat/image_0001.jpg", 1, "cat"], ["dog/image_0001.jpg", 0, "dog"]])
    with pytest.raises(UserError, match=r"label 1 is called 'dog' .* and 'cat' .* must have one name"):
        open_dataset(place)
    for empty in ("", None):
        place = split_of(
            tmp_path / str(empty), lambda path, label, key, empty=empty: [path, label, empty if label else key]
        )
        with pytest.raises(UserError, match="has no name"):
            open_dataset(place)
    assert Counter(one.label for one in open_dataset(split_of(tmp_path / "sound")).test) == {0: 3, 1: 3}


@pytest.mark.parametrize(
    "written",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: f"101_ObjectCategories/{path}",
        lambda path: f"/mnt/hdd/data/caltech-101/101_ObjectCategories/{path}",
        lambda path: f"D:\\data\\{path}",
        lambda path: path.replace(".jpg", ".JPG"),
        lambda path: f"./{path}",
    ],
)
def test_paths_of_a_split_file_are_read_as_they_are_meant(tmp_path: Path, written: Callable[[str], str]) -> None:
    plain = open_dataset(split_of(tmp_path / "plain"))
    dataset = open_dataset(split_of(tmp_path / "other", lambda path, label, name: [written(path), label, name]))
    assert [(one.id, one.label) for one in dataset.test] == [(one.id, one.label) for one in plain.test]
    assert not dataset.skipped


def test_a_split_file_without_its_images_or_without_validation(tmp_path: Path) -> None:
    lost = split_of(tmp_path / "lost", lambda path, label, name: [f"elsewhere/{path}x", label, name])
    with pytest.raises(
        UserError, match=r"none of its 12 images are there, the first: elsewhere/cat.*Looked below .*101_Obj"
    ):
        open_dataset(lost)
    place = split_of(tmp_path / "no_val")
    split = place / catalogue.get("caltech101").split
    parts = json.loads(split.read_text(encoding="utf-8"))
    split.write_bytes(b"\xef\xbb\xbf" + json.dumps({part: parts[part] for part in ("train", "test")}).encode())
    assert sizes(open_dataset(place)) == (6, 0, 6)
