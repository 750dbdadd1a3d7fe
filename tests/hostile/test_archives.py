"""Archives and transfers that want more than they say: nothing is written outside, nothing grows without end."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.data.make import encoded, noise
from tests.hostile import values
from vlprompt.data import Spool, archive, open_shards
from vlprompt.data.archive import Unsafe, unpack
from vlprompt.data.download import AddressRefused, Fetcher
from vlprompt.data.papers.catalogue import Address
from vlprompt.errors import UserError

QUICK = Fetcher(tries=2, timeout=0.3, sleep=lambda seconds: None)


def tar(
    *members: tuple[str, bytes, str],
    name: str = "a.tar",
    mode: str = "w",
    size: int = 3,
    pax: dict[str, str] | None = None,
) -> Callable[[Path], Path]:
    """(name, kind, target) of each member; kinds are those of tarfile, content is `size` bytes of 3; pax: overrides."""

    def write(folder: Path) -> Path:
        with tarfile.open(folder / name, mode) as out:  # type: ignore[call-overload]
            for path, kind, target in members:
                info = tarfile.TarInfo(path)
                info.type, info.linkname = kind, target
                info.size = size if kind == tarfile.REGTYPE else 0
                info.pax_headers = pax or {}
                out.addfile(info, io.BytesIO(b"abc"))
        return folder / name

    return write


def zipped(*members: tuple[str, bytes, int], name: str = "a.zip") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data, mode in members:
                info = zipfile.ZipInfo(path)
                info.external_attr = mode << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
        return folder / name

    return write


LONG = "/".join(["d" * 150] * 40)
BAD: dict[str, Callable[[Path], Path]] = {
    "upwards": tar(("../x", tarfile.REGTYPE, "")),
    "upwards within": tar(("a/../../x", tarfile.REGTYPE, "")),
    "absolute": tar(("/tmp/x", tarfile.REGTYPE, "")),
    "a link": tar(("a", tarfile.SYMTYPE, "/tmp"), ("a/x", tarfile.REGTYPE, "")),
    "a link inside": tar(("a", tarfile.SYMTYPE, "b")),
    "a hard link": tar(("a", tarfile.LNKTYPE, "../x")),
    "links behind a path that is too long to resolve": tar(
        (LONG, tarfile.DIRTYPE, ""), (f"{LONG}/l", tarfile.SYMTYPE, "../" * 60), ("l/x", tarfile.REGTYPE, "")
    ),
    "a long path": tar((f"{LONG}/x", tarfile.REGTYPE, "")),
    "a device": tar(("a", tarfile.CHRTYPE, "")),
    "a pipe": tar(("a", tarfile.FIFOTYPE, "")),
    "a drive": tar(("c:x", tarfile.REGTYPE, "")),
    "a backslash": tar(("..\\x", tarfile.REGTYPE, "")),
    "a file where a folder is": tar(("a/b", tarfile.REGTYPE, ""), ("a", tarfile.REGTYPE, "")),
    "zip upwards": zipped(("../x", b"abc", 0o100644)),
    "zip absolute": zipped(("/x", b"abc", 0o100644)),
    "zip link": zipped(("a", b"/tmp", 0o120777)),
    "zip bomb": zipped(("a", bytes(200_000_000), 0o100644)),
    "tar bomb": lambda folder: _big(folder),
    "a long PAX header": tar(("a", tarfile.REGTYPE, ""), name="a.tgz", mode="w:gz", pax={"comment": "x" * (1 << 21)}),
    "a size in a PAX header": tar(("a", tarfile.REGTYPE, ""), pax={"size": "99999999999"}),
    "a negative size in a PAX header": tar(("a", tarfile.REGTYPE, ""), pax={"size": "-512"}),
    "a path in a PAX header": tar(("a", tarfile.REGTYPE, ""), pax={"path": "../x"}),
    "holes in a PAX header": tar(
        ("a", tarfile.REGTYPE, ""), pax={"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    ),
    "no tar": lambda folder: _bytes(folder / "a.tar", b"x" * 2000),
    "no zip": lambda folder: _bytes(folder / "a.zip", b"x" * 2000),
}


def _big(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.size = 200_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return folder / "a.tar.gz"


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("write", BAD.values(), ids=BAD.keys())
def test_nothing_is_written_outside(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source = write(tmp_path)
    into = tmp_path / "deep" / "into"
    with pytest.raises(Unsafe):
        unpack(source, into)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "deep"}
    assert [path for path in tmp_path.rglob("*") if path.is_symlink()] == []
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) < 100_000_000


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_empty_files_and_folders_take_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes) -> None:
    monkeypatch.setattr(archive, "AND", 1 << 18)
    source = tar(*((f"{i}", kind, "") for i in range(500)), name="a.tgz", mode="w:gz", size=0)(tmp_path)
    with pytest.raises(Unsafe, match="100 times its size"):
        unpack(source, tmp_path / "into")


def test_a_good_archive_is_unpacked(tmp_path: Path) -> None:
    files = tar(("a/b", tarfile.REGTYPE, ""), ("c", tarfile.DIRTYPE, ""), ("./d", tarfile.REGTYPE, ""))(tmp_path)
    unpack(files, tmp_path / "out")
    assert (tmp_path / "out/a/b").read_bytes() == (tmp_path / "out/d").read_bytes() == b"abc"
    assert (tmp_path / "out/c").is_dir()


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip"])
def test_torn_archives_are_unpacked_or_refused(tmp_path: Path, kind: str) -> None:
    members = [(f"folder{i}/{i}.bin", tarfile.REGTYPE, "") for i in range(20)]
    if kind == "a.zip":
        path = zipped(*((name, b"abc" * 50, 0) for name, _, _ in members))(tmp_path)
    else:
        path = tar(*members, name=kind, mode="w:gz" if kind.endswith("gz") else "w")(tmp_path)
    whole, stream = path.read_bytes(), random.Random(0)
    for number in range(150):
        path.write_bytes(values.torn(whole, stream))
        try:
            unpack(path, tmp_path / f"out{number}")
        except Unsafe:
            continue
    assert {one.name for one in tmp_path.iterdir() if not one.name.startswith("out")} == {kind}


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            with suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A body without a length that would never end."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(bytes(1000))


def moved(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()

    return answer


def garbled(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(
        b"HTTP/1.0 200 OK\r\nContent-Length: 9" + b"9" * 5000 + b"\r\nContent-Range: bytes x\r\n\r\nabc"
    )


def said(body: bytes, code: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def backwards(handler: BaseHTTPRequestHandler) -> None:
    """A chunk of negative length."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + bytes(500))


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each before the connection counts as dead."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


@pytest.mark.parametrize(
    "answer",
    [
        said(gzip.compress(bytes(1000)), Content_Encoding="gzip"),
        said(bytes(1000), code=206),
        said(b"", code=204),
        backwards,
        dripping,
        endless,
        cut,
        garbled,
        moved("ftp://localhost/x"),
        moved("file:///etc/passwd"),
        moved("/again"),
        moved("http://["),
    ],
)
def test_a_transfer_ends(tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with serving(answer) as url:
        address = Address(url=f"{url}/file.tar", source="the test", size=1000 if answer is endless else None)
        with pytest.raises(AddressRefused):
            QUICK.fetch(address, tmp_path)
        with pytest.raises(UserError, match="cannot be fetched"):
            open_shards(url, spool=Spool(tmp_path, fetcher=QUICK))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 1 << 20


def test_a_packed_file_that_is_called_so_is_kept_as_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(b"abc")
    with serving(said(packed, Content_Encoding="x-gzip")) as url:
        got = QUICK.fetch(Address(url=f"{url}/file.tar.gz", source="the test"), tmp_path)
    assert got.path.read_bytes() == packed


def test_a_file_whose_end_nobody_states_is_not_kept(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"abc")

    with serving(answer) as url, pytest.raises(AddressRefused, match="does not say how long"):
        QUICK.fetch(Address(url=f"{url}/file.tar", source="the test"), tmp_path)


@pytest.mark.parametrize("url", ["ftp://localhost/x", "file:///etc/passwd", "http://", "http://[", "nothing", ""])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(AddressRefused):
        QUICK.fetch(Address(url=url, source="the test", name="x"), tmp_path)


def manifest(folder: Path) -> dict[str, object]:
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for name, data in (
            ("0.png", encoded(noise(1))),
            ("0.cls", b"1"),
            ("1.png", encoded(noise(2))),
            ("1.cls", b"0"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    row = {"file": "train-0.tar", "samples": 2, "bytes": (folder / "train-0.tar").stat().st_size, "sha256": None}
    return {"schema": 1, "name": "x", "class_names": ["cat", "dog"], "template": "a {}.", "parts": {"train": [row]}}


@pytest.mark.parametrize(
    "row",
    [
        {"samples": 10**12},
        {"samples": -1},
        {"samples": 1.5},
        {"samples": True},
        {"bytes": None, "samples": 10**7},
        {"bytes": 10**18, "samples": 10**12},
        {"file": "../../x.tar"},
        {"file": "/etc/passwd"},
        {"file": "file:///etc/passwd"},
        {"file": "\x00"},
        {"file": 3},
        {"sha256": "no"},
    ],
)
def test_a_list_of_shards_is_checked(tmp_path: Path, row: dict[str, object]) -> None:
    good = manifest(tmp_path)
    good["parts"]["train"][0] |= row  # type: ignore[index]
    (tmp_path / "shards.json").write_text(json.dumps(good), encoding="utf-8")
    with pytest.raises(UserError):
        open_shards(str(tmp_path), spool=Spool(tmp_path))


def test_every_altered_value_of_a_list_and_every_torn_shard_ends_well(tmp_path: Path) -> None:
    good, stream = manifest(tmp_path), random.Random(0)
    whole = (tmp_path / "train-0.tar").read_bytes()
    for way in list(values.places(good)):
        for odd in stream.sample(values.ODD, 8):
            (tmp_path / "shards.json").write_bytes(values.written(values.put(good, way, odd)))
            read_all(tmp_path)
    (tmp_path / "shards.json").write_bytes(values.written(good))
    for _ in range(150):
        (tmp_path / "train-0.tar").write_bytes(values.torn(whole, stream))
        read_all(tmp_path)


def read_all(folder: Path) -> None:
    try:
        pool = open_shards(str(folder), spool=Spool(folder)).train
    except UserError:
        return
    for number in range(min(len(pool), 3)):
        try:
            pool.sample(number).read()
        except UserError:
            continue


def test_a_shard_whose_name_is_too_long_is_left_out(tmp_path: Path) -> None:
    listed = json.dumps(manifest(tmp_path)).replace("train-0.tar", "a" * 300 + ".tar")
    (tmp_path / "shards.json").write_text(listed, encoding="utf-8")
    read_all(tmp_path)  # its images are left out, as those of a file that is gone
