"""Names that a person reads as one, names that are given twice, and folders that are not what their names say."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.make import folder, put
from vlprompt.cli.options import parse_names
from vlprompt.data import open_dataset
from vlprompt.data.check import check
from vlprompt.data.class_names import read_class_names
from vlprompt.engine.class_vectors import read_names
from vlprompt.errors import UserError
from vlprompt.inputs import listed, names_of
from vlprompt.types import plain_name

NFC, NFD = (unicodedata.normalize(form, "café au lait") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NFC, NFD),
        ("bird", "Bird"),
        ("bird", "bird\u200b"),
        ("bird", "\ufeffbird"),
        ("bird", "\uff42\uff49\uff52\uff44"),
        ("big_bird", "big\u00a0bird"),
        ("1", "1.0"),
        ("1", "01"),
        ("Straße", "strasse"),
    ],
)
def test_names_that_read_alike_are_not_two_classes(tmp_path: Path, one: str, other: str) -> None:
    assert plain_name(one) == plain_name(other)
    with pytest.raises(UserError):
        parse_names([f"{one},{other}"])
    with pytest.raises(UserError, match="read the same"):
        names_of([one, other])
    if one != NFC:
        with pytest.raises(UserError, match="are one class name"):
            open_dataset(folder(tmp_path, {one: 1, other: 1, "tea": 1}))


@pytest.mark.parametrize("pair", [("cat", "cat."), ("1", "11"), ("1.0", "1.5"), ("a b", "ab"), ("m2", "m3")])
def test_names_that_differ_are_two(pair: tuple[str, str]) -> None:
    assert plain_name(pair[0]) != plain_name(pair[1])
    assert parse_names([",".join(pair)]) == pair


def test_accents_that_stand_apart_are_the_same_class_in_every_part(tmp_path: Path) -> None:
    counts = {f"{part}/{name}": 2 for part, name in (("train", NFC), ("train", "tea"), ("test", NFD), ("test", "tea"))}
    data = open_dataset(folder(tmp_path / "photos", counts))
    assert data.class_names == (NFC, "tea")
    assert [one.label for one in data.test] == [0, 0, 1, 1]
    rows = [
        f"{'TRAIN' if part == 'train' else part}/{NFC}/0{n}.PNG,{name},{part}"
        for part in ("train", "test")
        for n, name in ((0, NFC), (1, NFD))
    ]
    rows += [f"{part}/tea/00.png,tea,{part}" for part in ("train", "test")]
    folder(tmp_path / "photos", {f"train/{NFC}": 0})
    table = tmp_path / "photos" / "table.csv"
    for nfd in (tmp_path / "photos/train" / NFC).glob("*"):
        nfd.unlink()
    (tmp_path / "photos/train" / NFC).rmdir()
    folder(tmp_path / "photos", {f"train/{NFD}": 2})
    table.write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    data = open_dataset(table)
    assert data.class_names == (NFC, "tea")
    assert len(data.train) == len(data.test) == 3


@pytest.mark.parametrize(
    "counts",
    [
        {"trn/cat": 1, "trn/dog": 1, "tst/cat": 1},
        {"trn/cat": 1, "trn/dog": 1, "tst": 2},
        {"trn/cat": 1, "trn/dog": 1, "tst/cat": 1, "tst/dog": 1, "extra": 1},
        {"train2017/cat": 1, "train2017/dog": 1, "val2017/cat": 1},
        {"hold-out": 1, "training": 1, "eval/a": 1},
    ],
)
def test_parts_under_names_that_are_not_read_are_asked_about(tmp_path: Path, counts: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"look like|is not a part|Did you mean|holds? the same|images lie directly"):
        open_dataset(folder(tmp_path, counts))


def test_a_class_with_a_dot_in_front_is_named(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"cat": 2, "dog": 2, ".22 rifle": 2}))
    assert data.class_names == ("cat", "dog")
    assert any(".22 rifle/" in note for note in data.notes)


@pytest.fixture
def abyss(tmp_path: Path) -> Iterator[Path]:
    """A chain of 1,100 folders, which is taken away again: shutil cannot."""
    before, start = os.getcwd(), tmp_path / "train/cat"
    start.mkdir(parents=True)
    os.chdir(start)
    for _ in range(1100):
        os.mkdir("a")
        os.chdir("a")
    os.chdir(before)
    yield tmp_path
    os.chdir(start)
    for _ in range(1100):
        os.chdir("a")
    for _ in range(1100):
        os.chdir("..")
        os.rmdir("a")
    os.chdir(before)


def test_folders_a_thousand_deep_are_no_fault(abyss: Path) -> None:
    folder(abyss, {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1})
    data = open_dataset(abyss)
    assert len(data.train) == 4
    assert any("folders deep" in skip.reason for skip in data.skipped)
    assert len(list(listed(abyss))) == 6


def test_data_without_training_images_can_only_be_tested_on(tmp_path: Path) -> None:
    report = check(folder(tmp_path, {"test/cat": 2, "test/dog": 2}))
    assert report.ok
    assert not any(one.train for one in report.classes)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "c1,cat\nc2,dog\nc1,owl\n", "c1 twice"),
        ("a.txt", "c1: cat\nc2: dog\nc1: owl\n", "c1 twice"),
        ("a.json", '{"c1": "cat", "c2": "dog", "c1": "owl"}', "'c1' has two values"),
        ("a.csv", "c1,cat, big\nc2,dog\n", "3 cells"),
        ("a.csv", "id,words\nc1,cat\nc2,dog, the pet\n", "3 cells"),
        ("a.csv", "id,words,\nc1,cat,,\nc2,dog,\n", ""),
        ("a.csv", "c1;cat, big\nc2;dog, small, old\n", ""),
        ("a&b 100%?+.csv", 'c1,"cat, big"\nc2,"dog, small, old"\n', ""),
        ("a.csv", "c1,cat\nc2,dog\nc1,cat\n", ""),
    ],
)
def test_words_of_a_file_are_one_for_each_class(tmp_path: Path, name: str, text: str, said: str) -> None:
    from vlprompt.cli.options import with_columns

    (tmp_path / name).write_text(text, encoding="utf-8")
    data = folder(tmp_path / "is it?", {"c1": 1, "c2": 1})
    asked = with_columns(str(data), None, str(tmp_path / name))
    if said:
        with pytest.raises(UserError, match=said):
            open_dataset(asked)
    else:
        names = open_dataset(asked).class_names
        assert names == (("cat, big", "dog, small, old") if "big" in text else ("cat", "dog"))


def test_a_published_list_with_two_names_for_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("0 cat\n1 dog\n0 owl\n", encoding="utf-8")
    with pytest.raises(UserError, match="0 twice: 'cat' and 'owl'"):
        read_class_names(tmp_path / "classnames.txt", ("0", "1"))


@pytest.mark.parametrize("text", ["cat\ndog\n", "# two\ncat\n\ndog", "cat,\ndog,\n", '"cat"\n"dog"\n', "cat\rdog\r"])
def test_lists_of_names_as_people_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert read_names(tmp_path / "names.txt") == ("cat", "dog")
    assert parse_names([str(tmp_path / "names.txt")]) == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "0 cat\n1 dog\n"),
        ("a.txt", "0: cat\n1: dog\n"),
        ("a.txt", "n02123045\ttabby\nn02124075\tEgyptian cat\n"),
        ("a.txt", "n02123045 tabby\nn02124075 Egyptian cat\n"),
        ("a.csv", "id,name\n0,cat\n1,dog\n"),
        ("a.csv", "cat;1\ndog;2\n"),
        ("a.txt", "cat,1\ndog, 2\n"),
        ("a.yaml", "names:\n  0: cat\n  1: dog\n"),
    ],
)
def test_lists_of_more_than_names_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"is more than a name|is not read"):
        read_names(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\0\ndog\n"),
        ("a.txt", "\x1b[31mcat\ndog\n"),
        ("a.txt", "cat\u202e\ndog\n"),
        ("a.json", '["cat\\u0000", "dog"]'),
        ("a.json", '["cat", "", "dog"]'),
    ],
)
def test_names_that_nobody_can_read_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"holds a control code|a name is empty"):
        read_names(tmp_path / name)


def test_names_that_begin_with_a_year_are_names(tmp_path: Path) -> None:
    (tmp_path / "cars.txt").write_text("2012 Tesla Model S\n2011 Audi TT\n7up\n", encoding="utf-8")
    assert len(read_names(tmp_path / "cars.txt")) == 3


@pytest.mark.parametrize("text", ["cat\ndog", "cat\r\ndog", "cat,dog\n"])
def test_names_on_lines_of_an_argument(text: str) -> None:
    assert parse_names([text]) == ("cat", "dog")


@pytest.mark.parametrize("text", ['{"0": "cat", "1": "dog"}', "cat,dog\0", '["cat", "dog"', "cat,\u200b,dog"])
def test_arguments_that_are_no_names_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--classes"):
        parse_names([text])


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("sep=;\npath;label\na.png;cat\nb.png;dog\n", ("cat", "dog")),
        ('"sep=,"\r\npath,label\r\na.png,cat\r\nb.png,dog\r\n', ("cat", "dog")),
        ("path|label\na.png|cat\nb.png|dog\n", ("cat", "dog")),
        ("path,label\ra.png,cat\rb.png,dog\r", ("cat", "dog")),
        ("path,label\na.png,cat\nb.png,nan\n", ("cat", "nan")),
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str, classes: tuple[str, ...]) -> None:
    for name in ("a.png", "b.png"):
        put(tmp_path / name)
    (tmp_path / "t.csv").write_bytes(text.encode())
    data = open_dataset(tmp_path / "t.csv")
    assert data.class_names == classes
    assert any("line 3 has the label 'nan'" in note for note in data.notes) == ("nan" in classes)


@pytest.mark.parametrize(
    "line", ['{"path": "a.png", "label": "cat", "label": "dog"}', '{"path": "a.png", "label": "1", "label": 1}']
)
def test_a_key_with_two_values_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{line}\n{{"path": "b.png", "label": "owl"}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1 .*'label' has two values"):
        open_dataset(tmp_path / "t.jsonl")


def test_a_command_to_copy_has_the_options_as_people_type_them(tmp_path: Path) -> None:
    from vlprompt.cli.options import as_typed, with_columns

    table = tmp_path / "my table.csv"
    table.touch()
    asked = with_columns(str(table), "path=file_name,separator=;", "my words.csv")
    assert as_typed(asked) == f"'{table}' --columns 'path=file_name,separator=;' --class-names 'my words.csv'"
    assert as_typed(with_columns(str(tmp_path), None, "words.csv")) == f"{tmp_path} --class-names words.csv"
    for plain in (str(table), "emoji-food", "hf:owner/set?split=train"):
        assert as_typed(plain) == shlex.quote(plain)
