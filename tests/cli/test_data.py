"""`vlprompt data` and `--data-root`: the papers' sets in lists, on disk, fetched, checked and learned from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Vlprompt
from tests.data import layouts
from tests.data.serving import Behaviour, Server, serving
from tests.images import write_squares
from vlprompt.data import sheet as sheet_of
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import Address, Download


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)
    (tmp_path / "sets").mkdir()
    return tmp_path / "sets"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def test_the_list_has_the_papers_sets(vlprompt: Vlprompt) -> None:
    done = vlprompt("data", "list")
    assert done.code == 0
    for row in catalogue.ROWS:
        assert row.name in done.out
    assert "4,128" in done.out
    listed = {one["name"]: one for one in json.loads(vlprompt("data", "list", "--json").out)}
    assert listed["dtd"]["template"] == "{} texture."
    assert listed["dtd"]["images"] == {"train": 2820, "val": 1128, "test": 1692}
    assert listed["stanford_cars"]["licence"] == "unknown"
    assert all(one["source"] for one in listed["dtd"]["addresses"])
    assert listed["imagenet_sketch"]["images"]["train"] is None


def test_status_says_what_is_there(vlprompt: Vlprompt, root: Path) -> None:
    layouts.eurosat(root / "eurosat")
    layouts.pets(root / "oxford_pets")
    (root / "oxford_pets/annotations/test.txt").unlink()
    layouts.aircraft(root / "fgvc_aircraft")
    done = vlprompt("data", "status", "--data-root", root, "--json")
    states = {one["name"]: one for one in json.loads(done.out)["sets"]}
    assert states["eurosat"]["state"] == "no split file"
    assert states["oxford_pets"]["state"] == "incomplete"
    assert states["oxford_pets"]["missing"] == ["annotations/test.txt"]
    assert states["fgvc_aircraft"]["state"] == "complete"
    assert states["imagenet"]["state"] == "not there"
    shown = vlprompt("data", "status", f"--data-root={root}")
    assert shown.code == 0
    assert "split_zhou_EuroSAT.json" in shown.out
    assert "vlprompt data get imagenet" in shown.out


def test_without_a_root(vlprompt: Vlprompt, root: Path) -> None:
    for command in (("status",), ("get", "dtd")):
        done = vlprompt("data", *command)
        assert done.code == 2
        assert "--data-root" in done.err
        assert "VLPROMPT_DATA" in done.err


def test_the_root_holds_for_one_command_only(vlprompt: Vlprompt, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPROMPT_DATA", "before")
    layouts.eurosat(root / "eurosat")
    assert vlprompt("data", "check", "eurosat", "--data-root", root).code == 0
    assert os.environ["VLPROMPT_DATA"] == "before"
    assert vlprompt("data", "check", "eurosat").code == 3
    monkeypatch.setenv("VLPROMPT_DATA", str(root))
    assert vlprompt("data", "check", "eurosat").code == 0


def test_get_says_where_from_before_it_asks(vlprompt: Vlprompt, root: Path) -> None:
    done = vlprompt("data", "get", "DTD", "--dry-run", "--data-root", root)
    assert done.code == 0
    assert "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz" in done.out
    assert "md5:fff73e5086ae6bdbea199a49dfb8a4c1" in done.out
    assert "checksum: unknown" in done.out
    assert "Licence: unknown" in done.err
    login = vlprompt("data", "get", "imagenet21k", "--dry-run", "--data-root", root)
    assert "address: unknown" in login.out
    assert "1. Log in" in login.out
    assert list(root.iterdir()) == []


def test_get_an_unknown_name(vlprompt: Vlprompt, root: Path) -> None:
    done = vlprompt("data", "get", "eurosatt", "--data-root", root)
    assert done.code == 2
    assert "Did you mean 'eurosat'" in done.err


def test_get_explains_what_needs_a_login(vlprompt: Vlprompt, root: Path) -> None:
    layouts.class_names(root / "imagenet")
    done = vlprompt("data", "get", "imagenet", "--data-root", root)
    assert done.code == 3
    assert "still missing: images/train/, images/val/" in done.err
    assert "1. Log in at https://image-net.org" in done.err


def eurosat_zip(tmp_path: Path) -> bytes:
    layouts.eurosat(tmp_path / "made/eurosat")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*.jpg")):
            archive.write(path, path.relative_to(tmp_path / "made").as_posix())
    return buffer.getvalue()


def test_get_fetches_over_a_broken_line_and_the_set_can_be_learned_from(
    vlprompt: Vlprompt, root: Path, server: Server, tmp_path: Path, clip_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = eurosat_zip(tmp_path)
    server.files["EuroSAT.zip"] = Behaviour(data, cut_at=[3000])
    address = Address(
        url=server.url("EuroSAT.zip"),
        source="this test",
        checksum=f"md5:{hashlib.md5(data).hexdigest()}",
        checksum_source="its author",
    )
    rows = tuple(
        dataclasses.replace(row, downloads=(Download(gives=("2750",), mirrors=(address,)),))
        if row.name == "eurosat"
        else row
        for row in catalogue.ROWS
    )
    monkeypatch.setattr("vlprompt.data.papers.catalogue.ROWS", rows)
    done = vlprompt("data", "get", "eurosat", "--data-root", root)
    assert done.code == 0, done.err
    assert "named by this test" in done.err
    assert "(its author)" in done.err
    assert "Licence: MIT" in done.err
    assert server.asked[-1][1] == "bytes=3000-"
    assert "no split file" in done.out
    arguments = ("--data-root", root, "train", "--data", "eurosat", "--model", clip_dir, "--method", "coop")
    quick = ("--shots", 2, "--set", "epochs=1", "--set", "n_ctx=2", "--views", 1, "--device", "cpu", "--out", "run")
    trained = vlprompt(*arguments, *quick, "--json")
    assert trained.code == 0, trained.err
    assert "published are 13,500" in trained.err
    record = json.loads(trained.out)[0]
    assert record["dataset"] == "eurosat"
    assert record["template"] == "a centered satellite photo of {}."
    assert record["num_test"] == 9
    split = json.loads(Path("run/seed1/split.json").read_text(encoding="utf-8"))
    assert all(id.startswith("2750/") for id, _ in split["train"])
    again = vlprompt("eval", "run", "--data", "eurosat", "--data-root", root, "--json")
    assert json.loads(again.out)[0]["top1"] == record["top1"]


def test_test_only_sets_cannot_be_learned_from(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    layouts.v2(root / "imagenetv2")
    done = vlprompt("train", "--data", "imagenetv2", "--data-root", root, "--model", clip_dir, "--out", "run")
    assert done.code == 3
    assert "no training image" in done.err


@pytest.mark.parametrize(
    "arguments", [("data", "status", "--data-root"), ("--data-root",), ("data", "status", "--data-root=")]
)
def test_a_root_without_a_place(
    vlprompt: Vlprompt, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)
    done = vlprompt(*arguments)
    assert done.code == 2
    assert "--data-root" in done.err


def test_the_papers_whole_grid_can_be_planned(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    for name, make in layouts.MAKERS.items():
        make(root / layouts.DIRECTORIES[name])
    row = ("bench", "all", "--data", "papers", "--data-root", root, "--model", clip_dir, "--methods", "zero-shot")
    done = vlprompt(*row, "--device", "cpu", "--dry-run", "--json")
    assert done.code == 0, done.err
    places = {one["place"] for one in json.loads(done.out)["cells"]}
    few_shot = {place.split("/")[1] for place in places if place.startswith("few-shot/")}
    assert few_shot == set(catalogue.FEW_SHOT)
    domains = {place.split("/")[-1] for place in places if place.startswith("domain/")}
    assert domains == {"imagenet", *catalogue.SHIFTED}


def test_a_contact_sheet_has_a_row_for_each_class(vlprompt: Vlprompt, tmp_path: Path) -> None:
    colors = {"red": (220, 40, 40), "blue": (40, 60, 220)}
    root = write_squares(tmp_path / "data", colors, {"train": 3, "test": 1}, size=(90, 50))
    done = vlprompt("data", "show", root, "--columns", 3)
    assert done.code == 0, done.err
    assert done.out == "sheet.png\n"
    with Image.open("sheet.png") as file:
        sheet = np.asarray(file.convert("RGB")).astype(int)
    assert sheet.shape[0] == 2 * sheet_of.MARGIN + 46 + 2 * (sheet_of.SIDE + sheet_of.GAP)
    row = sheet_of.SIDE + sheet_of.GAP
    top = sheet_of.MARGIN + 46 + sheet_of.SIDE // 2
    right = sheet.shape[1] - sheet_of.MARGIN
    for number, channel in enumerate((2, 0)):  # blue stands first
        for column in range(3):
            pixel = sheet[top + number * row, right - (3 - column) * row + sheet_of.SIDE // 2]
            assert pixel.argmax() == channel, (number, column, pixel)
    assert vlprompt("data", "show", root, "--rows", 1, "--out", "one.png").code == 0
    with Image.open("one.png") as file:
        assert file.height == sheet.shape[0] - row
    for wrong in ("--columns", "--rows"):
        refused = vlprompt("data", "show", root, wrong, 0, "--out", "none.png")
        assert refused.code == 2
        assert "at least 1" in refused.err
    assert not Path("none.png").exists()
