"""CSV and JSONL tables, and every way in which a line can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.make import put
from vlprompt.data import Dataset, open_dataset
from vlprompt.errors import DATA, UserError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "deep/d.png"):
        put(tmp_path / "img" / name)
    return tmp_path


def table(root: Path, text: str, name: str = "set.csv") -> Path:
    path = root / "img" / name
    path.write_text(text, encoding="utf-8")
    return path


def fails(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_dataset(path)
    assert caught.value.exit_code == DATA
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_csv_without_parts(images: Path) -> None:
    data = open_dataset(table(images, "path,label\nb.png,dog\n./a.png,cat\ndeep/d.png,cat\n"))
    assert data.name == "set"
    assert data.class_names == ("cat", "dog")
    assert [(s.id, s.label) for s in data.train] == [("a.png", 0), ("deep/d.png", 0), ("b.png", 1)]
    assert not data.divided
    assert data.train[0].read() == (images / "img/a.png").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,valid\ndeep/d.png,dog,Test\n",
        "Split;Path;Note;Label\ntrain;a.png;x;cat\ntrain;b.png;;dog\nval;c.png;;cat\ntest;deep/d.png;;dog\n",
        "\ufeffpath\tlabel\tsplit\r\na.png\tcat\ttrain\r\nb.png\tdog\ttrain\r\nc.png\tcat\tval\r\ndeep/d.png\tdog\ttest\r\n",
    ],
    ids=["comma", "semicolon, other columns and order", "tab, byte order mark, CRLF"],
)
def test_csv_with_parts(images: Path, text: str) -> None:
    data = open_dataset(table(images, text))
    assert [[s.id for s in part] for part in (data.train, data.val, data.test)] == [
        ["a.png", "b.png"],
        ["c.png"],
        ["deep/d.png"],
    ]
    assert data.divided


def test_quoted_labels(images: Path) -> None:
    data = open_dataset(table(images, 'path,label\na.png,"cat, black"\nb.png,the_dog\n'))
    assert data.class_names == ("cat, black", "the dog")


def test_jsonl(images: Path) -> None:
    rows = [{"path": "a.png", "label": "cat", "split": "train"}, {"path": "b.png", "label": 7, "split": "train"}]
    rows.append({"path": str(images / "img/c.png"), "label": "cat", "split": "test", "more": [1]})
    text = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    data = open_dataset(table(images, text, "set.jsonl"))
    assert data.class_names == ("7", "cat")
    assert [(s.id, s.label) for s in data.train] == [("b.png", 0), ("a.png", 1)]
    assert [s.id for s in data.test] == [str(images / "img/c.png")]


def test_missing_and_unfit_files_are_listed(images: Path) -> None:
    (images / "img/x.svg").write_text("<svg/>", encoding="utf-8")
    text = "path,label\na.png,cat\nb.png,dog\ngone.png,cat\nx.svg,cat\ndeep,dog\na.png,cat\n"
    found = dict(open_dataset(table(images, text)).skipped)
    assert found["gone.png"] == "no such file"
    assert "SVG" in found["x.svg"]
    assert found["deep"] == "a folder, not a file"
    assert found["a.png"] == "listed again on line 7"
    with pytest.raises(UserError, match="4 files cannot be used"):
        open_dataset(table(images, text), strict=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.png,cat\nb.png,\n", ["line 3 has no label"]),
        ("path,label\n,cat\nb.png,dog\n", ["line 2 has no path"]),
        ("path,label\na.png\nb.png,dog\n", ["line 2 has no label"]),
        ("path,kind\na.png,cat\n", ["no column 'label'", "path, kind", "path,label,split"]),
        ("a.png,cat\nb.png,dog\n", ["no column 'path' and no column 'label'", "a.png"]),
        ("path,label,split\na.png,cat,trian\n", ["unknown split 'trian' on line 2", "Did you mean 'train'?"]),
        ("path,label,split\na.png,cat,train\nb.png,dog,\n", ["no split on line 3, though others have one"]),
        ("path,label\na.png,cat\nb.png,dog\na.png,dog\n", ["a.png has another label or split on line 4 than on 2"]),
        ("path,label,split\na.png,cat,train\na.png,cat,test\n", ["a.png has another label or split on line 3"]),
        ("path,label\nx.png,cat\ny.png,dog\n", ["none of its 2 files exist (the first: x.png)", "relative to"]),
        ("path,label\n", ["no rows"]),
        ("", ["no column 'path'"]),
        ('path,label\n"a.png,cat\n', ["is not CSV"]),
        ("path,label\na.png,cat\nb.png,cat\n", ["one class only"]),
        ("path,label\na.png,cat\nb.png,Cat\n", ["one class name"]),
        ("path,label\na.png,cat\nb.png,dog\ngone.png,fox\n", ["No images for the class 'fox'"]),
    ],
)
def test_bad_csv(images: Path, text: str, words: list[str]) -> None:
    fails(table(images, text), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": "a.png", "label": "cat"}\n{"path": \n', ["line 2 is damaged or no JSON"]),
        ('["a.png", "cat"]\n', ["line 1 is not an object with path and label"]),
        ('{"path": "a.png", "label": null}\n', ["line 1 has no label"]),
        ('{"path": "a.png", "label": ["cat", 1]}\n', ['line 1: label is ["cat", 1]; it must be text']),
        ('{"path": "a.png", "label": true}\n', ["line 1: label is true"]),
        ('{"path": "a.png", "label": "' + "9" * 5000 + '"}\n', ["line 1: label has 5,000 letters"]),
        ('{"path": "' + "a" * 5000 + '", "label": "cat"}\n', ["line 1: path has 5,000 letters"]),
        ('{"path": "a\\u0000b.png", "label": "cat"}\n', ["none of its 1 files exist"]),
    ],
)
def test_bad_jsonl(images: Path, text: str, words: list[str]) -> None:
    fails(table(images, text, "set.jsonl"), *words)


def test_a_table_that_is_not_utf8(images: Path) -> None:
    path = images / "img/set.csv"
    path.write_bytes("path,label\na.png,B\u00e4r\n".encode("latin-1"))
    fails(path, "not UTF-8 text", "Save it as UTF-8")


def opened(images: Path, text: str, ask: str = "") -> Dataset:
    put(images / "img/d.png")
    return open_dataset(f"{table(images, text)}{ask}")


ONE_EACH = "a.png,{a}\nb.png,{b}\nc.png,{c}\nd.png,{d}\n"
HEAD = "path,label\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (HEAD + 'a.png, "owl, wild"\nb.png, fox\nc.png,"owl, wild"\nd.png,fox\n', ("fox", "owl, wild")),
        ("path,label,,\na.png,x,,\nb.png,y,,\nc.png,x,,\nd.png,y,,\n,,,\n", ("x", "y")),
        (",path,label\n0,a.png,x\n1,b.png,y\n2,c.png,x\n3,d.png,y\n", ("x", "y")),
        ("file_name,class\na.png,x\nb.png,y\n./c.png,x\n.\\d.png,y\n", ("x", "y")),
        (HEAD + "/content/drive/data/a.png,x\n/content/drive/data/b.png,y\nC.PNG,x\nd.png,y\n", ("x", "y")),
    ],
)
def test_tables_as_programs_write_them(images: Path, text: str, names: tuple[str, ...]) -> None:
    dataset = opened(images, text)
    assert dataset.class_names == names
    assert {one.id for one in dataset.train} == {"a.png", "b.png", "c.png", "d.png"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "a.png,owl, tawny\nb.png,owl, snowy\n", ("line 2 has 3 cells under 2 columns", "between quotes")),
        ("path,label,label\na.png,x,y\n", ("two columns are called 'label'", "Rename")),
        ("path,label,Label\na.png,x,y\n", ("two columns are called 'Label'",)),
        (
            "path,class,category\na.png,x,y\n",
            ("label may be any of the columns class, category", "--columns label=class"),
        ),
        ("path,label,fold\na.png,x,0\nb.png,y,1\n", ("'fold' seems to divide the images", "--columns split=fold")),
        ("path,label,usage2\na.png,x,Training\nb.png,y,Test\n", ("'usage2' seems to divide the images",)),
        ("image id,what\na.png,x\n", ("no column 'path' and no column 'label'", "--columns path=NAME,label=NAME")),
    ],
)
def test_a_table_that_leaves_open_what_is_meant_is_refused(images: Path, text: str, words: tuple[str, ...]) -> None:
    fails(table(images, text), *words)


def test_columns_can_be_named(images: Path) -> None:
    text = "picture,what,label,fold\na.png,x,1,train\nb.png,y,1,train\nc.png,x,2,test\nd.png,y,2,test\n"
    dataset = opened(images, text, "?path=picture&label=what&split=fold")
    assert (dataset.class_names, len(dataset.train), len(dataset.test)) == (("x", "y"), 2, 2)
    assert "the columns label are not used" in dataset.notes[0]
    assert not opened(images, text, "?path=picture&label=what&split=").divided
    for wrong, said in (
        ("?path=photo", "no column 'photo'"),
        ("?image=picture", "unknown column setting 'image'"),
        ("?path=picture&label=picture", "path and label are both the column 'picture'"),
    ):
        with pytest.raises(UserError, match=said):
            opened(images, text, wrong)


def test_is_valid_says_what_is_not_learned_from(images: Path) -> None:
    text = "path,label,is_valid\na.png,x,False\nb.png,y,False\nc.png,x,True\nd.png,y,True\n"
    dataset = opened(images, text)
    assert ({one.id for one in dataset.train}, {one.id for one in dataset.test}) == (
        {"a.png", "b.png"},
        {"c.png", "d.png"},
    )
