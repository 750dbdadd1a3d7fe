"""Fetching one file: resumed after a cut, checked against its published checksum, there whole or not at all.

FILE.part         what has come so far
FILE.part.json    of which version of the file (ETag or date), so that two versions are never joined
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any

from vlprompt import disk
from vlprompt.data.papers.row import UNKNOWN, Address

TRIES = 5
"""How often a transfer may fail in a row without a new byte."""
FIRST_WAIT = 1.0
"""Seconds before the second try; doubled for each further one."""
TIMEOUT = 60.0
CHUNK = 1 << 20
AGENT = "vlprompt"
HUB_DIGEST = "X-Linked-ETag"
"""Where the Hub says a file's SHA-256, on the answer that sends on to the storage."""
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there by now, and the file's size where it is known."""


class Broken(Exception):
    """A transfer that ended early or was refused for now; another try goes on."""


class Refused(Exception):
    """An address that does not give the file; another one may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that has come."""

    address: Address
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

    def fetch(self, address: Address, folder: Path, progress: Progress = lambda done, size: None) -> Fetched:
        """The file of an address, in `folder`; a part that is there from before is gone on with.

        Refused: the address gives no file, another than the published one, or breaks off again and again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / address.file
        said = "" if target.is_file() else self._transfer(address, target, progress)
        return Fetched(address=address, path=target, checked=_compared(address, target, said))

    def _transfer(self, address: Address, target: Path, progress: Progress) -> str:
        """Get the whole file. The SHA-256 that the Hub says it has; empty where it says none."""
        part = target.with_name(f"{target.name}.part")
        failures = 0
        while True:
            before = _size(part)
            try:
                said = self._once(address, part, progress)
            except Broken as problem:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= self.tries:
                    raise Refused(f"{problem}, {failures} times in a row") from problem
                self.sleep(self.wait * 2 ** (failures - 1))
                continue
            os.replace(part, target)
            _tag_file(part).unlink(missing_ok=True)
            return said

    def _once(self, address: Address, part: Path, progress: Progress) -> str:
        """One request: from the end of what is there, or from the beginning. Broken: more has to come."""
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
            if not answer.start:
                disk.write_json(_tag_file(part), {"tag": answer.tag})
            have = _copy(stream, part, answer.start, progress, answer.size)
        if answer.size is not None and have != answer.size:
            if have > answer.size:
                part.unlink()
            raise Broken(f"{have:,} of {answer.size:,} bytes came")
        return answer.sha256

    def _ask(self, url: str, headers: Mapping[str, str], part: Path) -> _Answer:
        hops = _Hops()
        try:
            request = urllib.request.Request(url, headers=dict(headers))
            stream = urllib.request.build_opener(hops).open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                part.unlink(missing_ok=True)
                raise Broken("what is here is no part of what is there") from error
            said = f"the server answers {error.code} {error.reason}"
            raise Broken(said) if error.code in (408, 425, 429) or error.code >= 500 else Refused(said) from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(str(getattr(error, "reason", "") or error or type(error).__name__)) from error
        return _Answer.of(stream, hops.sha256)


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what the Hub says on the way."""

    sha256 = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        said = str(headers.get(HUB_DIGEST, "")).strip('"')
        if re.fullmatch("[0-9a-f]{64}", said):
            self.sha256 = said
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

    @classmethod
    def of(cls, stream: Any, sha256: str) -> _Answer:
        """Refused: it is a page for people."""
        headers = stream.headers
        if headers.get_content_type() == "text/html":
            stream.close()
            raise Refused("a page for people came instead of the file")
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        length = headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        start = 0
        if stream.status == 206 and part:
            start = int(part[1])
            size = int(part[2]) if part[2] != "*" else None if size is None else start + size
        tag = headers.get("ETag", "")
        weak = tag.startswith("W/")
        return cls(
            stream=stream,
            start=start,
            size=size,
            tag=headers.get("Last-Modified", "") if weak or not tag else tag,
            sha256=sha256,
        )


def _copy(stream: Any, part: Path, start: int, progress: Progress, size: int | None) -> int:
    """Append what comes at `start`; the bytes that are there in the end. Broken: it broke off."""
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while True:
            try:
                block = stream.read(CHUNK)
            except http.client.IncompleteRead as error:
                file.write(error.partial)
                raise Broken("the connection broke off") from error
            except (OSError, http.client.HTTPException) as error:
                raise Broken(str(error) or type(error).__name__) from error
            if not block:
                return done
            file.write(block)
            done += len(block)
            progress(done, size)


def _compared(address: Address, path: Path, said: str) -> str:
    """Which checksum a file has been compared with. Refused, and the file is gone: it has another."""
    published, whose = address.checksum, address.checksum_source
    if published == UNKNOWN and said:
        published, whose = f"sha256:{said}", "the Hub"
    if published == UNKNOWN:
        return ""
    kind, _, digest = published.partition(":")
    own = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            own.update(block)
    if own.hexdigest() != digest:
        path.unlink()
        raise Refused(f"what came has {kind} {own.hexdigest()}; published is {digest} ({whose})")
    return f"{published} ({whose})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _tag_of(part: Path) -> str:
    """Of which version a part is; empty: nobody knows, so that it cannot be gone on with."""
    try:
        return str(json.loads(_tag_file(part).read_text(encoding="utf-8"))["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
