"""Transfers over a real connection to this machine, and every way in which one can go wrong."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.serving import Behaviour, Server, serving
from vlprompt.data.download import AddressRefused, Fetched, Fetcher
from vlprompt.data.papers.catalogue import Address

DATA = random.Random(0).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def address(server: Server, name: str = "file.bin", checksum: str = MD5) -> Address:
    return Address(url=server.url(name), source="the test", checksum=checksum, checksum_source="its author")


def fetch(
    server: Server, folder: Path, checksum: str = MD5, name: str = "file.bin", waits: list[float] | None = None
) -> Fetched:
    quick = Fetcher(tries=3, sleep=(waits if waits is not None else []).append)
    return quick.fetch(address(server, name, checksum), folder)


def ranges(server: Server) -> list[str]:
    return [asked for _, asked in server.asked]


def test_a_file_comes_whole_and_is_checked(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA)
    done: list[tuple[int, int | None]] = []
    fetched = Fetcher().fetch(address(server), tmp_path / "new", lambda now, size: done.append((now, size)))
    assert fetched.path.read_bytes() == DATA
    assert fetched.checked == f"{MD5} (its author)"
    assert done[-1] == (len(DATA), len(DATA))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.bin"]


def test_a_cut_transfer_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, cut_at=[100_000, 50_000])
    waits: list[float] = []
    assert fetch(server, tmp_path, waits=waits).path.read_bytes() == DATA
    assert ranges(server) == ["", "bytes=100000-", "bytes=150000-"]
    assert waits == [1.0, 1.0]


def test_many_cuts_are_no_failure_as_long_as_something_comes(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, cut_at=[10_000] * 12)
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert len(server.asked) == 13


def test_a_transfer_without_progress_is_given_up_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, cut_at=[100_000, 0, 0, 0, 0])
    with pytest.raises(AddressRefused, match=r"100,000 of 300,000 bytes came, 3 times in a row"):
        fetch(server, tmp_path)
    assert (tmp_path / "file.bin.part").stat().st_size == 100_000
    server.files["file.bin"].cut_at.clear()
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server)[-1] == "bytes=100000-"


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, ranges=False, cut_at=[100_000])
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server) == ["", "bytes=100000-"]


def test_a_file_without_a_version_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, tag=None, cut_at=[100_000])
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server) == ["", ""]


def test_a_weak_version_is_none(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, tag='W/"one"', cut_at=[100_000])
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server) == ["", ""]


def test_two_versions_are_never_joined(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(b"x" * 200_000, cut_at=[100_000, 0, 0])
    with pytest.raises(AddressRefused):
        fetch(server, tmp_path)
    server.files["file.bin"] = Behaviour(DATA, tag='"two"')
    assert fetch(server, tmp_path).path.read_bytes() == DATA


def test_a_part_that_is_longer_than_the_file(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA + b"more", cut_at=[len(DATA), 0, 0])
    with pytest.raises(AddressRefused):
        fetch(server, tmp_path)
    server.files["file.bin"] = Behaviour(DATA)  # shorter now, though it claims to be the same
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server)[-2:] == [f"bytes={len(DATA)}-", ""]


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA[:-1] + b"x")
    with pytest.raises(AddressRefused, match=f"published is {MD5.removeprefix('md5:')} \\(its author\\)"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_hubs_own_checksum_is_used_where_none_is_published(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(b"", moved_to="storage.bin", linked=SHA256)
    server.files["storage.bin"] = Behaviour(DATA)
    assert fetch(server, tmp_path, "unknown").checked == f"sha256:{SHA256} (the Hub)"
    server.files["storage.bin"] = Behaviour(DATA + b"x")
    with pytest.raises(AddressRefused, match="sha256"):
        fetch(server, tmp_path / "other", "unknown")


def test_without_any_checksum_that_is_said(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA)
    assert fetch(server, tmp_path, "unknown").checked == ""


def test_a_page_is_no_file(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(b"<html>Are you sure?</html>", kind="text/html; charset=utf-8")
    with pytest.raises(AddressRefused, match="a page for people"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


def test_errors_that_pass_are_waited_for(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, status=[503, 429])
    waits: list[float] = []
    assert fetch(server, tmp_path, waits=waits).path.read_bytes() == DATA
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 3)])
def test_errors_that_do_not_pass(server: Server, tmp_path: Path, status: int, requests: int) -> None:
    server.files["file.bin"] = Behaviour(DATA, status=[status] * 9)
    with pytest.raises(AddressRefused, match=str(status)):
        fetch(server, tmp_path)
    assert len(server.asked) == requests


def test_nobody_there(tmp_path: Path, server: Server) -> None:
    gone = Address(url="http://localhost:1/file.bin", source="the test")
    with pytest.raises(AddressRefused, match="3 times in a row"):
        Fetcher(tries=3, sleep=lambda seconds: None).fetch(gone, tmp_path)


def test_ctrl_c_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.files["file.bin"] = Behaviour(DATA, cut_at=[100_000])

    def stop(done: int, size: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fetcher().fetch(address(server), tmp_path, stop)
    assert 0 < (tmp_path / "file.bin.part").stat().st_size <= 100_000
    server.files["file.bin"].cut_at.clear()
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert ranges(server)[-1].startswith("bytes=")


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(DATA)
    assert fetch(server, tmp_path).path.read_bytes() == DATA
    assert server.asked == []
