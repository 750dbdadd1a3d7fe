"""Getting a data set: archives from a server on this machine to a folder that can be read."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data import layouts
from tests.data.serving import Behaviour, Server, serving
from vlprompt.data import open_dataset
from vlprompt.data.download import Advance, Fetcher
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import Address, Download, SetRow
from vlprompt.data.papers.obtain import obtain, state, wanted
from vlprompt.errors import DATA, UserError

QUICK = Fetcher(tries=2, sleep=lambda seconds: None)
SPLIT = "split_zhou_DescribableTextures.json"


class Told:
    """What was said on the way."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, name: str) -> Advance:
        return lambda done, size: None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def textures(tmp_path: Path) -> dict[str, bytes]:
    """A miniature of DTD as an archive holds it, with its split file."""
    layouts.dtd(tmp_path / "made/dtd")
    split = {
        "train": [["banded/image_0000.jpg", 0, "banded"], ["zigzagged/image_0000.jpg", 1, "zigzagged"]],
        "val": [],
        "test": [["banded/image_0001.jpg", 0, "banded"]],
    }
    (tmp_path / "made/dtd" / SPLIT).write_text(json.dumps(split), encoding="utf-8")
    root = tmp_path / "made"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def row_of(server: Server, *downloads: tuple[tuple[str, ...], list[str]], md5: str = "") -> SetRow:
    """DTD's row with addresses on the server."""
    made = tuple(
        Download(
            gives=gives,
            mirrors=tuple(
                Address(
                    url=server.url(name), source="the test", checksum=md5 or "unknown", checksum_source="its author"
                )
                for name in names
            ),
        )
        for gives, names in downloads
    )
    return dataclasses.replace(catalogue.get("dtd"), downloads=made)


def test_one_archive_brings_images_and_split_file(server: Server, tmp_path: Path, textures: dict[str, bytes]) -> None:
    server.files["dtd.zip"] = Behaviour(zipped(textures), cut_at=[2000])
    row = row_of(server, (("images",), ["dtd.zip"]), ((SPLIT,), ["split.json"]))
    root, told = tmp_path / "all", Told()
    before = state(row, root)
    assert (before.word, before.missing) == ("not there", ("images/",))
    after = obtain(row, root, told, QUICK)
    assert (after.word, after.usable, after.split) == ("complete", True, True)
    assert sorted(path.name for path in root.iterdir()) == ["dtd"]
    data = open_dataset(root / "dtd")
    assert (len(data.train), data.class_names) == (2, ("banded", "zigzagged"))
    assert [name for name, _ in server.asked] == ["dtd.zip", "dtd.zip"]
    assert told.lines == [f"{server.url('dtd.zip')} (named by the test)", "checksum: none is published"]
    obtain(row, root, told, QUICK)
    assert len(server.asked) == 2


def test_the_next_mirror_and_the_split_file_alone(server: Server, tmp_path: Path, textures: dict[str, bytes]) -> None:
    data = tarred({name: one for name, one in textures.items() if name.startswith("dtd/images")})
    server.files["dtd-r1.tar.gz"] = Behaviour(data)
    server.files["split.json"] = Behaviour(textures[f"dtd/{SPLIT}"])
    row = row_of(server, (("images",), ["gone.zip", "dtd-r1.tar.gz"]), ((SPLIT,), ["split.json"]))
    told = Told()
    assert obtain(row, tmp_path / "all", told, QUICK).word == "complete"
    assert any("404" in line for line in told.lines)
    assert len(open_dataset(tmp_path / "all/dtd").train) == 2


def test_a_wrong_checksum_and_a_damaged_archive(server: Server, tmp_path: Path, textures: dict[str, bytes]) -> None:
    server.files["dtd.zip"] = Behaviour(zipped(textures))
    row = row_of(server, (("images",), ["dtd.zip"]), md5="md5:" + "0" * 32)
    with pytest.raises(UserError, match="published is 000") as caught:
        obtain(row, tmp_path / "all", Told(), QUICK)
    assert caught.value.exit_code == DATA
    assert "By hand: put images" in str(caught.value)
    server.files["dtd.zip"] = Behaviour(zipped(textures)[:-30])
    with pytest.raises(UserError, match="damaged"):
        obtain(row_of(server, (("images",), ["dtd.zip"])), tmp_path / "all", Told(), QUICK)
    assert not (tmp_path / "all/dtd/images").exists()
    good = zipped(textures)
    server.files["dtd.zip"] = Behaviour(good)
    right = row_of(server, (("images",), ["dtd.zip"]), md5=f"md5:{hashlib.md5(good).hexdigest()}")
    assert obtain(right, tmp_path / "all", Told(), QUICK).usable


def test_an_archive_of_something_else(server: Server, tmp_path: Path) -> None:
    server.files["dtd.zip"] = Behaviour(zipped({"other/a.txt": b"x"}))
    with pytest.raises(UserError, match=r"there is no images in dtd\.zip"):
        obtain(row_of(server, (("images",), ["dtd.zip"])), tmp_path / "all", Told(), QUICK)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_no_archive_writes_outside(server: Server, tmp_path: Path, kind: str) -> None:
    files = {"../../../../escaped.txt": b"x", "images/a.jpg": b"x"}
    server.files[f"dtd.{kind}"] = Behaviour(zipped(files) if kind == "zip" else tarred(files))
    with pytest.raises(UserError):
        obtain(row_of(server, (("images",), [f"dtd.{kind}"])), tmp_path / "a/b/c", Told(), QUICK)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_split_file_that_is_a_page(server: Server, tmp_path: Path) -> None:
    server.files["split.json"] = Behaviour(b"Sign in to continue", kind="text/plain")
    with pytest.raises(UserError, match="not JSON"):
        obtain(row_of(server, ((SPLIT,), ["split.json"])), tmp_path / "all", Told(), QUICK)
    assert not (tmp_path / "all/dtd" / SPLIT).exists()


def test_what_is_there_is_left_as_it_is(server: Server, tmp_path: Path, textures: dict[str, bytes]) -> None:
    layouts.write(tmp_path / "all/dtd/images/mine.txt", "mine")
    server.files["split.json"] = Behaviour(textures[f"dtd/{SPLIT}"])
    row = row_of(server, (("images",), ["dtd.zip"]), ((SPLIT,), ["split.json"]))
    assert [one.gives for one in wanted(row, tmp_path / "all/dtd")] == [(SPLIT,)]
    obtain(row, tmp_path / "all", Told(), QUICK)
    assert [path.name for path in (tmp_path / "all/dtd/images").iterdir()] == ["mine.txt"]
    assert [name for name, _ in server.asked] == ["split.json"]


def test_the_states_in_a_word(tmp_path: Path) -> None:
    row = catalogue.get("eurosat")
    assert state(row, tmp_path).word == "not there"
    (tmp_path / "eurosat").mkdir()
    assert state(row, tmp_path).word == "incomplete"
    layouts.eurosat(tmp_path / "eurosat")
    assert state(row, tmp_path).word == "no split file"
    (tmp_path / "eurosat/split_zhou_EuroSAT.json").write_text("{}", encoding="utf-8")
    assert state(row, tmp_path).word == "complete"


def test_every_address_has_a_source_and_every_checksum_its_own() -> None:
    for row in catalogue.ROWS:
        assert row.licence
        assert row.downloads or row.manual
        for address in (one for download in row.downloads for one in download.mirrors):
            assert address.source
            assert (address.checksum == "unknown") == (address.checksum_source == "unknown")
            kind, _, digest = address.checksum.partition(":")
            assert address.checksum == "unknown" or len(digest) == {"md5": 32, "sha256": 64}[kind]
        gifts = {gift for download in row.downloads for gift in download.gives}
        assert gifts <= set(row.wanted)


def test_what_downloads_bring_is_all_that_is_wanted() -> None:
    for row in catalogue.ROWS:
        gifts = {gift for download in row.downloads for gift in download.gives}
        assert gifts == set(row.wanted) or row.manual, row.name


def test_a_drive_address_names_its_file() -> None:
    downloads = [download for row in catalogue.ROWS for download in row.downloads]
    drive = [one for download in downloads for one in download.mirrors if "drive.usercontent" in one.url]
    assert len(drive) > 5
    assert all(one.file == one.name != "" and f"id={one.source.rpartition('/')[2]}&" in one.url for one in drive)
