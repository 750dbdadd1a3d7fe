"""Files that lie behind a URL: fetched whole, once per machine, and kept in a directory of limited size."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from vlprompt.errors import DATA, UserError

TRIES = 4
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled for each further one."""
TIMEOUT = 60.0
CHUNK = 1 << 20


def is_url(place: str) -> bool:
    """Whether a place is behind http or https."""
    return urlsplit(place).scheme in ("http", "https")


def read_url(url: str) -> bytes:
    """A small file's bytes. UserError (exit 3) after four tries."""
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                data: bytes = answer.read()
                return data
        except (OSError, ValueError) as error:
            _wait_or_raise(url, attempt, error)
    raise AssertionError("the last try raises")


def _wait_or_raise(url: str, attempt: int, error: Exception) -> None:
    """Wait before another try; UserError where it was the last one, or another would be of no use."""
    final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
    if final or attempt == TRIES - 1 or isinstance(error, ValueError):
        raise UserError(f"{url} cannot be fetched ({error}).", exit_code=DATA) from error
    time.sleep(FIRST_WAIT * 2**attempt)


class Spool:
    """Where fetched files are kept: the least recently used go when there are more than `limit` bytes of them."""

    def __init__(self, root: Path, limit: int = 20 * 2**30) -> None:
        self.root, self.limit = root, limit

    def path(self, place: str, size: int | None, sha256: str | None) -> Path:
        """A local file with the content of a path or URL, checked against `size` and `sha256` where it is fetched.

        Several processes may ask at once: one fetches, the others wait. UserError where it cannot be had.
        """
        if not is_url(place):
            return Path(place)
        name = hashlib.sha256(f"{place} {sha256 or size or ''}".encode()).hexdigest()[:16]
        path = self.root / f"{name}-{PurePosixPath(urlsplit(place).path).name}"
        if not path.is_file():
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / f".{name}.lock").open("a+", encoding="utf-8") as lock:
                _hold(lock.fileno())
                if not path.is_file():
                    _fetch(place, path, size, sha256)
                    self._trim(path)
        os.utime(path)
        return path

    def _trim(self, newest: Path) -> None:
        """Delete the files that were not used for the longest time. Who has one open can read on."""
        files = sorted((one for one in self.root.iterdir() if one.suffix == ".tar"), key=_used)
        total = sum(one.stat().st_size for one in files)
        for one in files:
            if total <= self.limit:
                return
            if one != newest:
                total -= one.stat().st_size
                one.unlink(missing_ok=True)


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _hold(handle: int) -> None:
    """Wait for the only lock on an open file; it goes with the handle. Without such locks (Windows) two may fetch one file."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(handle, fcntl.LOCK_EX)


def _fetch(url: str, path: Path, size: int | None, sha256: str | None) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        for attempt in range(TRIES):
            try:
                seen, digest = _download(url, part)
                if size is not None and seen != size:
                    raise OSError(f"{seen} bytes instead of {size}")
                if sha256 is not None and digest != sha256:
                    raise OSError("its SHA-256 is not the list's")
                os.replace(part, path)
                return
            except (OSError, ValueError) as error:
                _wait_or_raise(url, attempt, error)
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, part: Path) -> tuple[int, str]:
    digest, seen = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as file:
        while block := answer.read(CHUNK):
            file.write(block)
            digest.update(block)
            seen += len(block)
    return seen, digest.hexdigest()
