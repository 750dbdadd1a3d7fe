"""The report of `vlprompt data check`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.make import encoded, folder, noise
from vlprompt import pocket
from vlprompt.data.check import check
from vlprompt.errors import UserError


def test_a_sound_data_set(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", {"train/cat": 16, "train/big_dog": 20, "val/cat": 2, "test/big_dog": 3})
    done: list[int] = []
    report = check(root, progress=done.append)
    assert report.ok
    assert (report.problems, report.skipped, report.copies, report.few) == ((), (), (), {})
    assert [(c.name, c.train, c.val, c.test) for c in report.classes] == [("big dog", 20, 0, 3), ("cat", 16, 2, 0)]
    assert (report.smallest, report.largest, report.median_edge) == ((12, 10), (12, 10), 10)
    assert sum(done) == 41
    assert "note: no test images in cat" in report.lines()
    assert report.lines()[1] == "pets: 2 classes; 36 train, 2 val, 3 test"
    assert "  cat      train    16  val     2  test     0" in report.lines()


def test_unbalanced_classes_are_said(tmp_path: Path) -> None:
    report = check(folder(tmp_path / "uneven", {"train/cat": 2, "train/dog": 10, "train/fox": 4, "test/cat": 1}))
    (said,) = [line for line in report.lines() if "unbalanced" in line]
    assert said.startswith("note: the classes are unbalanced: 2 training images of cat, 10 of dog. --set draw=classes ")
    even = check(folder(tmp_path / "even", {"train/cat": 2, "train/dog": 9, "test/cat": 1}))
    assert not any("unbalanced" in line for line in even.lines())


def test_images_that_do_not_decode_are_listed_and_not_counted(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1})
    (root / "train/cat/00.png").write_bytes(encoded(noise(1, 64, 64))[:400])
    (root / "train/dog/notes.txt").write_text("x", encoding="utf-8")
    report = check(root)
    assert dict(report.skipped) == {
        "train/cat/00.png": "truncated: the end is missing",
        "train/dog/notes.txt": "not an image file (.txt)",
    }
    assert [c.train for c in report.classes] == [2, 2]
    assert report.ok
    assert not any("no test images in" in line for line in report.lines())
    assert "skipped: 1 x truncated: the end is missing: train/cat/00.png" in report.lines()


def test_leaks_conflicts_and_plain_copies(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 1, "val/dog": 1})
    (root / "test/cat/leak.png").write_bytes((root / "train/cat/00.png").read_bytes())
    (root / "train/dog/conflict.png").write_bytes((root / "train/cat/01.png").read_bytes())
    (root / "train/dog/plain.png").write_bytes((root / "train/dog/01.png").read_bytes())
    report = check(root)
    found = {copies.ids: (copies.leak, copies.conflict) for copies in report.copies}
    assert found == {
        ("train/cat/00.png", "test/cat/leak.png"): (True, False),
        ("train/cat/01.png", "train/dog/conflict.png"): (False, True),
        ("train/dog/01.png", "train/dog/plain.png"): (False, False),
    }
    assert not report.ok
    lines = report.lines()
    assert "problem: one image in several of train, val and test: train/cat/00.png, test/cat/leak.png" in lines
    assert "warning: one image with several labels: train/cat/01.png, train/dog/conflict.png" in lines
    assert "note: 1 files are copies of others of the same class and part" in lines


def test_without_parts_the_rule_is_counted_and_does_not_leak(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 10, "dog": 40})
    for number in range(10):
        (root / f"dog/copy{number}.png").write_bytes((root / f"cat/0{number}.png").read_bytes())
    report = check(root)
    assert not report.divided
    assert next((c.train, c.val, c.test) for c in report.classes) == (5, 2, 3)
    assert len(report.copies) == 10
    assert not any(copies.leak for copies in report.copies)
    assert report.few == {"cat": 5}
    assert any("divided by the rule 50/20/30" in line for line in report.lines())
    assert "note: fewer than 16 training images in cat (5)" in report.lines()


def test_what_opening_refuses_is_reported_together(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 2, "Cat": 1, "dog": 0, "007": 1})
    (root / "dog/a.svg").write_text("<svg/>", encoding="utf-8")
    report = check(root)
    assert not report.ok
    assert any("one class name" in problem for problem in report.problems)
    assert any("No images for the class 'dog'" in problem for problem in report.problems)
    assert any("these have none: 007" in note for note in report.notes)
    assert all(line in report.lines() for line in (f"problem: {problem}" for problem in report.problems))


def test_a_class_that_loses_all_its_images_is_a_problem(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 2, "dog": 1})
    (root / "dog/00.png").write_text("text", encoding="utf-8")
    report = check(root)
    assert report.problems == (
        "No images for the class 'dog' (1 skipped: 1 x not an image that can be read): add some or remove it.",
    )


def test_sizes(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": 1, "b": 1})
    Image.new("RGB", (300, 40)).save(root / "a/wide.png")
    Image.new("RGB", (50, 200)).save(root / "b/tall.png")
    Image.new("RGB", (7, 9)).save(root / "b/small.png")
    report = check(root)
    assert (report.smallest, report.median_edge, report.largest) == ((7, 9), 10, (50, 200))
    assert "sizes: 7 x 9 to 50 x 200 pixels, median short edge 10" in report.lines()


def test_values_of_twelve_bits_in_sixteen_are_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/dog": 1})
    grey = np.asarray(noise(5, 32, 32).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 16).save(root / "train/cat/twelve.png")
    Image.fromarray(grey).save(root / "train/cat/eight.tif")
    Image.fromarray(grey * 257).save(root / "train/cat/sixteen.png")
    report = check(root)
    assert set(report.dark) == {"train/cat/eight.tif", "train/cat/twelve.png"}
    assert any("2 images use less than a tenth of their range" in line for line in report.lines())


def test_a_folder_with_a_table_beside_its_images_says_which_table_to_give(tmp_path: Path) -> None:
    folder(tmp_path, {"train": 2})
    table = tmp_path / "train/metadata.csv"
    table.write_text("file_name,label\n00.png,a\n01.png,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"give .*metadata.csv"):
        check(tmp_path / "train")
    assert [one.name for one in check(table).classes] == ["a", "b"]


def test_the_report_as_json(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 2, "dog": 2})
    (root / "dog/x.svg").write_text("<svg/>", encoding="utf-8")
    value = json.loads(json.dumps(check(root).as_dict()))
    assert value["ok"] is True
    assert value["classes"][0] == {"name": "cat", "train": 1, "val": 0, "test": 1}
    assert value["skipped"][0]["id"] == "dog/x.svg"
    assert value["few"] == {"cat": 1, "dog": 1}


def test_nothing_to_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        check(tmp_path / "nowhere")
    report = check(folder(tmp_path, {"cat": 0, "dog": 0}))
    assert report.problems == ("There is no usable image in it (2 skipped: 2 x a folder without a picture).",)
    assert report.lines()


@pytest.mark.slow  # `test_archive.py` has what is quick: no two pictures of a set are equal
def test_the_pocket_has_no_leaks() -> None:
    for name in pocket.names():
        report = check(name)
        assert report.ok, report.lines()[:5]
        assert report.skipped == ()
