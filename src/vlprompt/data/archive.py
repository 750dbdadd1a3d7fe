"""Archives of others, unpacked: regular files and folders, inside one folder, no larger than such an archive can be."""

from __future__ import annotations

import errno
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

TAR, ZIP = (".tar", ".tar.gz", ".tgz"), (".zip",)
CHUNK = 1 << 20
MOST_TIMES, AND, BLOCK = 100, 1 << 26, 1 << 12
"""An archive may unpack to so many times its own size, and 64 MiB: pictures hardly shrink, lists of names do. A file or folder
takes a block at least."""
MAX_PATH, MAX_PART, MAX_PARTS = 1024, 200, 32
"""Bytes of a member's path and of a part of it, and its parts."""
MAX_HEADER = 1 << 20
"""Bytes of a long name or a PAX header, which a packed tar may make of nearly nothing."""
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, OverflowError, MemoryError),
)
"""What the readers of archives raise on files that are not whole. OSError without a number is gzip's."""


class Unsafe(Exception):
    """An archive that is not unpacked; the message says why."""


OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE}
"""Every other OSError comes from what the archive says."""


def unpack(file: Path, into: Path) -> None:
    """Unpack a tar or zip into a new folder. Links, devices and paths that leave the folder are refused, whatever Python allows.

    Unsafe: such a member, more bytes than `MOST_TIMES` the archive's, or damage.
    """
    into.mkdir(parents=True)
    root, left = into.resolve(), MOST_TIMES * file.stat().st_size + AND
    try:
        for name, size, stream in _members(file):
            target = _inside(root, name)
            left -= max(size, BLOCK)
            if size < 0 or left < 0:
                raise Unsafe(f"unpacks to more than {MOST_TIMES} times its size")
            if stream is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if root not in (target.parent.resolve(), *target.parent.resolve().parents) or target.is_symlink():
                raise Unsafe(f"has a member outside of it: {name[:80]}")
            _copy(stream, target, size)
    except DAMAGED as error:
        raise Unsafe(f"is damaged ({error})") from error
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise
        raise Unsafe(f"is damaged ({error})") from error


def _members(file: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """(path, size, content) of every file, and of every folder without content."""
    if file.name.endswith(ZIP):
        with zipfile.ZipFile(file) as archive:
            for one in archive.infolist():
                kind = stat.S_IFMT(one.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise Unsafe(f"has a member that is neither file nor folder: {one.filename[:80]}")
                if one.is_dir():
                    yield one.filename, 0, None
                    continue
                with archive.open(one) as stream:
                    yield one.filename, one.file_size, stream
        return
    with tarfile.open(file, tarinfo=ShortHeaders) as tar:
        for entry in forwards(tar):
            if entry.isdir():
                yield entry.name, 0, None
            elif entry.isreg():
                content = tar.extractfile(entry)
                assert content is not None, "it is a regular file"
                yield entry.name, entry.size, content
            else:
                raise Unsafe(f"has a member that is neither file nor folder: {entry.name[:80]}")


class ShortHeaders(tarfile.TarInfo):
    """A member of a tar; ValueError for a header of more than `MAX_HEADER` bytes, before they are read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in HEADERS and found.size > MAX_HEADER:
            raise ValueError(f"a header of {found.size:,} bytes")
        return found


def forwards(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar; ValueError where one stands before the last, as a negative size makes it (CVE-2025-8194)."""
    last = -1
    for entry in tar:
        if entry.offset <= last or entry.size < 0:
            raise ValueError("a member with a negative size")
        last = entry.offset
        yield entry


def _inside(root: Path, name: str) -> Path:
    """Where a member goes. Unsafe: its path is absolute, goes upwards, or is longer than any file system needs."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    odd = path.is_absolute() or ".." in parts or any(sign in name for sign in "\\:\x00")
    try:
        long = len(name.encode()) > MAX_PATH or len(parts) > MAX_PARTS or any(len(p.encode()) > MAX_PART for p in parts)
    except UnicodeEncodeError:
        odd = long = True
    if odd or long:
        raise Unsafe(f"has a member {'outside of it' if odd else 'with too long a path'}: {name[:80]!a}")
    return root.joinpath(*parts)


def _copy(stream: IO[bytes], target: Path, size: int) -> None:
    done = 0
    with target.open("wb") as out:
        while block := stream.read(min(CHUNK, size - done + 1)):
            done += len(block)
            if done > size:
                raise ValueError(f"{target.name} is longer than it says")
            out.write(block)
    if done < size:
        raise ValueError(f"{target.name} ends early")
    os.chmod(target, 0o644)
