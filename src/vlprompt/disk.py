"""Files that are there whole or not at all, and locks on directories."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vlprompt.errors import UserError


def write_bytes(path: Path, data: bytes, mark: str = "") -> None:
    """Write a file whole: a reader sees the old content or the new, never a part, also after a crash or a power cut.

    The bytes go to a neighbour that is flushed to disk and then renamed over `path`. The neighbour has one fixed name per file:
    the next write overwrites what a killed one leaves behind. mark: is part of that name, where processes write one file at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}{mark}.part")
    try:
        with neighbour.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(neighbour, path)
    finally:
        neighbour.unlink(missing_ok=True)
    _flush_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """As `write_text`, for an object; NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _flush_directory(directory: Path) -> None:
    """Make the rename itself durable, where directories can be opened (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, the quota used up, or the place read-only."""
    return isinstance(error, OSError) and error.errno in FULL


def default_root() -> Path:
    """The cache directory: ``$VLPROMPT_CACHE``, else ``$XDG_CACHE_HOME/vlprompt``, else ``~/.cache/vlprompt``."""
    if own := os.environ.get("VLPROMPT_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "vlprompt"


LOCK = ".lock"
SECONDS_BETWEEN_LOOKS = 0.2
"""While another process holds a lock."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a run directory for this process; the lock goes with the process, however that ends.

    UserError where another process holds it.
    """
    with locked_if_free(directory) as ours:
        if not ours:
            raise UserError(f"{directory} is in use by another vlprompt process. Wait for it, or use another --out.")
        yield


@contextmanager
def locked_if_free(directory: Path) -> Iterator[bool]:
    """As `locked`, but where another process holds the directory the value is False and there is no error."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Wait for a lock file's lock, which goes with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file, poll_interval=SECONDS_BETWEEN_LOOKS):
        yield
