"""What people hand over in Python means what it says, or is refused with what to give."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlprompt.errors import UserError
from vlprompt.inputs import as_dataset, asked_names, indices, labelled, names_of, samples

NAMES = ["birds", "bugs", "mammals"]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 40)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        dict(enumerate(NAMES)),
        {str(number): name for number, name in enumerate(NAMES)},
        {name: number for number, name in enumerate(NAMES)},
        {name: NAMES.index(name) for name in reversed(NAMES)},
        set(NAMES),
    ],
)
def test_class_names_in_the_forms_that_people_have(given: Any) -> None:
    assert names_of(given) == NAMES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cat,dog", r"Give \['cat', 'dog'\]"),
        ([1, 2], "1 is not"),
        (["cat", None], "None is not"),
        (["cat", " "], "' ' is not"),
        (["Birds", "birds "], "read the same: 'Birds' and 'birds '"),
        (["sea_lion", "sea lion"], "read the same"),
        ({0: "cat", 2: "dog"}, "the numbers 0 to 1"),
        ({"cat": "a cat", "dog": "a dog"}, "the numbers 0 to 1"),
    ],
)
def test_class_names_that_are_none_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        names_of(given)


def test_one_class_alone_answers_nothing() -> None:
    assert asked_names(None) is None
    with pytest.raises(UserError, match="always have probability 1"):
        asked_names(["cat"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.7, 1.0, 2.0], "0.7 is not a class"),
        ([float("nan")], "nan is not"),
        (np.eye(3), "argmax"),
        ([None], "None is not"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        indices(labels, NAMES)


def test_labels_may_be_whole_numbers_of_any_type() -> None:
    assert indices([0.0, np.int64(1), "mammals", True], NAMES) == [0, 1, 2, 1]


def test_a_mapping_of_names_keeps_labels_and_names_together() -> None:
    images = [Image.new("RGB", (8, 8))] * 3
    data = as_dataset((images, [2, 1, 0], {name: NAMES.index(name) for name in reversed(NAMES)}))  # type: ignore[arg-type]
    assert [data.class_names[one.label] for one in data.train] == ["mammals", "bugs", "birds"]


def test_images_may_be_bytes_and_open_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with (tmp_path / "a.png").open("rb") as file:
        for given in (png(), [png()], io.BytesIO(png()), [io.BytesIO(png())], file, bytearray(png())):
            (one,) = samples(given, [0])  # type: ignore[arg-type]
            assert one.source() == png()


@pytest.mark.parametrize("address", ["https://example.com/cat.jpg", "data:image/png;base64,iVBO", "file:///x.png"])
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="is an address"):
        samples([address], [0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", None, "b"], "1 of 3 images have no label .the first: number 2"),
        ([0, 1, None], "1 of 3 images have no label .the first: number 3"),
        (["a", float("nan"), "b"], "1 of 3 images have no label"),
        ([np.float32("nan"), 1.0, np.float32("nan")], "2 of 3 images have no label"),
        ([["a"], None, ["b"]], "1 of 3 images have no label"),
        ([(1, 2), (3,), (1,)], "labels are names, whole numbers, or for several"),
        ([["a", ["b"]], ["c"], ["d"]], "labels are names, whole numbers, or for several"),
        ([{"a": 1}] * 3, "labels are names, whole numbers, or for several"),
        ("abc", "labels are a list with one for each image"),
        (7, "labels are a list with one for each image"),
    ],
)
def test_labels_that_are_not_there_or_are_no_labels(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labelled([png()] * 3, labels, None)
