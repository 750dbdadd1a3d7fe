"""Each of the papers' data sets, from a miniature of its layout: images, labels, class names, order, and what can be wrong."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data import layouts
from tests.data.layouts import DIRECTORIES, MAKERS, PREFIXES
from tests.data.make import encoded, noise, put
from vlprompt.data import few_shot, open_dataset, open_image
from vlprompt.data.check import check
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.readers import read_idx
from vlprompt.data.samples import PARTS, Dataset
from vlprompt.errors import DATA, UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root, known by the environment."""
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path / "all"))
    (tmp_path / "all").mkdir()
    return tmp_path / "all"


def pairs(dataset: Dataset) -> dict[str, int]:
    return {sample.id: sample.label for part in PARTS for sample in getattr(dataset, part)}


def fails(spec: str | Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_dataset(spec)
    assert caught.value.exit_code == DATA
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
def test_a_miniature_is_read_by_name_and_by_its_folder(root: Path, name: str) -> None:
    expected = MAKERS[name](root / DIRECTORIES[name])
    data = open_dataset(name)
    assert data.name == name
    assert data.divided
    assert data.class_names == expected.class_names
    assert {part: len(getattr(data, part)) for part in PARTS} == expected.counts
    found = pairs(data)
    assert len(found) == sum(expected.counts.values())
    assert {id: found[id] for id in expected.sample} == expected.sample
    assert all(sample.read() for sample in (*data.train, *data.val, *data.test))
    assert {sample.decoding for sample in (*data.train, *data.val, *data.test)} == {"published"}
    again = open_dataset(root / DIRECTORIES[name])
    assert [getattr(again, part) for part in PARTS] == [getattr(data, part) for part in PARTS]
    assert again.name == name


def test_the_templates_are_the_published_ones() -> None:
    own = {row.name: row.template for row in catalogue.ROWS if row.template != "a photo of a {}."}
    assert own == {
        "oxford_pets": "a photo of a {}, a type of pet.",
        "oxford_flowers": "a photo of a {}, a type of flower.",
        "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
        "dtd": "{} texture.",
        "eurosat": "a centered satellite photo of {}.",
        "food101": "a photo of {}, a type of food.",
        "ucf101": "a photo of a person doing {}.",
    }


def test_every_row_has_a_miniature_or_a_reader_of_its_own() -> None:
    assert set(catalogue.names()) - set(MAKERS) == {"imagenet21k"}
    assert {row.name: row.directory for row in catalogue.ROWS if row.name in MAKERS} == DIRECTORIES
    assert {row.name for row in catalogue.ROWS if row.split} == set(PREFIXES)
    assert set(catalogue.FEW_SHOT) | set(catalogue.SHIFTED) == set(MAKERS) - {"fashion_mnist"}


@pytest.mark.parametrize("name", PREFIXES)
def test_a_split_file_decides_parts_labels_names_and_order(root: Path, name: str) -> None:
    folder = root / DIRECTORIES[name]
    file, prefix = PREFIXES[name]
    split: layouts.Split = {
        "train": [["b/2.jpg", 1, "second_class"], ["a/1.jpg", 0, "first"], ["b/1.jpg", 1, "second_class"]],
        "val": [["a/2.jpg", 0, "first"]],
        "test": [["b/3.jpg", 1, "second_class"], ["a/3.jpg", 0, "first"]],
    }
    layouts.write_split(folder / file, split)
    for row in catalogue.ROWS:
        for images in row.images if row.name == name else ():
            (folder / images).mkdir(parents=True, exist_ok=True)
    for part in split.values():
        for image, _, _ in part:
            put(folder / prefix / str(image))
    data = open_dataset(name)
    assert data.class_names == ("first", "second class")
    before = f"{prefix}/" if prefix else ""
    assert [(s.id.removeprefix(before), s.label) for s in data.train] == [
        ("b/2.jpg", 1),
        ("a/1.jpg", 0),
        ("b/1.jpg", 1),
    ]
    assert [s.id.removeprefix(before) for s in data.test] == ["b/3.jpg", "a/3.jpg"]
    assert all(s.id.startswith(before) for s in data.train)
    assert not any("published rule" in note for note in data.notes)
    shutil.move(folder, root / "renamed")  # the split file alone says which data set it is
    assert open_dataset(root / "renamed").name == name


def literal_few_shot(split: dict[str, list[list[object]]], shots: int, seed: int) -> tuple[list[object], list[object]]:
    """The published procedure, step by step: seed, then train, then val with at most four, label by label as they come."""
    random.seed(seed)
    out: list[list[object]] = []
    for items, number in ((split["train"], shots), (split["val"], min(shots, 4))):
        tracker: dict[object, list[object]] = {}
        for path, label, _ in items:
            tracker.setdefault(label, []).append(path)
        chosen: list[object] = []
        for members in tracker.values():
            chosen.extend(random.sample(members, number) if len(members) >= number else members)
        out.append(chosen)
    return out[0], out[1]


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_shot_subsets_are_the_published_codes(root: Path, shots: int, seed: int) -> None:
    stream = random.Random(0)
    split: dict[str, list[list[object]]] = {}
    for part, number in (("train", 20), ("val", 6), ("test", 3)):
        items: list[list[object]] = [
            [f"{part}{label}_{i}.jpg", label, f"class_{label}"] for label in range(5) for i in range(number)
        ]
        items += [[f"{part}9_{i}.jpg", 5, "rare"] for i in range(3)]
        stream.shuffle(items)
        split[part] = items
    folder = root / "dtd"
    layouts.write_split(folder / "split_zhou_DescribableTextures.json", split)
    (folder / "images").mkdir()
    for part in split.values():
        for image, _, _ in part:
            (folder / "images" / str(image)).write_bytes(b"x")
    train, val = literal_few_shot(split, shots, seed)
    state = random.getstate()
    drawn = few_shot(open_dataset("dtd"), shots, seed)
    assert [s.id.removeprefix("images/") for s in drawn.train] == train
    assert [s.id.removeprefix("images/") for s in drawn.val] == val
    assert random.getstate() == state


def test_the_rule_divides_alike_everywhere_and_says_so(root: Path) -> None:
    layouts.eurosat(root / "eurosat")
    data = open_dataset("eurosat")
    parts = [{s.id for s in getattr(data, part)} for part in PARTS]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    for label in range(3):
        assert [sum(s.label == label for s in getattr(data, part)) for part in PARTS] == [5, 2, 3]
    assert any("split_zhou_EuroSAT.json" in note and "published rule" in note for note in data.notes)
    shutil.copytree(root / "eurosat", root / "copy" / "eurosat")
    assert open_dataset(root / "copy" / "eurosat").train == data.train
    # The order of `printf PATH | sha256sum`, fixed for ever.
    assert [s.id for s in data.train if s.label == 0] == [f"2750/AnnualCrop/image_000{i}.jpg" for i in ORDER[:5]]
    assert [s.id for s in data.val if s.label == 0] == [f"2750/AnnualCrop/image_000{i}.jpg" for i in ORDER[5:7]]


def test_numbers_that_are_not_the_published_ones_are_notes(root: Path) -> None:
    layouts.caltech(root / "caltech-101")
    notes = open_dataset("caltech101").notes
    assert "Caltech101: 3 classes; published are 100 (the field's table of the eleven data sets)." in notes
    assert any("15 train images; published are 4,128" in note for note in notes)
    report = check("caltech101")
    assert report.ok
    assert any(line.startswith("note: Caltech101: 9 test images") for line in report.lines())
    assert [(one.name, one.train) for one in report.classes] == [("face", 5), ("airplane", 5), ("sea horse", 5)]


def test_right_numbers_say_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    layouts.aircraft(root / "fgvc_aircraft")
    rows = tuple(
        dataclasses.replace(row, classes=2, sizes=(6, 4, 4)) if row.name == "fgvc_aircraft" else row
        for row in catalogue.ROWS
    )
    monkeypatch.setattr("vlprompt.data.papers.catalogue.ROWS", rows)
    assert open_dataset("fgvc_aircraft").notes == ()


def test_two_classes_of_one_name_stay_two(root: Path) -> None:
    layouts.imagenet(root / "imagenet")
    data = open_dataset("imagenet")
    assert data.class_names.count("sunglasses") == 2
    assert any("'sunglasses'" in note or "sunglasses" in note for note in data.notes)
    assert {s.label for s in data.train} == {0, 1, 2, 3, 4}
    assert data.val == ()  # its validation images are the test images, which nothing may choose by


@pytest.mark.parametrize("name", ["imagenetv2", "imagenet_a"])
def test_class_names_may_stand_beside_imagenet(root: Path, name: str) -> None:
    MAKERS[name](root / DIRECTORIES[name])
    (root / DIRECTORIES[name] / "classnames.txt").unlink()
    fails(name, "classnames.txt", "vlprompt data get")
    layouts.class_names(root / "imagenet")
    assert open_dataset(name).class_names[0] in ("tench", "goldfish")


def test_class_folders_of_a_variant_may_lie_directly_in_it(root: Path) -> None:
    layouts.classes(root / "imagenet-r", ["n01440764", "n01498041"], 2)
    layouts.class_names(root / "imagenet")
    data = open_dataset("imagenet_r")
    assert data.class_names == ("tench", "stingray")
    assert data.test[0].id == "n01440764/image_0000.jpg"


def test_missing_images_are_listed_and_noted(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    layouts.aircraft(folder)
    (folder / "images/0000001.jpg").unlink()
    data = open_dataset("fgvc_aircraft")
    assert dict(data.skipped) == {"images/0000001.jpg": "no such file"}
    assert len(data.train) == 5


@pytest.mark.parametrize("spelling", ["Caltech101", "caltech-101", "CALTECH_101", "caltech101"])
def test_names_are_taken_however_they_are_written(root: Path, spelling: str) -> None:
    layouts.caltech(root / "caltech-101")
    assert open_dataset(spelling).name == "caltech101"


def test_a_path_is_a_path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.dtd(root / "dtd")
    put(tmp_path / "here/dtd/cat/1.png")
    put(tmp_path / "here/dtd/dog/1.png")
    monkeypatch.chdir(tmp_path / "here")
    assert open_dataset("dtd").class_names == ("banded", "zigzagged")
    assert open_dataset("./dtd").class_names == ("cat", "dog")
    assert catalogue.find("d/td") is None


def test_a_set_may_lie_under_another_of_its_names(root: Path) -> None:
    layouts.food(root / "Food101")
    assert open_dataset("food101").class_names == ("apple pie", "waffles")


def test_what_is_missing_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails("dtd", "DTD", "is not there", "vlprompt data get dtd")
    (root / "dtd").mkdir()
    fails("dtd", "missing: images/", "vlprompt data get dtd")
    layouts.pets(root / "oxford_pets")
    (root / "oxford_pets/annotations/test.txt").unlink()
    fails("oxford_pets", "annotations/test.txt")
    monkeypatch.delenv("VLPROMPT_DATA")
    fails("dtd", "--data-root", "VLPROMPT_DATA", "dtd/")
    fails("imagnet", "imagenet")


def test_an_own_folder_with_a_papers_name_is_an_own_folder(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / "oxford_pets" / name / "1.png")
    assert open_dataset(tmp_path / "oxford_pets").class_names == ("cat", "dog")


def test_the_pretraining_set_is_listed_and_refused(root: Path) -> None:
    put(root / "imagenet21k_resized/imagenet21k_train/n01440764/1.jpg")
    with pytest.raises(UserError, match="pretrain"):
        open_dataset("imagenet21k")


ORDER = (9, 6, 3, 8, 4, 1, 7, 0, 2, 5)


DAMAGE = {
    "not JSON": ("dtd", "split_zhou_DescribableTextures.json", "no json", "not a split file"),
    "a part is missing": ("dtd", "split_zhou_DescribableTextures.json", '{"train": []}', "KeyError"),
    "no triple": ("dtd", "split_zhou_DescribableTextures.json", '{"train": [["a", 1]]}', "not a split file"),
    "pets: a short line": ("oxford_pets", "annotations/test.txt", "Abyssinian_1 1\n", "line 1 is not"),
    "pets: behind an empty line": ("oxford_pets", "annotations/test.txt", "\nAbyssinian_1 1\n", "line 2 is not"),
    "aircraft: unknown variant": ("fgvc_aircraft", "images_variant_val.txt", "0000001 Zeppelin\n", "line 1 is not"),
    "sun: unknown class": ("sun397", "Training_01.txt", "/z/zoo/sun_1.jpg\n", "line 1 is not"),
    "ucf: unknown class": ("ucf101", "ucfTrainTestlist/testlist01.txt", "Zorbing/v.avi\n", "line 1 is not"),
    "ucf: no number": ("ucf101", "ucfTrainTestlist/classInd.txt", "ApplyEyeMakeup\n", "line 1 is not"),
    "cars: no mat": ("stanford_cars", "devkit/cars_meta.mat", "nothing", "MATLAB"),
    "flowers: no JSON": ("oxford_flowers", "cat_to_name.json", "{", "no JSON"),
    "flowers: a name is missing": (
        "oxford_flowers",
        "cat_to_name.json",
        '{"1": "rose"}',
        "no name for the classes [2]",
    ),
    "imagenet: a name is missing": ("imagenet", "classnames.txt", "n01440764 tench\n", "4 class folders have no name"),
    "v2: too few lines": ("imagenetv2", "classnames.txt", "n01440764 tench\n", "class folder 1 has no line"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_lists_are_named_with_the_place(root: Path, case: str) -> None:
    name, file, text, words = DAMAGE[case]
    MAKERS[name](root / DIRECTORIES[name])
    layouts.write(root / DIRECTORIES[name] / file, text)
    fails(name, file.rpartition("/")[2] if "line" not in words or name == "oxford_pets" else "", words)


def test_a_wrong_variable_in_a_mat_file(root: Path) -> None:
    from scipy.io import savemat

    layouts.cars(root / "stanford_cars")
    savemat(root / "stanford_cars/devkit/cars_meta.mat", {"other": [1]})
    fails("stanford_cars", "class_names")


def test_one_label_with_two_names_is_refused(root: Path) -> None:
    layouts.write_split(
        root / "dtd/split_zhou_DescribableTextures.json",
        {"train": [["a.jpg", 0, "x"], ["b.jpg", 1, "y"]], "val": [], "test": [["c.jpg", 0, "z"]]},
    )
    put(root / "dtd/images/a.jpg")
    with pytest.raises(UserError, match=r"label 0 is called 'x' .* and 'z' .* Correct the split file"):
        open_dataset("dtd")


def test_a_file_that_is_no_image_is_skipped(root: Path) -> None:
    layouts.food(root / "food-101")
    (root / "food-101/images/waffles/notes.txt").write_text("x", encoding="utf-8")
    assert dict(open_dataset("food101").skipped) == {"images/waffles/notes.txt": "not an image file"}


def test_images_are_decoded_by_check(root: Path) -> None:
    layouts.food(root / "food-101")
    (root / "food-101/images/waffles/image_0000.jpg").write_bytes(encoded(noise(1))[:40])
    assert any("image_0000.jpg" in skip.id for skip in check("food101").skipped)


def test_json_lists_are_read_as_the_published_code_writes_them(root: Path) -> None:
    """Indented, with tuples as lists and labels as numbers."""
    text = json.dumps(
        {"train": [("a.jpg", 0, "x"), ("b.jpg", 1, "y")], "val": [], "test": []}, indent=4, separators=(",", ": ")
    )
    layouts.write(root / "dtd/split_zhou_DescribableTextures.json", text)
    for name in "ab":
        put(root / f"dtd/images/{name}.jpg")
    assert [s.label for s in open_dataset("dtd").train] == [0, 1]


def test_files_of_arrays_give_their_pictures_and_damaged_ones_are_refused(root: Path) -> None:
    folder = root / "fashion-mnist"
    layouts.fashion(folder)
    sample = open_dataset("Fashion-MNIST").test[3]
    values = np.random.default_rng(10).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    assert (np.asarray(open_image(sample.read()))[..., 0] == values[3]).all()
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:20])
    read_idx.cache_clear()
    fails("fashion-mnist", "t10k-labels", "Fetch it again")
    labels.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    fails("fashion-mnist", "not a file of 10 bytes")
    labels.write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    read_idx.cache_clear()
    fails("fashion-mnist", "do not belong together")


def test_the_page_has_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
    for row in catalogue.ROWS:
        sizes = " | ".join(f"{size:,}" if size else "-" for size in row.sizes)
        assert f"| `{row.name}` | `{row.directory}/` | {row.classes:,} | {sizes} | {row.template} |" in page
        assert f"| {row.licence} |" in page
        assert all(f"`{file}`" in page for file in (row.split, *row.needs) if file)
