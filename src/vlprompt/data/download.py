"""Fetching files, the one way: resumed after a cut, never longer than stated, checked against the published checksum, there whole or
not at all.

FILE.part         what has come so far
FILE.part.json    of which version of the file (ETag or date), so two versions are never joined
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vlprompt import disk, reading
from vlprompt.data.papers.catalogue import UNKNOWN, Address
from vlprompt.errors import data_error

TRIES = 5
"""How often a transfer may fail in a row without a new byte."""
FIRST_WAIT = 1.0
"""Seconds before the second try; doubled for each further one."""
TIMEOUT = 60.0
"""Seconds without a byte after which a transfer is broken, and in which `LEAST` bytes must come."""
LEAST = 1 << 14
SAID = 200
"""Letters that are shown of what a server says."""
CHUNK = 1 << 20
AGENT = "vlprompt"
MOST_UNSTATED, SMALL = 1 << 36, 1 << 26
"""Bytes: of a file whose size nobody states, and of one that is read into memory."""
HUB_DIGEST = "X-Linked-ETag"
"""Where the Hub says a file's SHA-256, on the answer that sends on to the storage."""
Advance = Callable[[int, int | None], None]
"""Called with the bytes that are there by now, and the file's size where it is known."""
T = TypeVar("T")


def is_url(place: str) -> bool:
    """Whether a place is behind http or https."""
    try:
        return urlsplit(place).scheme in ("http", "https")
    except ValueError:
        return False


class Broken(Exception):
    """A transfer that ended early or was refused for now; another try goes on."""


class AddressRefused(Exception):
    """An address that does not give the file; another one may."""


class Fetched(NamedTuple):
    """A file that has come."""

    path: Path
    checked: str
    """The checksum that it was compared with, and whose that is; empty: none is published."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How files are fetched; tests wait less."""

    tries: int = TRIES
    wait: float = FIRST_WAIT
    timeout: float = TIMEOUT
    sleep: Callable[[float], None] = field(default=time.sleep)

    def fetch(self, address: Address, folder: Path, progress: Advance = lambda done, size: None) -> Fetched:
        """The file of an address, in `folder`; a part that is there from before is gone on with.

        AddressRefused: the address gives no file, another than the published one, or breaks off again and again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target, said = folder / address.file, ""
        part = target.with_name(f"{target.name}.part")
        if not target.is_file():
            said = self._tried(lambda: self._once(address, part, progress), lambda: _size(part))
            os.replace(part, target)
            _tag_file(part).unlink(missing_ok=True)
        return Fetched(target, _compared(address, target, said))

    def _tried(self, once: Callable[[], T], have: Callable[[], int]) -> T:
        """What `once` gives, tried again where it is broken. AddressRefused: so many times in a row without a new byte."""
        failures = 0
        while True:
            before = have()
            try:
                return once()
            except Broken as problem:
                failures = 1 if have() > before else failures + 1
                if failures >= self.tries:
                    raise AddressRefused(f"{problem}, {failures} times in a row") from problem
                self.sleep(self.wait * 2 ** (failures - 1))

    def _once(self, address: Address, part: Path, progress: Advance) -> str:
        """One request: from the end of what is there, or from the beginning. The SHA-256 that the Hub says; "" where it says none.

        Broken: more has to come. AddressRefused: too much came.
        """
        tag = _tag_of(part)
        have = _size(part) if tag else 0
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        answer = self._ask(address.url, headers, part)
        with answer.stream as stream:
            if answer.start not in (0, have):
                part.unlink(missing_ok=True)
                raise Broken(f"bytes from {have:,} were asked for, those from {answer.start:,} came")
            size = address.size if answer.size is None else answer.size
            if size != (address.size or size):
                raise AddressRefused(f"the file has {size:,} bytes; stated are {address.size:,}")
            if size is None and address.checksum == UNKNOWN and not answer.framed:
                raise AddressRefused(
                    "the server does not say how long the file is, so a part would look like the whole"
                )
            if not answer.start:
                disk.write_json(_tag_file(part), {"tag": answer.tag})
            have = _copy(stream, part, answer.start, self.timeout, progress, size)
        if size is not None and have != size:
            raise Broken(f"{have:,} of {size:,} bytes came")
        return answer.sha256

    def _ask(self, url: str, headers: Mapping[str, str], part: Path) -> _Answer:
        if not is_url(url):
            raise AddressRefused("only http and https are fetched from")
        hops = _Hops()
        try:
            request = urllib.request.Request(url, headers=dict(headers))
            stream = urllib.request.build_opener(hops).open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                part.unlink(missing_ok=True)
                raise Broken("the part on disk does not belong to the file on the server") from error
            said = f"the server answers {error.code} {error.reason}"[:SAID]
            raise (
                Broken(said) if error.code in (408, 425, 429) or error.code >= 500 else AddressRefused(said)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(str(getattr(error, "reason", "") or error or type(error).__name__)[:SAID]) from error
        except ValueError as error:
            raise AddressRefused(f"it is not an address ({error})") from error
        return _Answer.of(stream, hops.sha256)

    def small(self, url: str, most: int = SMALL) -> bytes:
        """A small file's bytes. AddressRefused: it cannot be had, or is larger than `most`."""
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "file")

            def once() -> bytes:
                answer = self._ask(url, {"User-Agent": AGENT, "Accept-Encoding": "identity"}, part)
                with answer.stream as stream:
                    if stream.status != 200:
                        raise AddressRefused(f"a part came instead of the file (answer {stream.status})")
                    have = _copy(stream, part, 0, self.timeout, most=most)
                    length = stream.headers.get("Content-Length", "")
                if length and reading.whole(length) != have:
                    raise Broken(f"{have:,} of {length} bytes came")
                return part.read_bytes()

            return self._tried(once, lambda: 0)


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what the Hub says on the way."""

    sha256 = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        said = str(headers.get(HUB_DIGEST, "")).strip('"')
        if re.fullmatch("[0-9a-f]{64}", said):
            self.sha256 = said
        if not is_url(newurl) or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            raise AddressRefused(
                f"it leads from {urlsplit(req.full_url).scheme} to {urlsplit(newurl).scheme or 'nowhere'}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a server has to say of a file, before its bytes."""

    stream: Any
    start: int
    """Where in the file the bytes begin."""
    size: int | None
    """Of the whole file."""
    tag: str
    """Of this version of the file; empty where the server names none that can be relied on."""
    sha256: str
    framed: bool
    """Whether the transfer itself says where it ends."""

    @classmethod
    def of(cls, stream: Any, sha256: str) -> _Answer:
        """AddressRefused: it is a page for people, packed although nobody asked for that, or a part that does not say which."""
        headers = stream.headers
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        packed = headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
        packed &= not urlsplit(stream.geturl()).path.endswith(
            (".gz", ".tgz")
        )  # servers say of such a file that it is packed
        page = headers.get_content_type() == "text/html"
        if page or packed or (stream.status != 200 and not (stream.status == 206 and part)):
            stream.close()
            came = "a page for people" if page else "a packed body" if packed else f"an answer {stream.status}"
            raise AddressRefused(f"{came} came instead of the file")
        length = headers.get("Content-Length", "")
        size, start = reading.whole(length), 0
        if stream.status == 206 and part:
            start = reading.whole(part[1]) or 0
            size = reading.whole(part[2]) if part[2] != "*" else None if size is None else start + size
        tag = headers.get("ETag", "")
        weak = tag.startswith("W/")
        return cls(
            stream=stream,
            start=start,
            size=size,
            tag=headers.get("Last-Modified", "") if weak or not tag else tag,
            sha256=sha256,
            framed=bool(getattr(stream, "chunked", False)),
        )


def _copy(
    stream: Any,
    part: Path,
    start: int,
    timeout: float,
    progress: Advance = lambda done, size: None,
    size: int | None = None,
    most: int = MOST_UNSTATED,
) -> int:
    """Append what comes at `start`; the bytes that are there in the end.

    Broken: it broke off. AddressRefused: more came than stated, or fewer than `LEAST` bytes in `timeout` seconds.
    """
    done, most = start, most if size is None else size
    since, had = time.monotonic(), done
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while True:
            try:
                block = stream.read1(CHUNK)  # what is there: `read` would wait for all of it, a byte a minute
            except http.client.IncompleteRead as error:
                file.write(error.partial)
                raise Broken("the connection broke off") from error
            except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a chunk of negative length
                raise Broken(str(error) or type(error).__name__) from error
            if not block:
                return done
            if time.monotonic() - since > timeout:
                if done - had < LEAST:
                    raise AddressRefused(f"fewer than {LEAST:,} bytes came in {timeout:.0f} seconds")
                since, had = time.monotonic(), done
            done += len(block)
            if done > most:
                break
            file.write(block)
            progress(done, size)
    part.unlink()
    raise AddressRefused(f"more than {most:,} bytes came")


class Spool:
    """Where fetched shards are kept: the least recently used go when there are more than `limit` bytes of them."""

    def __init__(self, root: Path, limit: int = 20 * 2**30, fetcher: Fetcher | None = None) -> None:
        self.root, self.limit, self.fetcher = root, limit, fetcher or Fetcher()

    def path(self, place: str, size: int | None, sha256: str | None) -> Path:
        """A local file with the content of a path or URL, checked against `size` and `sha256` where it is fetched.

        Several processes may ask at once: one fetches, the others wait. UserError where it cannot be had.
        """
        if not is_url(place):
            return Path(place)
        name = hashlib.sha256(f"{place} {sha256 or size or ''}".encode()).hexdigest()[:16]
        path = self.root / f"{name}-{PurePosixPath(urlsplit(place).path).name[-100:]}"
        if not path.is_file():
            address = Address(
                url=place,
                source="the list of shards",
                checksum=f"sha256:{sha256}" if sha256 else UNKNOWN,
                checksum_source="the list of shards",
                size=size,
                name=path.name,
            )
            with disk.one_at_a_time(self.root / f".{name}.lock"):
                if not path.is_file():
                    try:
                        self.fetcher.fetch(address, self.root)
                    except AddressRefused as problem:
                        raise data_error(f"{place} cannot be fetched ({problem}).") from problem
                    self._trim(path)
        os.utime(path)
        return path

    def read(self, url: str) -> bytes:
        """A small file's bytes, which are not kept. UserError where it cannot be had."""
        try:
            return self.fetcher.small(url)
        except AddressRefused as problem:
            raise data_error(f"{url} cannot be fetched ({problem}).") from problem

    def _trim(self, newest: Path) -> None:
        """Delete the files that were not used for the longest time. Who has one open can read on."""
        files = sorted(
            (one for one in self.root.iterdir() if one.suffix == ".tar"), key=lambda one: one.stat().st_mtime
        )
        total = sum(one.stat().st_size for one in files)
        for one in files:
            if total <= self.limit:
                return
            if one != newest:
                total -= one.stat().st_size
                one.unlink(missing_ok=True)


def _compared(address: Address, path: Path, said: str) -> str:
    """Which checksum a file has been compared with. AddressRefused, and the file is gone: it has another."""
    published, whose = address.checksum, address.checksum_source
    if published == UNKNOWN and said:
        published, whose = f"sha256:{said}", "the Hub"
    if published == UNKNOWN:
        return ""
    kind, _, digest = published.partition(":")
    with path.open("rb") as file:
        own = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if own != digest:
        path.unlink()
        raise AddressRefused(f"what came has {kind} {own}; published is {digest} ({whose})")
    return f"{published} ({whose})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _tag_of(part: Path) -> str:
    """Of which version a part is; empty: nobody knows, so it cannot be continued."""
    try:
        return str(reading.json_object(_tag_file(part))["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
