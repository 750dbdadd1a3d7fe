"""Which classes `predict` is asked about, and that each picture is decoded once, however many there are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt
from vlprompt.data import images


def classes(vlprompt: Vlprompt, trained: Path, photos: Path, *asked: object) -> set[str]:
    options = [part for one in asked for part in ("--classes", one)]
    done = vlprompt("predict", trained, photos / "red/0.png", *options, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    return {one["class"] for one in json.loads(done.out)[0]["top"]}


def test_classes_are_names_or_a_file_of_names(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    for name, text in (("a.txt", "\ufeffbird\r\npepper, bell\r\n"), ("a.json", '["bird", "pepper, bell"]')):
        (tmp_path / name).write_bytes(text.encode())
        assert classes(vlprompt, trained, photos, tmp_path / name) == {"bird", "pepper, bell"}
    for asked in (('bird,"pepper, bell"',), ('["bird", "pepper, bell"]',), ("bird", '"pepper, bell"')):
        assert classes(vlprompt, trained, photos, *asked) == {"bird", "pepper, bell"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("bird", "names one class ('bird')"),
        ("names.txt", "there is no such file"),
        ("some/names", "there is no such file"),
        ("bird,,bug", "an empty or a repeated name"),
        ("bird,bird", "an empty or a repeated name"),
        ('["bird", 1]', "not a JSON list of names"),
    ],
)
def test_classes_that_are_not_meant_so_are_refused(
    vlprompt: Vlprompt, trained: Path, photos: Path, asked: str, said: str
) -> None:
    done = vlprompt("predict", trained, photos / "red/0.png", "--classes", asked)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_skipped_files_stand_in_json_and_csv(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("text", encoding="utf-8")
    asked = ("predict", trained, photos / "red/0.png", bad, "--top", 2, "--device", "cpu")
    good, skipped = json.loads(vlprompt(*asked, "--json").out)
    assert good["class"] == good["top"][0]["class"]
    assert skipped == {"path": str(bad), "error": f"{bad}: not an image that can be read."}
    header, first, second = csv.reader(vlprompt(*asked, "--csv").out.splitlines())
    assert header == ["path", "class", "probability", "class 2", "probability 2", "error"]
    assert (first[1], float(first[2])) == (good["class"], pytest.approx(good["probability"]))
    assert second == [str(bad), "", "", "", "", skipped["error"]]


def test_each_picture_is_decoded_once_and_only_its_view_is_kept(
    vlprompt: Vlprompt, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    honest = images._decode

    def counted(data: bytes, name: str, *rest: object) -> object:
        decoded.append(name)
        return honest(data, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_decode", counted)
    done = vlprompt("predict", trained, photos, "--json", "--device", "cpu")
    assert len(json.loads(done.out)) == len(decoded) == len(set(decoded)) == 24


def test_a_phones_picture_is_named_with_what_to_do(vlprompt: Vlprompt, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x.HEIC").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 100)
    done = vlprompt("predict", trained, tmp_path / "x.HEIC")
    assert done.code == 3
    assert "HEIC" in done.err
    assert "convert" in done.err.lower() or "save" in done.err.lower()
